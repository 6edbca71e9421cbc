import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Counts the descriptors that the logs hold open, so that they stay bounded.
final class DescriptorBudget: Sendable {
  private let count = Atomic<Int>(0)

  var open: Int { count.load(ordering: .relaxed) }
  func opened() { count.add(1, ordering: .relaxed) }
  func closed() { count.subtract(1, ordering: .relaxed) }
}

/// An error number of the system, with the words for it.
struct SystemError: Error, Equatable, CustomStringConvertible {
  var number: Int32

  static var last: SystemError { SystemError(number: errno) }

  /// The process lacks something for the moment (descriptors, memory); the disk is not at fault.
  var isShortage: Bool { [EMFILE, ENFILE, ENOMEM, EAGAIN].contains(number) }
  var isDiskFull: Bool { [ENOSPC, EDQUOT].contains(number) }
  var isMissing: Bool { number == ENOENT }

  var description: String {
    if isDiskFull { return "disk full" }
    return String(cString: strerror(number)).lowercased()
  }
}

/// Blocking calls on one file. Call on a thread that may wait.
struct LogFile {
  let descriptor: Int32
  private let budget: DescriptorBudget?

  enum Mode {
    case read, write, create, truncate, appending

    var flags: Int32 {
      switch self {
      case .read: O_RDONLY
      case .write: O_RDWR
      case .create: O_RDWR | O_CREAT
      case .truncate: O_RDWR | O_CREAT | O_TRUNC
      case .appending: O_WRONLY | O_CREAT | O_APPEND
      }
    }
  }

  init(_ path: String, _ mode: Mode, budget: DescriptorBudget? = nil) throws(SystemError) {
    var result: Int32
    repeat { result = open(path, mode.flags | O_CLOEXEC, 0o640) } while result < 0 && errno == EINTR
    guard result >= 0 else { throw .last }
    descriptor = result
    self.budget = budget
    budget?.opened()
  }

  func close() {
    #if canImport(Glibc)
      _ = Glibc.close(descriptor)
    #elseif canImport(Musl)
      _ = Musl.close(descriptor)
    #else
      _ = Darwin.close(descriptor)
    #endif
    budget?.closed()
  }

  func size() throws(SystemError) -> Int64 {
    let end = lseek(descriptor, 0, SEEK_END)
    guard end >= 0 else { throw .last }
    return Int64(end)
  }

  /// How many of the bytes were written, and what stopped it, if something did.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) -> (written: Int, error: SystemError?) {
    var done = 0
    while done < bytes.count {
      let result = pwrite(
        descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
      if result > 0 {
        done += result
      } else if result == 0 {
        return (done, SystemError(number: ENOSPC))
      } else if errno != EINTR {
        return (done, .last)
      }
    }
    return (done, nil)
  }

  func writeAll(_ bytes: [UInt8], at offset: Int64) throws(SystemError) {
    let (_, error) = bytes.withUnsafeBytes { write($0, at: offset) }
    if let error { throw error }
  }

  /// As many bytes as there are, up to `count`.
  func read(_ count: Int, at offset: Int64) throws(SystemError) -> [UInt8] {
    guard count > 0 else { return [] }
    var failure: SystemError?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      while filled < count {
        let result = pread(
          descriptor, buffer.baseAddress! + filled, count - filled, off_t(offset) + off_t(filled))
        if result > 0 {
          filled += result
        } else if result == 0 {
          return
        } else if errno != EINTR {
          failure = .last
          return
        }
      }
    }
    if let failure { throw failure }
    return bytes
  }

  func setSize(_ size: Int64) { _ = ftruncate(descriptor, off_t(size)) }

  /// Bytes, and the length, are on disk when it returns.
  func synchronize() throws(SystemError) {
    #if canImport(Darwin)
      guard fcntl(descriptor, F_FULLFSYNC) >= 0 || fsync(descriptor) == 0 else { throw .last }
    #else
      guard fdatasync(descriptor) == 0 else { throw .last }
    #endif
  }

  /// Gives the blocks of a range back to the file system; the length stays. False where the file system cannot.
  func discard(_ range: Range<Int64>) -> Bool {
    let length = range.upperBound - range.lowerBound
    #if os(Linux)
      // FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE
      return LinuxCalls.fallocate?(descriptor, 2 | 1, range.lowerBound, length) == 0
    #else
      var hole = fpunchhole_t(
        fp_flags: 0, reserved: 0, fp_offset: off_t(range.lowerBound), fp_length: off_t(length))
      return fcntl(descriptor, F_PUNCHHOLE, &hole) == 0
    #endif
  }

  /// Puts what a folder lists on disk: files made, renamed or removed in it.
  static func synchronizeFolder(_ path: String) throws(SystemError) {
    let folder = open(path, O_RDONLY | O_CLOEXEC)
    guard folder >= 0 else { throw .last }
    let file = LogFile(adopting: folder)
    defer { file.close() }
    guard fsync(folder) == 0 else { throw .last }
  }

  /// Puts everything of the file system that holds `path` on disk. False where the system has no such call.
  static func synchronizeFileSystem(holding path: String) throws(SystemError) -> Bool {
    #if os(Linux)
      let folder = open(path, O_RDONLY | O_CLOEXEC)
      guard folder >= 0 else { throw .last }
      let file = LogFile(adopting: folder)
      defer { file.close() }
      guard let syncfs = LinuxCalls.syncfs else { return false }
      guard syncfs(folder) == 0 else { throw .last }
      return true
    #else
      return false
    #endif
  }

  /// Makes a folder and those above it.
  static func makeFolder(_ path: String) throws(SystemError) {
    if mkdir(path, 0o750) == 0 || errno == EEXIST { return }
    guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else { throw .last }
    try makeFolder(String(path[..<slash]))
    guard mkdir(path, 0o750) == 0 || errno == EEXIST else { throw .last }
  }

  static func remove(_ path: String) { _ = unlink(path) }

  static func move(_ from: String, to path: String) throws(SystemError) {
    guard rename(from, path) == 0 else { throw .last }
  }

  private init(adopting descriptor: Int32) {
    self.descriptor = descriptor
    budget = nil
  }
}

#if os(Linux)
  /// Calls of the C library that its headers show to programs in C alone; nil where the library lacks them.
  private enum LinuxCalls {
    static let syncfs = dlsym(nil, "syncfs").map {
      unsafeBitCast($0, to: (@convention(c) (Int32) -> Int32).self)
    }
    static let fallocate = dlsym(nil, "fallocate").map {
      unsafeBitCast($0, to: (@convention(c) (Int32, Int32, Int64, Int64) -> Int32).self)
    }
  }
#endif
