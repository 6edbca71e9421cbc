import Glibc
import ScitqProtocol
import SystemPackage

/// The file that a shell runs.
enum Script {
  /// Writes the command to `folder/command`, whole or not at all: a shell that reads an older one is not disturbed.
  static func write(_ launch: Launch) throws(ExecutionFailure) {
    let folder = launch.folders.scripts
    let target = folder.appending(CommandLine.scriptName)
    let half = folder.appending(".\(CommandLine.scriptName).\(launch.attempt.assignment)")
    if mkdir(folder.string, 0o755) != 0, errno != EEXIST { throw failure("create folder", folder, errno) }
    let fd = open(half.string, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard fd >= 0 else { throw failure("create", half, errno) }
    var text = launch.command
    let failed = text.withUTF8 { bytes -> Int32 in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let n = Glibc.write(fd, rest.baseAddress, rest.count)
        if n < 0, errno != EINTR { return errno }
        if n > 0 { rest = UnsafeRawBufferPointer(rebasing: rest[n...]) }
      }
      return 0
    }
    close(fd)
    if failed != 0 { throw failure("write", half, failed) }
    if rename(half.string, target.string) != 0 { throw failure("rename to", target, errno) }
  }

  private static func failure(_ verb: String, _ path: FilePath, _ code: Int32) -> ExecutionFailure {
    ExecutionFailure(
      code == ENOSPC || code == EDQUOT ? .disk : .engine,
      "cannot \(verb) \(path.string) for the command's script: \(String(cString: strerror(code)))")
  }
}
