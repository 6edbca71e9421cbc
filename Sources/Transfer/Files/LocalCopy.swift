import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Copies files within this machine.
enum LocalCopy {
  /// Copies one file to `target`, whose folder exists. It has a temporary name until it is whole. The file system
  /// shares the bytes where it can. Mode and time come along. Throws `.checksum` where the source changed meanwhile.
  static func copy(
    _ source: FilePath, to target: FilePath, _ interruption: Interruption, replacing: Bool = true
  ) throws(TransferFailure) {
    let name = target.lastComponent?.string ?? "file"
    let temporary = target.removingLastComponent()
      .appending(".\(name.prefix(100)).\(UInt32.random(in: 0 ... .max)).partial")
    let input = open(source.string, O_RDONLY | O_CLOEXEC)
    guard input >= 0 else { throw systemFailure(source.string) }
    defer { close(input) }
    var before = stat()
    guard fstat(input, &before) == 0 else { throw systemFailure(source.string) }
    guard before.st_mode & S_IFMT == S_IFREG else {
      throw TransferFailure(.input, "\(source): it is not a file")
    }
    let output = open(temporary.string, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard output >= 0 else { throw systemFailure(target.string) }
    do throws(TransferFailure) {
      defer { close(output) }
      let copied = try copyBytes(from: input, to: output, source: source, target: target, interruption)
      var after = stat()
      guard fstat(input, &after) == 0, copied == Int64(before.st_size), after.st_size == before.st_size,
        after.modified == before.modified
      else {
        throw TransferFailure(.checksum, "\(source): the file changed while it was copied", isTransient: true)
      }
      fchmod(output, before.st_mode & 0o777)
      #if os(Linux)
        let times = [before.st_atim, before.st_mtim]
      #else
        let times = [before.st_atimespec, before.st_mtimespec]
      #endif
      futimens(output, times)
    } catch {
      unlink(temporary.string)
      throw error
    }
    do throws(TransferFailure) {
      try moveIntoPlace(temporary, target, replacing: replacing)
    } catch {
      unlink(temporary.string)
      throw error
    }
  }

  private static func copyBytes(
    from input: Int32, to output: Int32, source: FilePath, target: FilePath, _ interruption: Interruption
  ) throws(TransferFailure) -> Int64 {
    #if os(Linux)
      // The file system makes the copy share the bytes, where it knows how.
      let shareBytes: UInt = 0x4004_9409  // FICLONE
      if ioctl(output, shareBytes, input) == 0 {
        var status = stat()
        guard fstat(output, &status) == 0 else { throw systemFailure(target.string) }
        return Int64(status.st_size)
      }
    #endif
    var total: Int64 = 0
    let size = 1 << 20
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    defer { buffer.deallocate() }
    while true {
      try interruption.check()
      let count = read(input, buffer, size)
      if count == 0 { return total }
      guard count > 0 else {
        if errno == EINTR { continue }
        throw systemFailure(source.string)
      }
      try writeAll(UnsafeRawBufferPointer(start: buffer, count: count), to: output, named: target.string)
      total += Int64(count)
    }
  }
}

/// Writes all of it, however often that takes.
func writeAll(_ bytes: UnsafeRawBufferPointer, to file: Int32, named name: String) throws(TransferFailure) {
  var rest = bytes
  while !rest.isEmpty {
    let count = write(file, rest.baseAddress, rest.count)
    if count > 0 {
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    } else if errno != EINTR {
      throw systemFailure(name)
    }
  }
}
