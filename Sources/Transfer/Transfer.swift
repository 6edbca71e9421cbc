import Crypto
import FoundationEssentials
package import Logging
import ScitqProtocol
import Synchronization
package import SystemPackage

/// Moves files between this machine, the configured remotes and the web.
///
/// One long-lived rclone per process does the transfers; it is started by the first one that needs it. What is said
/// to have been moved has been looked at: its size, and its hash where both ends have one. Transient failures are
/// met with the tries of `RetryPolicy`; files that are missing and refusals are not. Cancelling the task behind
/// a call stops the transfer, leaves nothing half-made under a final name, and throws `.canceled`.
package actor Transfer {
  nonisolated let daemon: RcloneDaemon
  nonisolated let limits: UnpackLimits
  nonisolated let retry: RetryPolicy
  nonisolated let logger: Logger
  private nonisolated let place: Mutex<PublicArchive>
  /// Where programs beside rclone, and what they need, are looked up.
  nonisolated let environment: [String: String]
  /// How many jobs rclone has at a time; within one, it works on several files.
  nonisolated let gate = Gate(width: 6)

  nonisolated var archive: PublicArchive { place.withLock { $0 } }
  nonisolated var rclone: Rclone { Rclone(daemon: daemon) }
  nonisolated var selector: Selector { Selector(rclone: rclone, archive: archive) }

  /// `directory` is where rclone's socket and configuration live while it runs; it is made with mode 0700 if it
  /// does not exist. Nothing is started before the first transfer that needs it.
  package init(
    remotes: Remotes, directory: FilePath, logger: Logger, limits: UnpackLimits = .standard,
    retry: RetryPolicy = .standard, archive: PublicArchive = PublicArchive(),
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) {
    place = Mutex(archive)
    self.environment = environment
    self.limits = limits
    self.retry = retry
    self.logger = logger
    daemon = RcloneDaemon(remotes: remotes, directory: directory, logger: logger)
  }

  /// Uses other remotes, and another archive, from now on; transfers that are under way end with those they began with.
  package func update(remotes: Remotes, archive: PublicArchive? = nil) async {
    if let archive { place.withLock { $0 = archive } }
    await daemon.update(remotes: remotes)
  }

  /// Downloads what the URI chooses into `folder`, which is made if it does not exist, and applies the actions.
  ///
  /// Everything is brought to a temporary place within `folder`, verified, and renamed at the end: when it throws,
  /// nothing has arrived. A name that is taken in `folder` is `.input`. Local files are copied, never linked.
  /// A file that is a program or script (by its first bytes) is made executable, since stores do not keep modes.
  /// The answer tells what was downloaded, not what was unpacked from it.
  package nonisolated func fetch(
    _ uri: TransferURI, into folder: FilePath, progress: (@Sendable (TransferProgress) -> Void)? = nil
  ) async throws(TransferFailure) -> [MovedFile] {
    try await fetch(uri, into: folder, replacing: false, progress: progress)
  }

  /// The sum of the sizes that `fetch` would bring, before actions; files of unknown size count nothing.
  package nonisolated func size(of uri: TransferURI) async throws(TransferFailure) -> Int64 {
    try await retrying { () throws(TransferFailure) in try await selector.select(uri).totalBytes }
  }

  /// Changes when what the URI chooses changes: a digest of the names, sizes and hashes, or times where a store has
  /// no hashes. Equal fingerprints mean equal content as far as the store tells.
  package nonisolated func fingerprint(of uri: TransferURI) async throws(TransferFailure) -> String {
    let selection = try await retrying { () throws(TransferFailure) in
      try await selector.select(uri, times: true)
    }
    var digest = SHA256()
    for item in selection.items.sorted(by: { $0.path < $1.path }) {
      let mark = item.hash.isEmpty ? item.modified : item.hash
      digest.update(data: Array("\(item.path)\0\(item.bytes)\0\(mark)\n".utf8))
    }
    return hexadecimal(digest.finalize())
  }

  /// Uploads everything below `folder`. Nothing at the destination is deleted; files of the same name are replaced.
  ///
  /// An empty folder is no files and a success. A symbolic link is followed where it leads to something within
  /// `folder`; links that lead out, pipes, sockets and devices are left out, with a note in the log.
  package nonisolated func store(
    _ folder: FilePath, to uri: TransferURI, progress: (@Sendable (TransferProgress) -> Void)? = nil
  ) async throws(TransferFailure) -> [MovedFile] {
    let destination = uri.asFolder
    guard destination.actions.isEmpty, !destination.hasPattern, !destination.isSourceOnly else {
      throw TransferFailure(
        .input, "\(uri): an output is one folder of this machine or a remote, without * and actions")
    }
    let content = try await blocking { interruption throws(TransferFailure) in
      try LocalFolder.read(folder, interruption)
    }
    for (path, why) in content.skipped { logger.notice("\(folder.appending(path)) was not uploaded: \(why)") }
    guard !content.files.isEmpty else { return [] }
    let selection = Selection(
      uri: try TransferURI(parsing: "/"), kind: .folder, base: .local(content),
      items: content.files.map {
        .init(path: $0.path, arrival: $0.path, bytes: $0.bytes, modified: String($0.modified), hash: "")
      })
    do throws(TransferFailure) {
      return try await deliver(selection, to: .folder(destination), progress: progress)
    } catch  where error.reason == .inputMissing {
      throw TransferFailure(.upload, error.message)
    }
  }

  /// What is in a folder, what a pattern chooses, or one file. Folders first by name, each with its full URI.
  package nonisolated func list(_ uri: TransferURI) async throws(TransferFailure) -> [Entry] {
    try await retrying { () throws(TransferFailure) in try await Listing(selector: selector).entries(of: uri)
    }
  }

  /// Copies a file, a folder's content or what a pattern chooses, between any two of this machine, remotes and, as
  /// a source, the web; on the store's own side where it can. Equal files at the destination are left as they are.
  ///
  /// A file goes under its own name into a destination that ends in `/` or is a folder of this machine, and to
  /// exactly that name otherwise. What has actions, a public run and what comes by Aspera always goes into a folder. With `dryRun` nothing is written: the answer is what would be.
  package nonisolated func copy(
    _ source: String, to destination: String, dryRun: Bool = false,
    progress: (@Sendable (TransferProgress) -> Void)? = nil
  ) async throws(TransferFailure) -> [MovedFile] {
    let from = try TransferURI(parsing: source)
    let to = try TransferURI(parsing: destination)
    try check(from, to)
    if !from.actions.isEmpty || from.isRun || from.isAspera {
      guard to.isLocal else {
        throw TransferFailure(
          .input,
          "\(from): \(from.actions.isEmpty ? "\(from.scheme):// brings files to" : "actions unpack files on") this machine; copy to a local folder"
        )
      }
      guard !dryRun else { return try await preview(from, to: .folder(to.asFolder)) }
      return try await fetch(from, into: Selector.absolute(to.path), replacing: true, progress: progress)
    }
    if dryRun {
      let selection = try await retrying { () throws(TransferFailure) in try await selector.select(from) }
      return moved(selection, to: try target(for: selection, to))
    }
    return try await retrying { () throws(TransferFailure) in
      let selection = try await selector.select(from)
      return try await deliverOnce(selection, to: try target(for: selection, to), progress: progress)
    }
  }

  /// Ends rclone and removes its files. Transfers that are under way end in failure.
  package func stop() async { await daemon.stop() }

  // MARK: parts

  nonisolated func retrying<T: Sendable>(
    _ body: @Sendable () async throws(TransferFailure) -> T
  ) async throws(TransferFailure) -> T {
    try await retry.run { failure, attempt in
      logger.info("try \(attempt) of \(retry.tries) failed, and is repeated: \(failure.message)")
    } _: { () throws(TransferFailure) in
      try await body()
    }
  }

  private nonisolated func preview(
    _ uri: TransferURI, to target: Target
  ) async throws(TransferFailure) -> [MovedFile] {
    let selection = try await retrying { () throws(TransferFailure) in try await selector.select(uri) }
    return moved(selection, to: target)
  }

  /// A copy onto itself, a folder into itself, and destinations that nothing can be written to are refused.
  private nonisolated func check(_ from: TransferURI, _ to: TransferURI) throws(TransferFailure) {
    guard to.actions.isEmpty else {
      throw TransferFailure(.input, "\(to): a destination takes no action")
    }
    guard !to.hasPattern else {
      throw TransferFailure(.input, "\(to): a destination cannot hold *")
    }
    guard !to.isSourceOnly else {
      throw TransferFailure(
        .input, "\(to): nothing can be stored over \(to.scheme); name a remote or a local path")
    }
    guard from.scheme == to.scheme else { return }
    let source = key(from)
    let target = key(to)
    if source == target
      || (to.isFolder && !from.hasPattern && !from.isFolder
        && source == key(to.with(path: to.path + from.lastName)))
    {
      throw TransferFailure(.input, "\(from): the file or folder cannot be copied onto itself")
    }
    if from.isFolder && target.hasPrefix(source + "/") {
      throw TransferFailure(.input, "\(from): a folder cannot be copied into itself, \(to)")
    }
  }

  private nonisolated func key(_ uri: TransferURI) -> String {
    guard uri.isLocal else { return Selector.trimmed(uri.path) }
    let path = Selector.absolute(uri.path)
    return Selector.trimmed(((try? realPath(path)) ?? path.lexicallyNormalized()).string)
  }
}
