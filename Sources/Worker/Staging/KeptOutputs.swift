import Logging
import NIOCore
import NIOPosix
import ScitqProtocol
import Synchronization
import SystemPackage
import Transfer

/// What attempts have uploaded and left on this host for the tasks that read it next.
///
/// An output folder is kept as a whole by one rename, after its files were found to be what was uploaded. Those who
/// read get copies of their own. It is there to save a download and for nothing else: it goes, longest unused first,
/// when disk is wanted, and with the agent.
final class KeptOutputs: Sendable {
  /// A file as it was uploaded, and has to be still when it is read.
  struct File: Sendable, Hashable {
    /// Relative to the kept folder.
    var path: String
    var stamp: Files.Stamp
    var hash: String
  }

  /// An attempt's outputs, looked through before they are kept.
  struct Gathered: Sendable {
    var places: Set<String> = []
    /// By where they were uploaded to.
    var files: [String: File] = [:]
    var bytes: Int64 = 0
  }

  /// Files here that stand for an input; they stay until `end`.
  struct Reading: Sendable {
    fileprivate struct Item: Sendable {
      var source: FilePath
      var file: File
      var chosen: ChosenFile
    }

    fileprivate let number: UInt64
    fileprivate let items: [Item]
    var bytes: Int64 { items.reduce(0) { $0 + $1.file.stamp.bytes } }
  }

  private struct Kept {
    var folder: FilePath
    var gathered: Gathered
    var lastUsed: UInt64
    var readings: Set<UInt64> = []
  }

  private struct State {
    var kept: [AttemptID: Kept] = [:]
    var clock: UInt64 = 0

    mutating func tick() -> UInt64 {
      clock += 1
      return clock
    }
  }

  private let state = Mutex(State())
  private let folder: FilePath
  private let transfer: Transfer
  private let pool: NIOThreadPool
  private let logger: Logger

  /// Drops what an earlier agent kept: nothing tells what it was.
  init(folder: FilePath, transfer: Transfer, pool: NIOThreadPool, logger: Logger) {
    self.folder = folder
    self.transfer = transfer
    self.pool = pool
    self.logger = logger
    for name in Files.names(in: folder) { Files.removeTree(folder.appending(name)) }
  }

  // MARK: Keeping

  /// Looks through an output folder that was uploaded. Nil: something has written to it since the command ended
  /// (microseconds UTC), or it is not what was uploaded for another reason.
  func gather(_ output: FilePath, _ uploads: [Upload], endedAt: Int64) async -> Gathered? {
    try? await pool.runIfActive { () -> Gathered? in
      guard let root = Files.resolved(output) else { return nil }
      var gathered = Gathered()
      for upload in uploads {
        let place = PlaceKey(upload.place)
        gathered.places.insert(place.text)
        for moved in upload.files {
          let key = PlaceKey(moved.uri)
          guard let name = key.path(below: place),
            let source = Files.resolved(output.appending(name)), source.starts(with: root), source != root,
            let stamp = Files.stamp(source), stamp.bytes == moved.bytes, stamp.modified / 1000 <= endedAt
          else { return nil }
          let path = String(source.string.dropFirst(root.string.count + 1))
          gathered.files[key.text] = File(path: path, stamp: stamp, hash: moved.hash)
        }
      }
      gathered.bytes = Files.treeBytes(root)
      return gathered.files.isEmpty ? nil : gathered
    }
  }

  /// Takes the folder over. To be called where the attempt's success is put down, before anybody can ask for it.
  func keep(_ id: AttemptID, _ gathered: Gathered, from output: FilePath) {
    let target = folder.appending("\(id)")
    do { try Files.rename(output, to: target) } catch {
      return logger.warning("the outputs of task \(id.task) are not kept for the next one: \(error)")
    }
    state.withLock { state in
      state.kept[id] = Kept(folder: target, gathered: gathered, lastUsed: state.tick())
    }
  }

  // MARK: Reading

  /// All files that an input chooses, where they are all here. Nil: it is to be downloaded.
  func read(_ input: TransferURI, from offers: [WireKeptOutput]) async -> Reading? {
    guard input.actions.isEmpty else { return nil }
    let wanted = PlaceKey(input.description)
    let ids = offers.filter { wanted.isAtOrBelow(PlaceKey($0.uri)) }.map { offer in
      (id: AttemptID(offer.attempt), place: PlaceKey(offer.uri).text)
    }
    let isHere = state.withLock { state in
      ids.contains { state.kept[$0.id]?.gathered.places.contains($0.place) == true }
    }
    // What is in the store decides, and not what is here: others may have put their files to the same place since.
    // Trouble with the store is the download's to tell.
    guard isHere, let chosen = try? await transfer.chosen(by: input), !chosen.isEmpty else { return nil }
    return state.withLock { state in
      let sources = ids.compactMap { one in
        state.kept[one.id].flatMap { $0.gathered.places.contains(one.place) ? (one.id, $0) : nil }
      }.sorted { $0.1.lastUsed > $1.1.lastUsed }
      var used: Set<AttemptID> = []
      var items: [Reading.Item] = []
      for one in chosen {
        let key = PlaceKey(one.uri).text
        let found = sources.first { $0.1.gathered.files[key].map { $0.stands(for: one) } ?? false }
        guard let found, let file = found.1.gathered.files[key] else { return nil }
        used.insert(found.0)
        items.append(.init(source: found.1.folder.appending(file.path), file: file, chosen: one))
      }
      let number = state.tick()
      for id in used {
        state.kept[id]?.readings.insert(number)
        state.kept[id]?.lastUsed = number
      }
      return Reading(number: number, items: items)
    }
  }

  /// Copies the files into an empty folder. Nil: one is not what it was, or the reading has ended; nothing is left there.
  func copy(_ reading: Reading, into target: FilePath) async throws -> [MovedFile]? {
    let isHeld = state.withLock { state in
      state.kept.values.contains { $0.readings.contains(reading.number) }
    }
    let items = reading.items
    let areSame = try? await pool.runIfActive {
      items.allSatisfy { Files.stamp($0.source) == $0.file.stamp }
    }
    guard isHeld, areSame == true else { return nil }
    do {
      try await transfer.duplicate(items.map { ($0.source, $0.chosen.arrival) }, into: target)
    } catch {
      try? await pool.runIfActive {
        for name in Files.names(in: target) { Files.removeTree(target.appending(name)) }
      }
      try Task.checkCancellation()
      logger.info("outputs of an earlier task could not be read here, and are downloaded: \(error.message)")
      return nil
    }
    return items.map {
      let hash = $0.chosen.hash.isEmpty ? $0.file.hash : $0.chosen.hash
      return MovedFile(uri: $0.chosen.uri, bytes: $0.file.stamp.bytes, hash: hash)
    }
  }

  /// Any number of times.
  func end(_ reading: Reading) {
    state.withLock { state in
      for id in state.kept.keys { state.kept[id]?.readings.remove(reading.number) }
    }
  }

  // MARK: Making room

  /// Drops what nobody reads, longest unused first, until so many bytes were freed. How many were.
  func evict(_ wanted: Int64) async -> Int64 { await drop(wanted).bytes }

  /// Drops all that nobody reads. How many bytes, and of how many attempts.
  func clear() async -> (bytes: Int64, count: Int) { await drop(.max) }

  private func drop(_ wanted: Int64) async -> (bytes: Int64, count: Int) {
    let dropped = state.withLock { state -> [Kept] in
      var dropped: [Kept] = []
      var bytes: Int64 = 0
      let idle = state.kept.filter { $0.value.readings.isEmpty }
      for (id, kept) in idle.sorted(by: { $0.value.lastUsed < $1.value.lastUsed }) where bytes < wanted {
        state.kept[id] = nil
        bytes += kept.gathered.bytes
        dropped.append(kept)
      }
      return dropped
    }
    try? await pool.runIfActive { for one in dropped { Files.removeTree(one.folder) } }
    return (dropped.reduce(0) { $0 + $1.gathered.bytes }, dropped.count)
  }
}

extension KeptOutputs.File {
  /// The store has the same, as far as it tells.
  fileprivate func stands(for chosen: ChosenFile) -> Bool {
    guard chosen.bytes == stamp.bytes else { return false }
    let ours = hash.split(separator: ":", maxSplits: 1)
    let theirs = chosen.hash.split(separator: ":", maxSplits: 1)
    return ours.first != theirs.first || ours == theirs
  }
}

/// Where something is, in one spelling.
private struct PlaceKey {
  let text: String

  init(_ uri: String) {
    var scheme = ""
    var path = uri[...]
    if let mark = uri.firstRange(of: "://") {
      scheme = uri[..<mark.lowerBound] == "file" ? "" : String(uri[..<mark.upperBound])
      path = uri[mark.upperBound...]
    }
    text = scheme + (path.hasPrefix("/") ? "/" : "") + path.split(separator: "/").joined(separator: "/")
  }

  /// What follows the place; nil where this is not below it.
  func path(below place: PlaceKey) -> String? {
    text.hasPrefix(place.text + "/") ? String(text.dropFirst(place.text.count + 1)) : nil
  }

  /// All that it chooses is there: a pattern chooses below what stands before its first `*`.
  func isAtOrBelow(_ place: PlaceKey) -> Bool { text == place.text || path(below: place) != nil }
}
