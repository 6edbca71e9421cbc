import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Writes the entries of an archive below one folder, and never anywhere else.
///
/// Refused are absolute names, `..`, names that pass through a link, devices and pipes, links that leave the folder,
/// and more entries or bytes than the limits allow. Symbolic links are made last, so that nothing is written
/// through one. Owners are not restored, and neither are set-user-id bits; modes and times are.
struct Extraction {
  private let root: FilePath
  private let name: String
  private let maxEntries: Int
  private var entries = 0
  private var bytesLeft: Int64
  /// Folders that are known to be folders: nothing here ever replaces one.
  private var folders: Set<String> = [""]
  private var links: [String: String] = [:]
  private var file: (descriptor: Int32, path: String, modified: Int64, mode: mode_t)?

  init(root: FilePath, name: String, entries: Int, bytes: Int64) {
    self.root = root
    self.name = name
    maxEntries = entries
    bytesLeft = bytes
  }

  mutating func makeFolder(_ entry: String, mode: mode_t) throws(TransferFailure) {
    try count()
    let names = try safe(entry)
    try requireFolders(names)
    if !names.isEmpty { chmod(root.appending(names.joined(separator: "/")).string, (mode & 0o777) | 0o700) }
  }

  /// Begins a file, which `write` fills and `endFile` ends.
  mutating func beginFile(_ entry: String, mode: mode_t, modified: Int64) throws(TransferFailure) {
    try count()
    let path = try place(entry)
    let full = root.appending(path)
    let descriptor = open(full.string, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw systemFailure("\(name): \(entry)") }
    file = (descriptor, path, modified, mode)
  }

  mutating func write(_ bytes: UnsafeRawBufferPointer) throws(TransferFailure) {
    guard let file else { return }
    bytesLeft -= Int64(bytes.count)
    guard bytesLeft >= 0 else {
      throw TransferFailure(
        .input, "\(name) unpacks to more bytes than any archive of its size should; it is refused")
    }
    try writeAll(bytes, to: file.descriptor, named: "\(name): \(file.path)")
  }

  mutating func endFile() {
    guard let file else { return }
    fchmod(file.descriptor, (file.mode & 0o777) | 0o600)
    if file.modified > 0 {
      let time = timespec(tv_sec: Int(file.modified), tv_nsec: 0)
      futimens(file.descriptor, [time, time])
    }
    close(file.descriptor)
    self.file = nil
  }

  mutating func makeLink(_ entry: String, to target: String) throws(TransferFailure) {
    try count()
    guard !target.isEmpty, !target.hasPrefix("/"), !target.utf8.contains(0) else {
      throw refused(entry, "is a link to \(target.isEmpty ? "nothing" : target), out of the folder")
    }
    links[try place(entry)] = target
  }

  /// A second name for a file that the archive has had before.
  mutating func makeHardLink(_ entry: String, to target: String) throws(TransferFailure) {
    try count()
    let source = try safe(target)
    for end in source.indices.dropLast() where !folders.contains(source[...end].joined(separator: "/")) {
      throw refused(entry, "is a link to \(target), which the archive has not had before")
    }
    let from = root.appending(source.joined(separator: "/"))
    guard let status = fileStatus(from), status.st_mode & S_IFMT == S_IFREG else {
      throw refused(entry, "is a link to \(target), which the archive has not had before")
    }
    let to = root.appending(try place(entry))
    guard to == from || link(from.string, to.string) == 0 else { throw systemFailure("\(name): \(entry)") }
  }

  func refused(_ entry: String, _ why: String) -> TransferFailure {
    TransferFailure(.input, "\(name): the archive is refused, because its entry \(entry) \(why)")
  }

  func failure(_ what: String) -> TransferFailure { TransferFailure(.input, "\(name) \(what)") }

  /// Makes the symbolic links, and checks where each leads once all are there.
  mutating func finish() throws(TransferFailure) {
    endFile()
    for (path, target) in links {
      let full = root.appending(path)
      if let status = fileStatus(full) {
        guard status.st_mode & S_IFMT != S_IFDIR else {
          throw refused(path, "is a link where it has a folder too")
        }
        unlink(full.string)
      }
      guard symlink(target, full.string) == 0 else { throw systemFailure("\(name): \(path)") }
    }
    for (path, target) in links {
      guard staysInside(path, target) else {
        throw refused(path, "is a link to \(target), out of the folder")
      }
    }
    links = [:]
  }

  /// Closes what is open after a failure.
  mutating func abandon() {
    if let file { close(file.descriptor) }
    file = nil
  }

  // MARK: parts

  private mutating func count() throws(TransferFailure) {
    entries += 1
    guard entries <= maxEntries else {
      throw TransferFailure(.input, "\(name) has more than \(maxEntries) entries; it is refused")
    }
  }

  /// The names on the way to an entry.
  private func safe(_ entry: String) throws(TransferFailure) -> [String] {
    guard !entry.isEmpty, !entry.utf8.contains(0) else { throw refused("\"\(entry)\"", "has no proper name") }
    guard !entry.hasPrefix("/") else { throw refused(entry, "has an absolute name") }
    let names = entry.split(separator: "/").map(String.init).filter { $0 != "." }
    guard !names.contains("..") else { throw refused(entry, "leads out of the folder") }
    return names
  }

  /// A free place for an entry that is not a folder. As tar does it, a later entry replaces an earlier one.
  private mutating func place(_ entry: String) throws(TransferFailure) -> String {
    let names = try safe(entry)
    guard !names.isEmpty else { throw refused(entry, "has no name of its own") }
    try requireFolders(Array(names.dropLast()))
    let path = names.joined(separator: "/")
    guard !folders.contains(path) else { throw refused(entry, "has the name of one of its folders") }
    links[path] = nil
    if fileStatus(root.appending(path)) != nil { unlink(root.appending(path).string) }
    return path
  }

  private mutating func requireFolders(_ names: [String]) throws(TransferFailure) {
    let whole = names.joined(separator: "/")
    if folders.contains(whole) { return }
    for end in names.indices {
      let path = names[...end].joined(separator: "/")
      if folders.contains(path) { continue }
      guard links[path] == nil else {
        throw refused(whole, "passes through the link \(path)")
      }
      guard mkdir(root.appending(path).string, 0o755) == 0 else {
        if errno == EEXIST { throw refused(whole, "has a folder where there is a file") }
        throw systemFailure("\(name): \(path)")
      }
      folders.insert(path)
    }
  }

  /// Goes the way that the system would go, and sees whether it ever leaves.
  private func staysInside(_ path: String, _ target: String) -> Bool {
    var way = path.split(separator: "/").dropLast().map(String.init)
    var ahead = Array(target.split(separator: "/").map(String.init).reversed())
    var steps = 0
    while let next = ahead.popLast() {
      steps += 1
      if steps > 1000 { return false }
      if next == "." { continue }
      if next == ".." {
        if way.isEmpty { return false }
        way.removeLast()
        continue
      }
      let full = root.appending((way + [next]).joined(separator: "/"))
      if let status = fileStatus(full), status.st_mode & S_IFMT == S_IFLNK {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        guard readlink(full.string, &buffer, Int(PATH_MAX)) > 0,
          let leads = buffer.withUnsafeBufferPointer({ String(validatingCString: $0.baseAddress!) }),
          !leads.hasPrefix("/")
        else { return false }
        ahead += leads.split(separator: "/").map(String.init).reversed()
      } else {
        way.append(next)
      }
    }
    return true
  }
}
