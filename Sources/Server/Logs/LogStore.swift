package import Logging
package import NIOPosix
package import ScitqProtocol
import Synchronization
package import SystemPackage

/// What tasks print: two append-only files a task, `logs/<id / 1000>/<id>.out` and `.err`, written by byte offset.
///
/// All waiting for the disk happens on the thread pool. Tasks are written in parallel; what belongs to one task, in order.
/// No call throws because the disk is full: the task goes on, readers see a line in place of what was lost, and
/// `diskWarning` is set until writes work again.
package actor LogStore {
  /// One sentence while writes fail, else nil.
  package private(set) var diskWarning: String?

  private struct Entry {
    let log: TaskLog
    var lastUse: UInt64 = 0
    /// Grows with everything a follower may want to see.
    var version: UInt64 = 0
    var finished = false
  }

  private enum SealOutcome { case done, lead }
  private struct Seal {
    let log: TaskLog
    let continuation: CheckedContinuation<SealOutcome, Never>
  }

  private let directory: String
  private let limits: TaskLog.Limits
  private let maxOpenFiles: Int
  private let pool: NIOThreadPool
  private let logger: Logger
  private let budget = DescriptorBudget()
  private let compressor: LogCompressor
  private let waiters = LogWaiters()
  private var entries: [TaskID: Entry] = [:]
  private var clock: UInt64 = 0
  private var seals: [Seal] = []
  private var isSealing = false
  private var nextClosing: UInt64 = 0
  private var nextForgetting: UInt64 = 0

  /// - Parameters:
  ///   - directory: the server's `data_dir`; `logs` is made in it with the first log.
  ///   - maxBytes: how much of one stream is kept; of a longer one the beginning and the end.
  ///   - maxOpenFiles: how many descriptors stay open between calls.
  package init(
    directory: FilePath, maxBytes: Int64 = 1 << 30, compress: Bool = true, maxOpenFiles: Int = 256,
    threadPool: NIOThreadPool, logger: Logger
  ) {
    self.directory = directory.string
    limits = TaskLog.Limits(maxBytes: max(64 * 1024, maxBytes), compress: compress)
    self.maxOpenFiles = max(16, maxOpenFiles)
    pool = threadPool
    self.logger = logger
    compressor = LogCompressor(pool: threadPool, logger: logger)
  }

  // MARK: Writing

  /// Appends a chunk at its offset and returns how far the stream is stored. A chunk that arrives twice is written once;
  /// one that lies behind a gap is not written, and the answer tells where to go on. A finished log takes nothing more.
  package func append(
    task: TaskID, stream: LogStream, offset: Int64, bytes: some Collection<UInt8> & Sendable
  ) async -> Int64 {
    let result = await use(task) { log in
      bytes.withContiguousStorageIfAvailable {
        log.append(UnsafeRawBufferPointer($0), to: stream, at: offset)
      }
        ?? Array(bytes).withUnsafeBytes { log.append($0, to: stream, at: offset) }
    }
    if let failure = result.failure {
      warn("Logs cannot be written to \(directory): \(failure). What tasks print is lost meanwhile.")
    } else if result.wrote {
      writesWork()
    }
    changed(task)
    return result.length
  }

  /// For bytes that will never come: the stream goes on at `end`, and readers see how many are missing and why.
  package func skip(task: TaskID, stream: LogStream, to end: Int64, because reason: String) async -> Int64 {
    let length = await use(task) { $0.skip(stream, to: end, because: reason.filter { !$0.isNewline }) }
    changed(task)
    return length
  }

  /// Returns true when both streams are on disk up to the given lengths, false when the bytes have not arrived (the
  /// worker has to send again). Seals that come together share the waiting for the disk. A task that printed nothing
  /// costs nothing.
  package func seal(task: TaskID, out: Int64, err: Int64) async -> Bool {
    if out <= 0, err <= 0 { return true }
    let log = pin(task)
    defer { unpin(log) }
    let state = await pool.perform { log.reaches(out: out, err: err) }
    guard state.arrived else { return false }
    if state.durable { return true }
    let outcome = await withCheckedContinuation { continuation in
      seals.append(Seal(log: log, continuation: continuation))
      if !isSealing {
        isSealing = true
        seals.removeLast()
        continuation.resume(returning: .lead)
      }
    }
    if outcome == .lead { await sealGroup(with: log) }
    return true
  }

  /// One task seals for all that wait; those that came meanwhile are sealed by the first of them.
  private func sealGroup(with first: TaskLog) async {
    let group = seals
    seals = []
    let logs = [first] + group.map(\.log)
    let failure = await pool.perform { [directory] in Self.synchronize(logs, directory: directory) }
    if let failure {
      warn("Logs in \(directory) cannot be put on disk: \(failure).")
    }
    for seal in group { seal.continuation.resume(returning: .done) }
    if seals.isEmpty {
      isSealing = false
    } else {
      // The longest waiting one leads the next group, so that nobody works for others without end.
      seals.removeFirst().continuation.resume(returning: .lead)
    }
    trimIfNeeded()
  }

  private static func synchronize(_ logs: [TaskLog], directory: String) -> SystemError? {
    if logs.count >= 6 {
      let lengths = logs.map { $0.beginGroupSync() }
      if (try? LogFile.synchronizeFileSystem(holding: directory)) == true {
        for (log, length) in zip(logs, lengths) { log.markSynced(length) }
        return nil
      }
    }
    var failure: SystemError?
    for log in logs { failure = log.synchronize() ?? failure }
    return failure
  }

  /// The task has ended: its files are closed, followers see the end, and a long log is compressed in the background.
  /// Call when the task's final status can be seen by others.
  ///
  /// - Parameter isSilent: it is known to have printed nothing, so that there is no look at the disk.
  package func finish(task: TaskID, isSilent: Bool = false) async {
    if entries[task] != nil { await finishLog(of: task) } else if !isSilent { await finishUnseen(task) }
  }

  /// A task that never printed has nothing to finish; one that printed before a restart has.
  private func finishUnseen(_ task: TaskID) async {
    let lengths = try? await self.lengths(task: task)
    if let lengths, lengths.out == 0, lengths.err == 0 {
      entries[task]?.finished = true
      return changed(task)
    }
    await finishLog(of: task)
  }

  private func finishLog(of task: TaskID) async {
    let log = pin(task)
    defer { unpin(log) }
    let isLong = await pool.perform { log.finish() }
    entries[task]?.finished = true
    changed(task)
    if isLong { compressor.add(log) }
  }

  /// Removes everything of the task. Readers and followers come to an end.
  package func delete(task: TaskID) async {
    let log = pin(task)
    await pool.perform { log.delete() }
    unpin(log)
    changed(task)
    entries[task]?.finished = true
    changed(task)
  }

  /// Returns when no log is being compressed or waits for it.
  package func settle() async { await compressor.settle() }

  // MARK: Reading

  /// How far each stream is stored.
  package func lengths(task: TaskID) async throws -> (out: Int64, err: Int64) {
    try await use(task) { log in Result { try log.lengths() } }.get()
  }

  /// The bytes of a stream from an offset on, at most `max` and at most 256 KiB; nil at the end of what is stored. Where
  /// bytes were lost the piece is a line that says so: go on at its `next`.
  package func read(task: TaskID, stream: LogStream, from offset: Int64, max: Int = 256 * 1024) async throws
    -> LogPiece?
  {
    var position = LogPosition()
    position[stream] = Swift.max(0, offset)
    return try await piece(of: task, at: position, stream: stream, max: max).piece
  }

  /// Both streams in order of arrival, or one of them: everything that is stored when the reader comes to its end. Pulled:
  /// a slow reader holds one piece.
  package nonisolated func merged(
    task: TaskID, stream: LogStream? = nil, from position: LogPosition = LogPosition()
  ) -> AsyncThrowingStream<LogPiece, any Error> {
    let cursor = LogCursor(store: self, task: task, stream: stream, position: position)
    return AsyncThrowingStream { try await cursor.next() }
  }

  /// Where the last lines of both streams, or of one, begin: a position for `merged` and `follow`.
  package func tail(task: TaskID, lines: Int, stream: LogStream? = nil) async throws -> LogPosition {
    try await use(task) { log in Result { try log.tail(lines: lines, of: stream) } }.get()
  }

  /// What is stored, and then what is appended, until the log is finished or deleted. Pushed: a reader waits without
  /// asking, and a slow one holds one piece.
  ///
  /// - Parameter hasEnded: asked each time before waiting: whether the task has ended for good, as the database knows it.
  ///   It tells a log that was finished long ago, perhaps by a server before this one, from one that goes on.
  package nonisolated func follow(
    task: TaskID, stream: LogStream? = nil, from position: LogPosition = LogPosition(),
    hasEnded: @escaping @Sendable () async -> Bool = { false }
  ) -> AsyncThrowingStream<LogPiece, any Error> {
    let cursor = LogCursor(store: self, task: task, stream: stream, position: position, hasEnded: hasEnded)
    return AsyncThrowingStream { try await cursor.next() }
  }

  func piece(of task: TaskID, at position: LogPosition, stream: LogStream?, max: Int) async throws
    -> (piece: LogPiece?, next: LogPosition)
  {
    try await use(task) { log in Result { try log.piece(at: position, of: stream, max: max) } }.get()
  }

  /// What `waitForChange` compares with; take it before reading. The log stays known until `unpin`.
  func watch(_ task: TaskID) -> TaskLog { pin(task) }
  func version(of task: TaskID) -> UInt64 { entries[task]?.version ?? 0 }
  func isFinished(_ task: TaskID) -> Bool { entries[task]?.finished ?? false }

  /// Returns when something has changed since `version`, or the waiting task was canceled.
  func waitForChange(of task: TaskID, since version: UInt64) async {
    guard let entry = entries[task], entry.version == version, !entry.finished else { return }
    await waiters.wait(for: task)
  }

  // MARK: Entries

  /// Descriptors that are open now.
  nonisolated var openFiles: Int { budget.open }

  private func use<T: Sendable>(_ task: TaskID, _ body: @escaping @Sendable (TaskLog) -> T) async -> T {
    let log = pin(task)
    defer { unpin(log) }
    return await pool.perform { [budget, maxOpenFiles] in
      defer {
        // A burst comes faster than `trimIfNeeded` closes.
        if budget.open > maxOpenFiles { log.closeFiles() }
      }
      return body(log)
    }
  }

  private func pin(_ task: TaskID) -> TaskLog {
    clock += 1
    if entries[task] == nil {
      entries[task] = Entry(
        log: TaskLog(task: task.rawValue, directory: directory, limits: limits, budget: budget))
    }
    entries[task]!.lastUse = clock
    let log = entries[task]!.log
    log.pins.add(1, ordering: .relaxed)
    return log
  }

  func unpin(_ log: TaskLog) {
    log.pins.subtract(1, ordering: .relaxed)
    trimIfNeeded()
  }

  private func changed(_ task: TaskID) {
    guard entries[task] != nil else { return }
    entries[task]!.version += 1
    waiters.wake(task)
  }

  /// How many logs are known in memory without being in use.
  private static let maxEntries = 8192

  /// Closes the descriptors, and forgets the logs, that were used longest ago. Many at once, and not again for a
  /// while, so that the search for them is paid once for many calls.
  private func trimIfNeeded() {
    if budget.open > maxOpenFiles, clock >= nextClosing {
      nextClosing = clock + UInt64(maxOpenFiles / 4)
      var excess = budget.open - maxOpenFiles * 3 / 4
      let open = entries.values.filter { $0.log.openFiles.load(ordering: .relaxed) > 0 }
      let victims = open.sorted { $0.lastUse < $1.lastUse }.prefix { entry in
        defer { excess -= entry.log.openFiles.load(ordering: .relaxed) }
        return excess > 0
      }.map(\.log)
      // Also one in use may be closed between two of its calls: it opens its files again. On the pool, since a call may
      // be running.
      pool.submit { _ in for log in victims { log.closeFiles() } }
    }
    if entries.count > Self.maxEntries, clock >= nextForgetting {
      nextForgetting = clock + UInt64(Self.maxEntries / 8)
      let idle = entries.filter {
        $0.value.log.pins.load(ordering: .relaxed) == 0
          && $0.value.log.openFiles.load(ordering: .relaxed) == 0
          && !$0.value.log.holdsUnrecorded.load(ordering: .relaxed)
      }
      for (task, _) in idle.sorted(by: { $0.value.lastUse < $1.value.lastUse })
        .prefix(entries.count - Self.maxEntries * 3 / 4)
      {
        entries[task] = nil
      }
    }
  }

  private func warn(_ sentence: String) {
    if diskWarning == nil { logger.error("\(sentence)") }
    diskWarning = sentence
  }

  private func writesWork() {
    guard diskWarning != nil else { return }
    diskWarning = nil
    logger.notice("Logs can be written again.")
  }
}
