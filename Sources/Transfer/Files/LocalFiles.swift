import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A regular file of this machine, found below a folder.
struct LocalFile: Sendable, Hashable {
  /// Relative to the folder, as people see it.
  var path: String
  /// Where its bytes are: elsewhere than `path` says when a link led to it.
  var source: FilePath
  var bytes: Int64
  /// In nanoseconds since 1970.
  var modified: Int64
  var isLinked: Bool
}

/// What is below a folder of this machine.
struct LocalFolder: Sendable {
  /// With every link on the way resolved.
  var root: FilePath
  var files: [LocalFile] = []
  /// Folders without files.
  var emptyFolders: [String] = []
  /// What is not a file and was left out, with the reason.
  var skipped: [(path: String, why: String)] = []

  /// Reads everything below `folder`.
  ///
  /// A link is followed where it leads to something within `folder`; one that leads out, nowhere, or to a folder
  /// that it is itself within, and a link to a folder met within a linked folder, is left out. So are sockets,
  /// pipes and devices. What was left out is told in `skipped`.
  static func read(_ folder: FilePath, _ interruption: Interruption) throws(TransferFailure) -> LocalFolder {
    var result = LocalFolder(root: try realPath(folder))
    try result.descend(result.root, prefix: "", isLinked: false, interruption)
    return result
  }

  private mutating func descend(
    _ folder: FilePath, prefix: String, isLinked: Bool, _ interruption: Interruption
  ) throws(TransferFailure) {
    try interruption.check()
    let names = try namesIn(folder)
    if names.isEmpty && !prefix.isEmpty { emptyFolders.append(String(prefix.dropLast())) }
    for name in names {
      let path = prefix + name
      let full = folder.appending(name)
      guard let status = fileStatus(full) else { continue }
      switch status.st_mode & S_IFMT {
      case S_IFREG:
        files.append(
          LocalFile(
            path: path, source: full, bytes: Int64(status.st_size), modified: status.modified,
            isLinked: isLinked))
      case S_IFDIR:
        try descend(full, prefix: path + "/", isLinked: isLinked, interruption)
      case S_IFLNK:
        try follow(full, path: path, from: folder, isLinked: isLinked, interruption)
      default:
        skipped.append((path, "it is neither a file nor a folder"))
      }
    }
  }

  private mutating func follow(
    _ link: FilePath, path: String, from folder: FilePath, isLinked: Bool, _ interruption: Interruption
  ) throws(TransferFailure) {
    guard let target = try? realPath(link), let status = fileStatus(target) else {
      skipped.append((path, "the link leads nowhere"))
      return
    }
    guard target.starts(with: root) else {
      skipped.append((path, "the link leads out of the folder"))
      return
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG:
      files.append(
        LocalFile(
          path: path, source: target, bytes: Int64(status.st_size), modified: status.modified, isLinked: true)
      )
    case S_IFDIR where folder.starts(with: target):
      skipped.append((path, "the link leads to a folder that it is in"))
    case S_IFDIR where isLinked:
      skipped.append((path, "it is a link to a folder within a linked folder"))
    case S_IFDIR:
      try descend(target, prefix: path + "/", isLinked: true, interruption)
    default:
      skipped.append((path, "the link leads to neither a file nor a folder"))
    }
  }
}

extension stat {
  /// In nanoseconds since 1970.
  var modified: Int64 {
    #if os(Linux)
      Int64(st_mtim.tv_sec) * 1_000_000_000 + Int64(st_mtim.tv_nsec)
    #else
      Int64(st_mtimespec.tv_sec) * 1_000_000_000 + Int64(st_mtimespec.tv_nsec)
    #endif
  }
}

/// The status of what is there itself, or with `following` of what a link leads to; nil where nothing is.
func fileStatus(_ path: FilePath, following: Bool = false) -> stat? {
  var status = stat()
  let code = following ? stat(path.string, &status) : lstat(path.string, &status)
  return code == 0 ? status : nil
}

func isFolder(_ path: FilePath) -> Bool {
  fileStatus(path, following: true).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
}

/// Sorted. Throws where the folder cannot be read or a name is not UTF-8, which no store could keep.
func namesIn(_ folder: FilePath) throws(TransferFailure) -> [String] {
  guard let handle = opendir(folder.string) else { throw systemFailure(folder.string) }
  defer { closedir(handle) }
  var names: [String] = []
  while let entry = readdir(handle) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
      pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(validatingCString: $0) }
    }
    guard let name else {
      throw TransferFailure(.input, "\(folder): the name of a file in it is not UTF-8; rename it")
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names.sorted()
}

func realPath(_ path: FilePath) throws(TransferFailure) -> FilePath {
  guard let pointer = realpath(path.string, nil) else { throw systemFailure(path.string) }
  defer { free(pointer) }
  return FilePath(String(cString: pointer))
}

/// Makes a folder and those above it.
func createFolder(_ path: FilePath, mode: mode_t = 0o777) throws(TransferFailure) {
  if mkdir(path.string, mode) == 0 || errno == EEXIST {
    guard isFolder(path) else { throw TransferFailure(.input, "\(path): a file is where a folder should be") }
    return
  }
  guard errno == ENOENT else { throw systemFailure(path.string) }
  let above = path.removingLastComponent()
  guard above != path, !above.isEmpty else { throw systemFailure(path.string) }
  try createFolder(above, mode: mode)
  guard mkdir(path.string, mode) == 0 || errno == EEXIST else { throw systemFailure(path.string) }
}

/// Removes a folder and all that is in it, links themselves and not what they lead to. Best effort.
func removeTree(_ path: FilePath) {
  guard let status = fileStatus(path) else { return }
  guard status.st_mode & S_IFMT == S_IFDIR else {
    unlink(path.string)
    return
  }
  // An archive may have made folders that their owner cannot write to.
  chmod(path.string, 0o700)
  guard let handle = opendir(path.string) else { return }
  var names: [[CChar]] = []
  while let entry = readdir(handle) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
      pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
        Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1))
      }
    }
    if name != [46, 0] && name != [46, 46, 0] { names.append(name) }
  }
  closedir(handle)
  for name in names { removeTree(path.appending(FilePath(platformString: name).components)) }
  rmdir(path.string)
}

/// Gives the file its final name in one step. Throws `.input` where that name is taken, unless it may replace it.
func moveIntoPlace(_ from: FilePath, _ to: FilePath, replacing: Bool) throws(TransferFailure) {
  let isFolder = fileStatus(from).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
  if replacing || isFolder {
    // Onto a folder that is not empty, or from a folder onto a file, this fails by itself.
    if rename(from.string, to.string) == 0 { return }
  } else if link(from.string, to.string) == 0 {
    unlink(from.string)
    return
  } else if errno == EPERM || errno == ENOTSUP || errno == EMLINK {
    // A file system without hard links: nobody else writes to this folder, so looking first is enough.
    if fileStatus(to) == nil { if rename(from.string, to.string) == 0 { return } } else { errno = EEXIST }
  }
  if errno == EEXIST || errno == ENOTEMPTY || errno == EISDIR {
    throw TransferFailure(
      .input, "\(to): a file of this name is already there; give one of them its own folder with |mv:FOLDER")
  }
  throw systemFailure(to.string)
}

/// What the system said of the last call, classed.
func systemFailure(_ what: String, _ code: Int32 = errno) -> TransferFailure {
  let sentence = "\(what): \(String(cString: strerror(code)))"
  return switch code {
  case ENOSPC, EDQUOT, EROFS: TransferFailure(.disk, sentence)
  case EACCES, EPERM: TransferFailure(.denied, sentence)
  case ENOENT, ENOTDIR: TransferFailure(.inputMissing, sentence)
  case EIO, EAGAIN, EINTR, ESTALE: TransferFailure(.disk, sentence, isTransient: true)
  default: TransferFailure(.input, sentence)
  }
}
