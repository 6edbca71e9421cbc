package import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The few file operations the agent needs, as plain system calls that say which path was at fault.
package enum Files {
  /// A system call that failed.
  package struct Problem: Error, Sendable, CustomStringConvertible {
    package var operation: String
    package var path: String
    package var code: Errno
    package var description: String { "cannot \(operation) \(path): \(code)" }
    package var isDiskFull: Bool { code == .noSpace || code == .diskQuotaExceeded }
  }

  private static func check(_ result: Int32, _ operation: String, _ path: FilePath) throws(Problem) {
    if result != 0 { throw Problem(operation: operation, path: path.string, code: Errno(rawValue: errno)) }
  }

  /// Makes one folder; one that is there already is fine.
  package static func makeFolder(_ path: FilePath, mode: UInt32 = 0o755) throws(Problem) {
    if path.withPlatformString({ mkdir($0, mode) }) != 0, errno != EEXIST {
      throw Problem(operation: "make the folder", path: path.string, code: Errno(rawValue: errno))
    }
  }

  /// Makes a folder and those above it that are missing.
  package static func makeFolders(_ path: FilePath, mode: UInt32 = 0o755) throws(Problem) {
    if exists(path) { return }
    let parent = path.removingLastComponent()
    if !parent.isEmpty, parent != path { try makeFolders(parent) }
    try makeFolder(path, mode: mode)
  }

  package static func exists(_ path: FilePath) -> Bool {
    path.withPlatformString { access($0, F_OK) } == 0
  }

  package static func rename(_ from: FilePath, to: FilePath) throws(Problem) {
    let result = from.withPlatformString { a in
      to.withPlatformString { b in
        #if canImport(Glibc)
          Glibc.rename(a, b)
        #elseif canImport(Musl)
          Musl.rename(a, b)
        #else
          Darwin.rename(a, b)
        #endif
      }
    }
    try check(result, "rename", from)
  }

  package static func changeMode(_ path: FilePath, _ mode: UInt32) throws(Problem) {
    try check(path.withPlatformString { chmod($0, mode) }, "change the mode of", path)
  }

  /// Removes an empty folder. False when there is something in it, or it could not be removed.
  package static func removeEmptyFolder(_ path: FilePath) -> Bool {
    path.withPlatformString { rmdir($0) } == 0 || errno == ENOENT
  }

  package static func removeFile(_ path: FilePath) {
    _ = path.withPlatformString { unlink($0) }
  }

  /// Names in a folder, without `.` and `..`; empty where it cannot be read.
  package static func names(in folder: FilePath) -> [String] {
    guard let stream = folder.withPlatformString({ opendir($0) }) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// Whether a folder has the mode and owner it gets when this process makes it, and holds just these.
  package static func isUntouched(_ folder: FilePath, holding names: Set<String>) -> Bool {
    var status = stat()
    guard folder.withPlatformString({ lstat($0, &status) }) == 0, status.st_mode == S_IFDIR | 0o755 & ~mask,
      status.st_uid == geteuid(), status.st_gid == getegid()
    else { return false }
    return Set(Self.names(in: folder)) == names
  }

  /// The process's file mode mask, which can only be read by setting it.
  private static let mask: mode_t = {
    let mask = umask(0o022)
    umask(mask)
    return mask
  }()

  package enum Kind: Sendable { case folder, file, link, other }

  /// What stands at the path itself; a link is not followed. Nil when there is nothing.
  package static func kind(_ path: FilePath) -> Kind? {
    var status = stat()
    guard path.withPlatformString({ lstat($0, &status) }) == 0 else { return nil }
    return switch status.st_mode & S_IFMT {
    case S_IFDIR: .folder
    case S_IFREG: .file
    case S_IFLNK: .link
    default: .other
    }
  }

  /// Removes everything at the path, without following links. What cannot be removed is left.
  package static func removeTree(_ path: FilePath) {
    if kind(path) == .folder {
      // A command may have taken the right to look into its own folders; the owner gives it back.
      if path.withPlatformString({ access($0, R_OK | W_OK | X_OK) }) != 0 { try? changeMode(path, 0o700) }
      for name in names(in: path) { removeTree(path.appending(name)) }
      _ = removeEmptyFolder(path)
    } else {
      removeFile(path)
    }
  }

  /// Bytes of all regular files below the path.
  package static func treeBytes(_ path: FilePath) -> Int64 {
    var status = stat()
    guard path.withPlatformString({ lstat($0, &status) }) == 0 else { return 0 }
    if status.st_mode & S_IFMT == S_IFDIR {
      return names(in: path).reduce(0) { $0 + treeBytes(path.appending($1)) }
    }
    return Int64(status.st_size)
  }

  /// Shows `source`, a file or a folder with all that is in it, a second time at `target` by hard links; across
  /// file systems by copies. Folders that are there already are merged into.
  /// - Throws: a problem with `.fileExists` where two files would have one name.
  package static func linkTree(_ source: FilePath, at target: FilePath) throws(Problem) {
    switch kind(source) {
    case .folder:
      if kind(target) != .folder { try makeFolderStrictly(target) }
      for name in names(in: source) {
        try linkTree(source.appending(name), at: target.appending(name))
      }
    case nil:
      throw Problem(operation: "find", path: source.string, code: .noSuchFileOrDirectory)
    default:
      let result = source.withPlatformString { a in target.withPlatformString { b in link(a, b) } }
      if result == 0 { return }
      let code = Errno(rawValue: errno)
      guard code == .improperLink || code == .tooManyLinks || code == .notPermitted else {
        throw Problem(operation: "link", path: target.string, code: code)
      }
      try copyFile(source, to: target)
    }
  }

  /// Moves what is in `source` into `target`; folders that are there already are merged into.
  /// - Throws: a problem with `.fileExists` where two files would have one name.
  package static func mergeTree(_ source: FilePath, into target: FilePath) throws(Problem) {
    for name in names(in: source) {
      let from = source.appending(name)
      let to = target.appending(name)
      switch (kind(from), kind(to)) {
      case (_, nil): try rename(from, to: to)
      case (.folder, .folder): try mergeTree(from, into: to)
      default: throw Problem(operation: "place", path: to.lastComponent?.string ?? name, code: .fileExists)
      }
    }
    _ = removeEmptyFolder(source)
  }

  private static func makeFolderStrictly(_ path: FilePath) throws(Problem) {
    try check(path.withPlatformString { mkdir($0, 0o755) }, "make the folder", path)
  }

  private static func copyFile(_ source: FilePath, to target: FilePath) throws(Problem) {
    var status = stat()
    try check(source.withPlatformString { lstat($0, &status) }, "look at", source)
    if status.st_mode & S_IFMT == S_IFLNK {
      var buffer = [CChar](repeating: 0, count: 4096)
      let count = source.withPlatformString { readlink($0, &buffer, buffer.count - 1) }
      try check(count < 0 ? -1 : 0, "read the link", source)
      try check(target.withPlatformString { symlink(buffer, $0) }, "make the link", target)
      return
    }
    do {
      let input = try FileDescriptor.open(source, .readOnly)
      defer { try? input.close() }
      let output = try FileDescriptor.open(
        target, .writeOnly, options: [.create, .exclusiveCreate],
        permissions: FilePermissions(rawValue: CModeT(status.st_mode & 0o777)))
      defer { try? output.close() }
      var buffer = [UInt8](repeating: 0, count: 1 << 18)
      while true {
        let count = try buffer.withUnsafeMutableBytes { try input.read(into: $0) }
        if count == 0 { break }
        _ = try output.writeAll(buffer[..<count])
      }
    } catch {
      throw Problem(operation: "copy to", path: target.string, code: error as? Errno ?? .ioError)
    }
  }

  /// What changes when a file is written to.
  package struct Stamp: Sendable, Hashable {
    package var bytes: Int64
    /// Nanoseconds since 1970.
    package var modified: Int64
  }

  /// Nil where there is no regular file; a link is not followed.
  package static func stamp(_ path: FilePath) -> Stamp? {
    var status = stat()
    guard path.withPlatformString({ lstat($0, &status) }) == 0, status.st_mode & S_IFMT == S_IFREG else {
      return nil
    }
    #if canImport(Darwin)
      let time = status.st_mtimespec
    #else
      let time = status.st_mtim
    #endif
    return Stamp(
      bytes: Int64(status.st_size), modified: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  /// The path with every link in it followed; nil where there is nothing.
  package static func resolved(_ path: FilePath) -> FilePath? {
    guard let found = path.withPlatformString({ realpath($0, nil) }) else { return nil }
    defer { free(found) }
    return FilePath(platformString: found)
  }

  /// Takes the right to write from every file below the path, so that what is shared stays what it is.
  package static func makeReadOnly(_ path: FilePath) {
    var status = stat()
    guard path.withPlatformString({ lstat($0, &status) }) == 0 else { return }
    switch status.st_mode & S_IFMT {
    case S_IFDIR: for name in names(in: path) { makeReadOnly(path.appending(name)) }
    case S_IFREG: try? changeMode(path, UInt32(status.st_mode) & 0o555 | 0o444)
    default: break
    }
  }

  /// All of a small file, or nil where there is none.
  package static func read(_ path: FilePath) -> [UInt8]? {
    guard let file = try? FileDescriptor.open(path, .readOnly) else { return nil }
    defer { try? file.close() }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while let count = try? buffer.withUnsafeMutableBytes({ try file.read(into: $0) }), count > 0 {
      bytes += buffer[..<count]
    }
    return bytes
  }

  /// The text of a small file without white space at its ends, or nil where there is none.
  package static func text(_ path: FilePath) -> String? {
    guard let bytes = read(path) else { return nil }
    var text = Substring(decoding: bytes, as: UTF8.self)
    while text.last?.isWhitespace == true { text.removeLast() }
    while text.first?.isWhitespace == true { text.removeFirst() }
    return String(text)
  }

  /// Replaces a file as a whole: after a crash it is the old one or the new one.
  package static func replace(_ path: FilePath, with text: String, mode: UInt32 = 0o600) throws(Problem) {
    let temporary = FilePath(path.string + ".new")
    do {
      let file = try FileDescriptor.open(
        temporary, .writeOnly, options: [.create, .truncate],
        permissions: FilePermissions(rawValue: CModeT(mode)))
      defer { try? file.close() }
      _ = try file.writeAll(Array(text.utf8))
      try check(fsync(file.rawValue), "write", temporary)
    } catch {
      throw error as? Problem
        ?? Problem(operation: "write", path: temporary.string, code: error as? Errno ?? .ioError)
    }
    try rename(temporary, to: path)
    try syncFolder(path.removingLastComponent())
  }

  /// Makes the names in a folder durable.
  package static func syncFolder(_ path: FilePath) throws(Problem) {
    let descriptor = path.withPlatformString { open($0, O_RDONLY) }
    try check(descriptor < 0 ? -1 : 0, "open", path)
    defer { close(descriptor) }
    try check(fsync(descriptor), "sync", path)
  }

  /// Makes the bytes of an open file durable.
  package static func sync(_ file: FileDescriptor, _ path: FilePath) throws(Problem) {
    #if canImport(Darwin)
      try check(fsync(file.rawValue), "sync", path)
    #else
      try check(fdatasync(file.rawValue), "sync", path)
    #endif
  }

  package static func truncate(_ file: FileDescriptor, to length: Int64, _ path: FilePath) throws(Problem) {
    try check(ftruncate(file.rawValue, off_t(length)), "shorten", path)
  }

  /// Takes the file's lock for as long as it is open in this process. False when another process has it.
  package static func lock(_ file: FileDescriptor) -> Bool {
    flock(file.rawValue, LOCK_EX | LOCK_NB) == 0
  }

  /// The file is not handed on to programs that this process starts.
  package static func closeOnExec(_ file: FileDescriptor) {
    _ = fcntl(file.rawValue, F_SETFD, FD_CLOEXEC)
  }

  /// Room on the file system that holds the path, in bytes.
  package struct Room: Sendable, Hashable {
    package var total: Int64
    /// For those who are not root, as the file system's own reserve is nobody's to fill.
    package var free: Int64
    package var used: Int64
  }

  package static func room(at path: FilePath) -> Room? {
    var status = statvfs()
    guard path.withPlatformString({ statvfs($0, &status) }) == 0 else { return nil }
    let unit = Int64(status.f_frsize)
    return Room(
      total: Int64(status.f_blocks) * unit, free: Int64(status.f_bavail) * unit,
      used: (Int64(status.f_blocks) - Int64(status.f_bfree)) * unit)
  }
}

#if canImport(Darwin)
  package typealias CModeT = UInt16
#else
  package typealias CModeT = UInt32
#endif
