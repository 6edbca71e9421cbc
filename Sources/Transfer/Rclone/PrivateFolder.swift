import FoundationEssentials
import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The folder of one rclone: its socket, pid and configuration, for this user alone.
///
/// Its name says which process it belongs to, so that those left by a process that is gone can be swept, and the
/// rclone in them ended, while several processes may share the folder above.
enum PrivateFolder {
  /// A unix socket's path is at most 107 bytes long.
  private static let longest = 60

  static func make(below directory: FilePath) throws(TransferFailure) -> FilePath {
    let base = directory.string.utf8.count <= longest ? directory : FilePath("/tmp/scitq-rclone-\(getuid())")
    try createFolder(base, mode: 0o700)
    var status = stat()
    guard lstat(base.string, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == getuid()
    else {
      throw TransferFailure(.disk, "\(base): the folder for rclone belongs to somebody else")
    }
    sweep(base)
    let own = getpid()
    let folder = base.appending("rc-\(own)-\(startTime(of: own))-\(UInt32.random(in: 0 ... .max))")
    guard mkdir(folder.string, 0o700) == 0 else {
      throw TransferFailure(
        .disk, "\(folder): the folder cannot be made: \(String(cString: strerror(errno)))")
    }
    return folder
  }

  static func remove(_ folder: FilePath) {
    try? FileManager.default.removeItem(atPath: folder.string)
  }

  /// Ends what processes that are gone have left behind.
  private static func sweep(_ base: FilePath) {
    for name in (try? FileManager.default.contentsOfDirectory(atPath: base.string)) ?? [] {
      let parts = name.split(separator: "-")
      guard parts.count == 4, parts[0] == "rc", let owner = pid_t(parts[1]), let start = UInt64(parts[2]),
        startTime(of: owner) != start
      else { continue }
      let folder = base.appending(name)
      if let text = try? String(contentsOfFile: folder.appending("pid").string, encoding: .utf8),
        let pid = pid_t(text.filter(\.isNumber)), pid > 1, isRclone(pid, of: folder)
      {
        kill(pid, SIGKILL)
      }
      remove(folder)
    }
  }

  private static func isRclone(_ pid: pid_t, of folder: FilePath) -> Bool {
    guard let bytes = try? Data(contentsOf: URL(filePath: "/proc/\(pid)/cmdline")) else { return false }
    let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    return words.contains("rcd") && words.contains("unix://" + folder.appending("s").string)
  }

  /// In ticks since the machine started; 0 where there is no such process. With the pid it names one process.
  private static func startTime(of pid: pid_t) -> UInt64 {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
      let end = text.lastIndex(of: ")")
    else { return 0 }
    let fields = text[end...].split(separator: " ")
    return fields.count > 20 ? UInt64(fields[20]) ?? 0 : 0
  }
}
