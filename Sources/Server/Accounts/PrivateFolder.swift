import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Small files that others must not read, written in one step.
enum PrivateFolder {
  /// Makes the folder and those above it, and takes all rights on it from others.
  static func make(_ path: FilePath) throws {
    do throws(SystemError) {
      try LogFile.makeFolder(path.string)
    } catch {
      throw AuthorityError("The folder \(path) cannot be made: \(error).")
    }
    guard chmod(path.string, 0o700) == 0 else {
      throw AuthorityError("The rights of the folder \(path) cannot be set: \(SystemError.last).")
    }
  }

  /// The text of a file, or nil where there is none.
  static func readIfPresent(_ path: FilePath) throws -> String? {
    do {
      let file = try FileDescriptor.open(path, .readOnly)
      return try file.closeAfter {
        // Keys and certificates; what is longer is something else.
        try String(unsafeUninitializedCapacity: 1 << 20) {
          let buffer = UnsafeMutableRawBufferPointer($0)
          var filled = 0
          while filled < buffer.count {
            let count = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if count == 0 { break }
            filled += count
          }
          return filled
        }
      }
    } catch Errno.noSuchFileOrDirectory {
      return nil
    } catch {
      throw AuthorityError("The file \(path) cannot be read: \(error).")
    }
  }

  /// Replaces a file in one step: who reads sees the old text or the new one, also after a cut of power.
  static func write(_ text: String, to path: FilePath, mode: FilePermissions) throws {
    let temporary = FilePath(path.string + ".tmp")
    do {
      _ = unlink(temporary.string)
      let file = try FileDescriptor.open(
        temporary, .writeOnly, options: [.create, .exclusiveCreate], permissions: mode)
      try file.closeAfter {
        try file.writeAll(Array(text.utf8))
        guard fsync(file.rawValue) == 0 else { throw SystemError.last }
      }
      try LogFile.move(temporary.string, to: path.string)
      try LogFile.synchronizeFolder(path.removingLastComponent().string)
    } catch {
      _ = unlink(temporary.string)
      throw AuthorityError("The file \(path) cannot be written: \(error).")
    }
  }
}

/// Addresses as certificates hold them.
enum IPAddress {
  /// The 4 or 16 bytes of an address, or nil where the text is none.
  static func bytes(_ text: String) -> [UInt8]? {
    var v4 = in_addr()
    if inet_pton(AF_INET, text, &v4) == 1 { return withUnsafeBytes(of: &v4) { Array($0) } }
    var v6 = in6_addr()
    if inet_pton(AF_INET6, text, &v6) == 1 { return withUnsafeBytes(of: &v6) { Array($0) } }
    return nil
  }
}
