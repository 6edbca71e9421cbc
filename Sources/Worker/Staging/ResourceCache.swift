import Crypto
package import Logging
import NIOCore
package import NIOPosix
package import SystemPackage

/// Resources on this host: each is staged once, however many tasks want it, checked before it is used again, shared
/// read-only, and dropped least recently used first when disk is wanted.
///
/// A resource is keyed by its full text with actions. It is staged in a temporary place and renamed, so that a
/// half-made one is never seen; what a killed agent was staging is removed at its next start, and what was finished
/// is found again.
package actor ResourceCache {
  /// Brings a resource into an empty folder.
  package typealias Fetch = @Sendable (String, FilePath) async throws -> Void
  /// What tells one version of the source from another; nil where the source has no such thing.
  package typealias Fingerprint = @Sendable (String) async throws -> String?

  /// A resource in use: it stays until it is given back.
  package struct Lease: Sendable, Hashable {
    package let folder: FilePath
    fileprivate let name: String
  }

  private struct Entry {
    var uri: String
    var fingerprint: String?
    var bytes: Int64
    var leases = 0
    var lastUsed: UInt64
    var checkedAt: ContinuousClock.Instant?
  }

  private enum Outcome {
    case tryAgain
    case failed(any Error)
  }

  private final class Fetching {
    var waiters: [UInt64: (wakeup: Wakeup, outcome: Outcome?)] = [:]
  }

  private let folder: FilePath
  private let fetch: Fetch
  private let fingerprint: Fingerprint
  private let pool: NIOThreadPool
  private let logger: Logger
  /// How long a check of the source holds.
  private let freshness: Duration
  /// By the name of their folder.
  private var entries: [String: Entry] = [:]
  /// The entry that serves a resource now; older versions stay while tasks use them.
  private var current: [String: String] = [:]
  private var fetching: [String: Fetching] = [:]
  private var clock: UInt64 = 0

  /// Takes over what is in the folder.
  package init(
    folder: FilePath, freshness: Duration = .seconds(10), pool: NIOThreadPool = .singleton, logger: Logger,
    fingerprint: @escaping Fingerprint, fetch: @escaping Fetch
  ) {
    self.folder = folder
    self.freshness = freshness
    self.fetch = fetch
    self.fingerprint = fingerprint
    self.pool = pool
    self.logger = logger
    var found: [(name: String, note: Note)] = []
    for name in Files.names(in: folder) {
      let place = folder.appending(name)
      if !name.hasPrefix("."), let text = Files.text(place.appending("note")), let note = Note(text) {
        found.append((name, note))
      } else {
        Files.removeTree(place)
      }
    }
    for (name, note) in found.sorted(by: { $0.note.number < $1.note.number }) {
      clock = max(clock, note.number)
      entries[name] = Entry(
        uri: note.uri, fingerprint: note.fingerprint, bytes: note.bytes, lastUsed: note.number)
      current[note.uri] = name
    }
  }

  /// Whether the resource is here, as far as is known without asking its source.
  package func has(_ uri: String) -> Bool { current[uri] != nil }

  /// The resource, staged and checked. Give it back with `release`.
  package func acquire(_ uri: String) async throws -> Lease {
    while true {
      try Task.checkCancellation()
      if let running = fetching[uri] {
        // Somebody is at it.
        clock += 1
        let number = clock
        let wakeup = Wakeup()
        running.waiters[number] = (wakeup, nil)
        await wakeup.wait()
        if case .failed(let error)? = running.waiters.removeValue(forKey: number)?.outcome { throw error }
        continue
      }
      if let name = current[uri], let entry = entries[name],
        let checked = entry.checkedAt, .now - checked < freshness
      {
        return lease(name)
      }
      let running = Fetching()
      fetching[uri] = running
      do {
        let lease = try await stage(uri)
        end(uri, running, .tryAgain)
        return lease
      } catch {
        // A canceled task took only its own wish back: the next in line does it.
        end(uri, running, Task.isCancelled ? .tryAgain : .failed(error))
        throw error
      }
    }
  }

  package func release(_ lease: Lease) async {
    guard entries[lease.name] != nil else { return }
    entries[lease.name]!.leases -= 1
    if entries[lease.name]!.leases == 0, current[entries[lease.name]!.uri] != lease.name {
      _ = await drop(lease.name)
    }
  }

  /// Drops unused resources, least recently used first, until so many bytes were freed. How many were.
  package func evict(_ wanted: Int64) async -> Int64 {
    var freed: Int64 = 0
    while freed < wanted,
      let next = entries.filter({ $0.value.leases == 0 && fetching[$0.value.uri] == nil })
        .min(by: { $0.value.lastUsed < $1.value.lastUsed })
    {
      logger.info("the resource \(next.value.uri) makes room: \(next.value.bytes) bytes")
      freed += await drop(next.key)
    }
    return freed
  }

  /// Drops everything that no task uses. How many bytes and how many resources that were.
  package func clear() async -> (bytes: Int64, count: Int) {
    let before = entries.count
    let bytes = await evict(.max)
    return (bytes, before - entries.count)
  }

  /// Bytes of all resources here.
  package var bytes: Int64 { entries.values.reduce(0) { $0 + $1.bytes } }

  private func end(_ uri: String, _ running: Fetching, _ outcome: Outcome) {
    fetching[uri] = nil
    for number in running.waiters.keys {
      running.waiters[number]!.outcome = outcome
      running.waiters[number]!.wakeup.wake()
    }
  }

  private func lease(_ name: String) -> Lease {
    clock += 1
    entries[name]!.leases += 1
    entries[name]!.lastUsed = clock
    return Lease(folder: folder.appending(name).appending("data"), name: name)
  }

  private func stage(_ uri: String) async throws -> Lease {
    // What is here must not go while its source is asked.
    let held = current[uri].map { lease($0) }
    do {
      let mark: String?
      do {
        mark = try await fingerprint(uri)
      } catch {
        guard let held, (error as? any TransientProblem)?.isTransient == true else { throw error }
        logger.warning("the source of \(uri) cannot be asked now; the copy on this host is used: \(error)")
        return held
      }
      if let held, let entry = entries[held.name], entry.fingerprint == mark {
        entries[held.name]!.checkedAt = .now
        return held
      }
      let fresh = try await bring(uri, mark)
      if let held { await release(held) }
      return fresh
    } catch {
      if let held { await release(held) }
      throw error
    }
  }

  private func bring(_ uri: String, _ mark: String?) async throws -> Lease {
    clock += 1
    let number = clock
    let name = "\(Self.key(uri)).\(number)"
    let place = folder.appending("." + name)
    let data = place.appending("data")
    do {
      try Files.makeFolder(place)
      try Files.makeFolder(data)
      try await fetch(uri, data)
      try Task.checkCancellation()
      let target = folder.appending(name)
      let bytes = try await pool.runIfActive { () throws -> Int64 in
        Files.makeReadOnly(data)
        let bytes = Files.treeBytes(data)
        let note = Note(uri: uri, fingerprint: mark, bytes: bytes, number: number)
        try Files.replace(place.appending("note"), with: note.text, mode: 0o644)
        try Files.rename(place, to: target)
        return bytes
      }
      let older = current[uri]
      entries[name] = Entry(
        uri: uri, fingerprint: mark, bytes: bytes, lastUsed: number, checkedAt: .now)
      current[uri] = name
      let lease = lease(name)
      if let older, entries[older]?.leases == 0 { _ = await drop(older) }
      return lease
    } catch {
      try? await pool.runIfActive { Files.removeTree(place) }
      throw error
    }
  }

  private func drop(_ name: String) async -> Int64 {
    guard let entry = entries.removeValue(forKey: name) else { return 0 }
    if current[entry.uri] == name { current[entry.uri] = nil }
    let place = folder.appending(name)
    let away = folder.appending(".old-" + name)
    try? Files.rename(place, to: away)
    try? await pool.runIfActive { Files.removeTree(away) }
    return entry.bytes
  }

  private static func key(_ uri: String) -> String {
    SHA256.hash(data: Array(uri.utf8)).prefix(16).map { byte in
      let text = String(byte, radix: 16)
      return text.count == 1 ? "0" + text : text
    }.joined()
  }
}

/// What a failure must say for the cache to know that asking again later may help.
package protocol TransientProblem: Error {
  var isTransient: Bool { get }
}

/// What stands beside a staged resource: line by line, number, bytes, fingerprint, text.
private struct Note {
  var uri: String
  var fingerprint: String?
  var bytes: Int64
  var number: UInt64

  init(uri: String, fingerprint: String?, bytes: Int64, number: UInt64) {
    self.uri = uri
    self.fingerprint = fingerprint
    self.bytes = bytes
    self.number = number
  }

  init?(_ text: String) {
    let lines = text.split(separator: "\n", maxSplits: 3, omittingEmptySubsequences: false)
    guard lines.count == 4, let number = UInt64(lines[0]), let bytes = Int64(lines[1]) else { return nil }
    self.init(
      uri: String(lines[3]), fingerprint: lines[2].isEmpty ? nil : String(lines[2].dropFirst()), bytes: bytes,
      number: number)
  }

  var text: String {
    let mark = fingerprint.map { "=" + $0.map { $0.isNewline ? " " : String($0) }.joined() } ?? ""
    return "\(number)\n\(bytes)\n\(mark)\n\(uri)"
  }
}
