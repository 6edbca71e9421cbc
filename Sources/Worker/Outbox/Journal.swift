import Dispatch
package import Logging
import NIOCore
import NIOPosix
import Synchronization
package import SystemPackage

/// What this agent must not forget, in one file of the store.
///
/// `append` is cheap and keeps the order of its calls; one writer takes everything that waits and writes it, and when
/// somebody waits in `flushed()` makes it durable, once for all who do. What nobody waits for gathers a few milliseconds
/// before it is written. A crash leaves a prefix of what was appended,
/// at least everything whose `flushed()` had returned. A full disk is said, and tried again until there is room: nothing
/// that waits is lost meanwhile.
package final class Journal: Sendable {
  private struct Mailbox {
    var records: [JournalRecord] = []
    var waiters: [CheckedContinuation<Void, Never>] = []
    var isWriting = false
    var isClosing = false
  }

  /// Only the writer touches it, and there is one at a time: `Mailbox.isWriting` sees to that.
  private struct Disk {
    var file: SystemPackage.FileDescriptor
    var length: Int64
    var state: JournalState
    /// Everything in it outlives a cut of power, too.
    var isSynced = true
  }

  private let path: FilePath
  private let mailbox = Mutex(Mailbox())
  private let disk: Mutex<Disk>
  private let pool: NIOThreadPool
  private let logger: Logger
  private let smallest: Int64
  /// Rung when somebody waits: then what has gathered is written at once.
  private let bell = DispatchSemaphore(value: 0)
  private static let gathering = DispatchTimeInterval.milliseconds(5)

  /// Reads what is there, cuts a torn tail off, and takes the file over.
  /// - Parameter compactedAbove: a file shorter than this many bytes is never rewritten.
  package init(
    at path: FilePath, compactedAbove: Int64 = 4 << 20, logger: Logger
  ) throws(Files.Problem) {
    self.path = path
    self.logger = logger
    smallest = compactedAbove
    var state = JournalState()
    let magic = JournalFormat.magic
    let bytes = Files.read(path) ?? []
    let hasMagic = bytes.starts(with: magic)
    if !hasMagic, bytes.count > magic.count {
      throw Files.Problem(
        operation: "read a journal of this version from", path: path.string, code: .invalidArgument)
    }
    var length = Int64(magic.count)
    if hasMagic {
      let (records, used) = JournalFormat.records(in: bytes[magic.count...])
      for record in records { state.apply(record) }
      length += Int64(used)
      if length < bytes.count {
        logger.warning(
          "the journal's last \(Int64(bytes.count) - length) bytes were being written when the agent ended; they are cut off"
        )
      }
    }
    do {
      let file = try SystemPackage.FileDescriptor.open(
        path, .readWrite, options: [.create], permissions: [.ownerReadWrite])
      Files.closeOnExec(file)
      if !hasMagic {
        try Files.truncate(file, to: 0, path)
        try file.writeAll(toAbsoluteOffset: 0, magic)
      }
      try Files.truncate(file, to: length, path)
      try Files.sync(file, path)
      try Files.syncFolder(path.removingLastComponent())
      disk = Mutex(Disk(file: file, length: length, state: state))
    } catch {
      throw error as? Files.Problem
        ?? Files.Problem(operation: "open", path: path.string, code: error as? Errno ?? .ioError)
    }
    pool = NIOThreadPool(numberOfThreads: 1)
    pool.start()
  }

  /// What the records written so far add up to.
  package var state: JournalState { disk.withLock { $0.state } }

  /// Hands records over in order. They are durable when a `flushed()` that is called afterwards returns.
  package func append(_ records: JournalRecord...) { append(records) }

  package func append(_ records: [JournalRecord]) {
    let start = mailbox.withLock { mailbox -> Bool in
      // The file's number may be another file's by now.
      if mailbox.isClosing { return false }
      mailbox.records += records
      if mailbox.isWriting { return false }
      mailbox.isWriting = true
      return true
    }
    if start { pool.submit { _ in self.write() } }
  }

  /// Returns when everything appended before the call is durable, or the journal was closed over a full disk.
  package func flushed() async {
    await withCheckedContinuation { continuation in
      let (start, now) = mailbox.withLock { mailbox -> (Bool, Bool) in
        if mailbox.isClosing { return (false, true) }
        if !mailbox.isWriting, mailbox.records.isEmpty { return (false, true) }
        mailbox.waiters.append(continuation)
        if mailbox.isWriting {
          bell.signal()
          return (false, false)
        }
        mailbox.isWriting = true
        return (true, false)
      }
      if now { continuation.resume() }
      if start { pool.submit { _ in self.write() } }
    }
  }

  /// Makes durable what waits, once, and lets the file go. Appending afterwards does nothing.
  package func close() async {
    await flushed()
    mailbox.withLock { $0.isClosing = true }
    try? await pool.shutdownGracefully()
    disk.withLock { try? $0.file.close() }
  }

  // MARK: The writer, on its own thread

  private func write() {
    while true {
      if mailbox.withLock({ $0.waiters.isEmpty && !$0.records.isEmpty }) {
        _ = bell.wait(timeout: .now() + Self.gathering)
      }
      let (records, waiters) = mailbox.withLock { mailbox in
        let taken = (mailbox.records, mailbox.waiters)
        mailbox.records = []
        mailbox.waiters = []
        if taken.0.isEmpty, taken.1.isEmpty { mailbox.isWriting = false }
        return taken
      }
      if records.isEmpty, waiters.isEmpty { return }
      disk.withLock { disk in
        if !records.isEmpty { write(records, to: &disk) }
        if !waiters.isEmpty, !disk.isSynced { sync(&disk) }
      }
      for waiter in waiters { waiter.resume() }
    }
  }

  private func write(_ records: [JournalRecord], to disk: inout Disk) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(records.count * 96)
    for record in records { JournalFormat.append(record, to: &bytes) }
    let (file, length) = (disk.file, disk.length)
    let isWritten = persist {
      do { try file.writeAll(toAbsoluteOffset: length, bytes) } catch {
        // Half a record must not stand where the next try may put a shorter one.
        try? Files.truncate(file, to: length, path)
        throw error
      }
    }
    guard isWritten else { return }
    disk.isSynced = false
    disk.length += Int64(bytes.count)
    for record in records { disk.state.apply(record) }
    if disk.length > smallest, disk.length > 4 * Int64(disk.state.liveBytes) { compact(&disk) }
  }

  private func sync(_ disk: inout Disk) {
    let file = disk.file
    disk.isSynced = persist { try Files.sync(file, path) }
  }

  /// Tries until it can be done. False when the journal was closed over it.
  private func persist(_ body: () throws -> Void) -> Bool {
    var wasSaid = false
    while true {
      do {
        try body()
        if wasSaid { logger.notice("the journal can be written again") }
        return true
      } catch {
        if !wasSaid {
          logger.error(
            "the journal \(path) cannot be written (\(error)); tried again every second until it can")
          wasSaid = true
        }
        if mailbox.withLock({ $0.isClosing }) { return false }
        Pause.second()
      }
    }
  }

  /// Writes what is alive to a new file and puts it in the old one's place. On any trouble the old one stays.
  private func compact(_ disk: inout Disk) {
    let fresh = FilePath(path.string + ".new")
    var bytes = JournalFormat.magic
    for record in disk.state.records { JournalFormat.append(record, to: &bytes) }
    do {
      let file = try SystemPackage.FileDescriptor.open(
        fresh, .readWrite, options: [.create, .truncate], permissions: [.ownerReadWrite])
      do {
        Files.closeOnExec(file)
        try file.writeAll(toAbsoluteOffset: 0, bytes)
        try Files.sync(file, fresh)
        try Files.rename(fresh, to: path)
      } catch {
        try? file.close()
        Files.removeFile(fresh)
        throw error
      }
      // From here on the new file is the journal, whatever else happens.
      try? disk.file.close()
      disk.file = file
      disk.length = Int64(bytes.count)
      disk.isSynced = true
      try Files.syncFolder(path.removingLastComponent())
    } catch {
      logger.warning("the journal could not be compacted: \(error)")
    }
  }
}
