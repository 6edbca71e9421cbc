import CSubreaper
import Glibc
import ScitqProtocol
package import SystemPackage

/// The process that runs bare tasks of one store, so that they outlive the agent.
///
/// It is one thread around `poll`: it starts processes, keeps what they print until the server has it, keeps how
/// they ended until they are removed, and tells all this to whatever engine is connected to its socket in the store.
/// It ends by itself when it holds nothing and no engine has been connected for 30 seconds.
package enum Supervisor {
  static let socketName = "supervisor.sock"
  static let lockName = "supervisor.lock"
  static let spillFolder = "supervisor.spill"
  /// In the environment of everything it runs, with the store's path: what a supervisor that was killed left
  /// running is found by it.
  static let marker = "SCITQ_SUPERVISED_BY"

  /// Runs until there is nothing left to do. Another supervisor of the same store makes this one end at once.
  package static func main(store: FilePath) -> Never {
    guard chdir(store.string) == 0 else {
      complain("cannot enter the store \(store.string): \(String(cString: strerror(errno)))")
      Glibc.exit(1)
    }
    umask(0o077)
    closeInherited()
    guard let lock = takeLock() else { Glibc.exit(0) }
    let here = String(decoding: resolved(), as: UTF8.self)
    killOrphans(of: here)
    // What slips out of an attempt's group becomes this process's child, and is found.
    _ = become_subreaper()
    mkdir(spillFolder, 0o700)
    let listener = listen()
    guard listener >= 0 else {
      complain("cannot listen in \(store.string): \(String(cString: strerror(errno)))")
      Glibc.exit(1)
    }
    var loop = SupervisorLoop(listener: listener, store: here)
    loop.run()
    unlink(socketName)
    close(lock)
    Glibc.exit(0)
  }

  /// Whatever the agent had open is none of the supervisor's, and would stay open with it.
  private static func closeInherited() {
    guard let folder = opendir("/proc/self/fd") else { return }
    var inherited: [Int32] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if let fd = Int32(name), fd > 2 { inherited.append(fd) }
    }
    closedir(folder)
    for fd in inherited { close(fd) }
  }

  /// Waits a little for a predecessor that is about to end.
  private static func takeLock() -> Int32? {
    let fd = open(lockName, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard fd >= 0 else { return nil }
    for _ in 0..<20 {
      if flock(fd, LOCK_EX | LOCK_NB) == 0 { return fd }
      usleep(50_000)
    }
    return nil
  }

  private static func resolved() -> [UInt8] {
    guard let path = realpath(".", nil) else { return [] }
    defer { free(path) }
    return Array(UnsafeRawBufferPointer(start: path, count: strlen(path)))
  }

  /// The path is relative, so that a store of any depth fits into a socket's address.
  private static func listen() -> Int32 {
    unlink(socketName)
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    guard fd >= 0 else { return -1 }
    prepare(fd)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: socketName.utf8) }
    // umask keeps it to its owner from the moment it exists.
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard bound == 0, Glibc.listen(fd, 16) == 0 else { return -1 }
    return fd
  }

  /// What an earlier supervisor of this store ran is nobody's any more: its output and its end are lost, so its
  /// attempts count as lost, and must not go on beside those that replace them.
  private static func killOrphans(of store: String) {
    let wanted = "\(marker)=\(store)"
    guard let folder = opendir("/proc") else { return }
    defer { closedir(folder) }
    let own = getpid()
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard let pid = pid_t(name), pid != own else { continue }
      if environment(of: pid).contains(wanted) { kill(pid, SIGKILL) }
    }
  }

  /// What a process was started with; nothing where that cannot be read.
  static func environment(of pid: pid_t) -> Set<String> {
    Set(contents(of: "/proc/\(pid)/environ").split(separator: 0).map { String(decoding: $0, as: UTF8.self) })
  }

  /// The children of this process, adopted ones among them. Nil where the kernel does not tell.
  static func children() -> [pid_t]? {
    let path = "/proc/self/task/\(getpid())/children"
    guard access(path, R_OK) == 0 else { return nil }
    return contents(of: path).split(separator: UInt8(ascii: " ")).compactMap {
      pid_t(String(decoding: $0, as: UTF8.self))
    }
  }

  /// All of a small file; nothing where it cannot be read.
  static func contents(of path: String) -> [UInt8] {
    let fd = open(path, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { return [] }
    defer { close(fd) }
    var bytes: [UInt8] = []
    withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 1) { buffer in
      while true {
        let n = read(fd, buffer.baseAddress, buffer.count)
        if n <= 0 { break }
        bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<n]))
      }
    }
    return bytes
  }

  /// Not for children, and never waited for. One thread does it all, so nothing is spawned in between.
  static func prepare(_ fd: Int32) {
    _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
    _ = fcntl(fd, F_SETFL, O_NONBLOCK)
  }

  static func complain(_ sentence: String) {
    let line = Array("scitq-worker supervise: \(sentence)\n".utf8)
    _ = line.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
  }
}
