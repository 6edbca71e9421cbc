import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// One server for one data directory. The system lets go of the lock when the process ends, however it ends.
struct DataLock {
  private let file: FileDescriptor

  init(_ directory: FilePath) throws {
    let path = directory.appending("lock")
    file = try FileDescriptor.open(
      path, .readWrite, options: [.create, .closeOnExec], permissions: .ownerReadWrite)
    guard flock(file.rawValue, LOCK_EX | LOCK_NB) == 0 else {
      try? file.close()
      throw Busy(directory: directory)
    }
  }

  func release() { try? file.close() }

  struct Busy: Error, CustomStringConvertible {
    var directory: FilePath
    var description: String { "another server runs on \(directory); stop it, or give another --data-dir" }
  }
}
