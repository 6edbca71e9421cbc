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

/// What a URI stands for at this moment: the files it chooses, with their sizes.
struct Selection: Sendable {
  enum Kind: Sendable { case file, folder, pattern }

  /// One chosen file.
  struct Item: Sendable, Hashable {
    /// Relative to the selection's base.
    var path: String
    /// Where it arrives, relative to the destination folder.
    var arrival: String
    /// -1 where the source does not tell.
    var bytes: Int64
    var modified: String
    var hash: String
  }

  /// Where the items are.
  enum Base: Sendable {
    case local(LocalFolder)
    case store(Place)
    /// Exactly this link, which a server may give only as a whole.
    case link(String)
    /// Each item at a link of its own, by its path.
    case links([String: TransferURI])
  }

  var uri: TransferURI
  var kind: Kind
  var base: Base
  var items: [Item]
  /// For a pattern: rclone's rule for it below the base.
  var rule: String?

  var totalBytes: Int64 { items.reduce(0) { $0 + max($1.bytes, 0) } }

  /// Where an item is, for people and reports: without credentials.
  func uri(of item: Item) -> String {
    switch base {
    case .local(let folder): return folder.root.appending(item.path).string
    case .link: return uri.withoutActions.description
    case .links(let links): return (links[item.path] ?? uri.withoutActions).description
    case .store(let place): return Self.text(of: place.appending(item.path), like: uri)
    }
  }

  static func text(of place: Place, like uri: TransferURI) -> String {
    switch place.root {
    case .remote(let name, let isAbsolute): return "\(name)://\(isAbsolute ? "/" : "")\(place.path)"
    case .local: return "/" + place.path
    case .settings:
      let host = uri.path.prefix { $0 != "/" && $0 != "?" }
      let address = host.lastIndex(of: "@").map { host[host.index(after: $0)...] } ?? host
      return "\(uri.scheme)://\(address)/\(place.path)"
    }
  }

  /// Throws `.input` where two files would arrive under one name.
  func requireDistinctNames() throws(TransferFailure) {
    guard kind == .pattern else { return }
    var seen: [String: Item] = [:]
    for item in items {
      if let other = seen.updateValue(item, forKey: item.arrival) {
        throw TransferFailure(
          .input,
          "\(uri): \(uri(of: other)) and \(uri(of: item)) have one name; choose them apart, each with its own |mv:FOLDER"
        )
      }
    }
  }
}

/// Finds out what URIs stand for.
struct Selector: Sendable {
  let rclone: Rclone
  let archive: PublicArchive

  /// What is asked about each file beside its size; times only where a store has no hashes.
  private struct Marks: Sendable {
    var hashes: Bool
    var times: Bool
  }

  /// The files that the URI chooses now. Throws `.inputMissing` where there are none. `times` asks for times too
  /// where the store has no hashes.
  func select(_ uri: TransferURI, times: Bool = false) async throws(TransferFailure) -> Selection {
    let selection =
      if uri.isLocal {
        try await blocking { interruption throws(TransferFailure) in try Self.selectLocal(uri, interruption) }
      } else if uri.isRun {
        try await select(run: uri)
      } else {
        try await selectStored(
          uri, Marks(hashes: await rclone.daemon.checksums(uri.scheme) != .off, times: times))
      }
    try selection.requireDistinctNames()
    return selection
  }

  // MARK: this machine

  private static func selectLocal(
    _ uri: TransferURI, _ interruption: Interruption
  ) throws(TransferFailure) -> Selection {
    let path = absolute(uri.path)
    if uri.hasPattern { return try selectLocalPattern(uri, path, interruption) }
    guard let status = fileStatus(path, following: true) else {
      if errno != ENOENT && errno != ENOTDIR { throw systemFailure(uri.description) }
      throw TransferFailure(.inputMissing, "\(uri): there is no such file or folder")
    }
    if status.st_mode & S_IFMT == S_IFDIR {
      let folder = try LocalFolder.read(path, interruption)
      return Selection(uri: uri, kind: .folder, base: .local(folder), items: folder.files.map(item))
    }
    guard !uri.isFolder else {
      throw TransferFailure(.input, "\(uri): it is a file; write it without the / at its end")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw TransferFailure(.input, "\(uri): it is neither a file nor a folder")
    }
    let name = path.lastComponent?.string ?? ""
    let file = LocalFile(
      path: name, source: path, bytes: Int64(status.st_size), modified: status.modified, isLinked: false)
    let folder = LocalFolder(root: path.removingLastComponent(), files: [file])
    return Selection(uri: uri, kind: .file, base: .local(folder), items: [item(file)])
  }

  private static func selectLocalPattern(
    _ uri: TransferURI, _ path: FilePath, _ interruption: Interruption
  ) throws(TransferFailure) -> Selection {
    let (base, names) = patternParts(path.string)
    var found = [""]
    let root = FilePath("/" + base)
    for (index, name) in names.enumerated() {
      let isLast = index == names.count - 1
      var next: [String] = []
      for prefix in found {
        try interruption.check()
        let folder = prefix.isEmpty ? root : root.appending(prefix)
        let choices =
          name.contains("*") ? ((try? namesIn(folder)) ?? []).filter(Pattern(name).matches) : [name]
        for choice in choices {
          guard let status = fileStatus(folder.appending(choice), following: true) else { continue }
          let isFolder = status.st_mode & S_IFMT == S_IFDIR
          if isFolder != isLast && (isFolder || status.st_mode & S_IFMT == S_IFREG) {
            next.append(prefix.isEmpty ? choice : "\(prefix)/\(choice)")
          }
        }
      }
      found = next
    }
    guard !found.isEmpty else { throw nothingMatches(uri) }
    var folder = LocalFolder(root: root)
    for path in found {
      guard let status = fileStatus(root.appending(path), following: true) else { continue }
      folder.files.append(
        LocalFile(
          path: path, source: root.appending(path), bytes: Int64(status.st_size), modified: status.modified,
          isLinked: false))
    }
    let items = folder.files.map { file in
      var item = item(file)
      item.arrival = lastName(file.path)
      return item
    }
    return Selection(uri: uri, kind: .pattern, base: .local(folder), items: items)
  }

  private static func item(_ file: LocalFile) -> Selection.Item {
    .init(path: file.path, arrival: file.path, bytes: file.bytes, modified: String(file.modified), hash: "")
  }

  /// From the working directory where it is relative.
  static func absolute(_ path: String) -> FilePath {
    let given = FilePath(path)
    if given.isAbsolute { return given }
    return FilePath(FileManager.default.currentDirectoryPath).pushing(given)
  }

  // MARK: stores

  /// Where rclone finds what the URI names; for a pattern, what is before it does not matter here.
  func place(of uri: TransferURI) async throws(TransferFailure) -> Place {
    if uri.isLocal { return .local(Self.absolute(uri.path)) }
    guard uri.isWeb else {
      return Place(
        root: .remote(uri.scheme, isAbsolute: uri.path.hasPrefix("/")), path: Self.trimmed(uri.path))
    }
    let host = String(uri.path.prefix { $0 != "/" && $0 != "?" && $0 != "#" })
    let rest = uri.path.dropFirst(host.count).prefix { $0 != "?" && $0 != "#" }
    if uri.scheme.hasPrefix("http") {
      let path = Self.trimmed(Self.decoded(rest))
      return Place(root: .settings(["type": "http", "url": "\(uri.scheme)://\(host)/"]), path: path)
    }
    var settings = ["type": "ftp"]
    var address = host[...]
    var user = "anonymous"
    var password = "anonymous"
    if let at = host.lastIndex(of: "@") {
      let parts = host[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      user = Self.decoded(parts[0])
      password = parts.count > 1 ? Self.decoded(parts[1]) : ""
      address = host[host.index(after: at)...]
    }
    if let colon = address.lastIndex(of: ":"), let port = Int(address[address.index(after: colon)...]) {
      settings["port"] = String(port)
      address = address[..<colon]
    }
    settings["host"] = String(address)
    settings["user"] = user
    settings["pass"] = try await rclone.obscure(password)
    if uri.scheme == "ftps" { settings[settings["port"] == "990" ? "tls" : "explicit_tls"] = "true" }
    return Place(root: .settings(settings), path: Self.trimmed(String(rest)))
  }

  private func selectStored(_ uri: TransferURI, _ marks: Marks) async throws(TransferFailure) -> Selection {
    if uri.isAspera { return link(uri) }
    let isHTTP = uri.scheme == "http" || uri.scheme == "https"
    if isHTTP, uri.path.contains("?"), !uri.hasPattern, !uri.isFolder { return link(uri) }
    let place = try await place(of: uri)
    if uri.hasPattern { return try await selectPattern(uri, place, marks) }
    if !uri.isFolder {
      let found: StoreItem?
      do throws(TransferFailure) {
        found = try await rclone.stat(
          place, describedAs: uri.withoutActions.description, hashes: marks.hashes)
      } catch  where isHTTP && !error.isTransient && error.reason != .canceled {
        // A server may refuse to describe or list what it gives.
        return link(uri)
      }
      guard let found else {
        if isHTTP { return link(uri) }
        throw TransferFailure(.inputMissing, "\(uri.withoutActions): there is no such file or folder")
      }
      if !found.isFolder {
        let (folder, name) = place.split
        let item = Selection.Item(
          path: name, arrival: name, bytes: found.bytes, modified: found.modified, hash: found.hash)
        return Selection(uri: uri, kind: .file, base: .store(folder), items: [item])
      }
    }
    let name = uri.asFolder.withoutActions.description
    let items: [StoreItem]
    do throws(TransferFailure) {
      items = try await listing(place, name, recursive: true, marks)
    } catch  where error.reason == .inputMissing {
      throw TransferFailure(.inputMissing, "\(name): there is no such folder")
    }
    if items.isEmpty, try await !rclone.keepsEmptyFolders(place, describedAs: name) {
      throw TransferFailure(.inputMissing, "\(name): there is no such folder")
    }
    return Selection(
      uri: uri, kind: .folder, base: .store(place), items: items.filter { !$0.isFolder }.map(Self.item))
  }

  private func link(_ uri: TransferURI) -> Selection {
    let name = Self.decoded(uri.lastName)
    let item = Selection.Item(
      path: name, arrival: name.isEmpty ? "index.html" : Self.lastName(name), bytes: -1, modified: "",
      hash: "")
    let url = "\(uri.scheme)://\(uri.path)"
    return Selection(uri: uri, kind: .file, base: .link(url), items: [item])
  }

  private func selectPattern(
    _ uri: TransferURI, _ place: Place, _ marks: Marks
  ) async throws(TransferFailure) -> Selection {
    let (prefix, names) = Self.patternParts(place.path)
    let base = Place(root: place.root, path: prefix)
    let shown = uri.withoutActions.description
    var found: [StoreItem] = [.init(path: "", isFolder: true, bytes: -1, modified: "", hashes: [:])]
    for (index, name) in names.enumerated() {
      let isLast = index == names.count - 1
      guard name.contains("*") || isLast else {
        found = found.map { folder in
          var folder = folder
          folder.path = folder.path.isEmpty ? name : "\(folder.path)/\(name)"
          return folder
        }
        continue
      }
      let pattern = Pattern(name)
      let asked = isLast ? marks : Marks(hashes: false, times: false)
      found = try await bounded(found, width: 8) { folder throws(TransferFailure) in
        do throws(TransferFailure) {
          return try await listing(base.appending(folder.path), shown, recursive: false, asked)
            .filter { $0.isFolder != isLast && pattern.matches($0.name) }
            .map { item in
              var item = item
              if !folder.path.isEmpty { item.path = "\(folder.path)/\(item.path)" }
              return item
            }
        } catch  where error.reason == .inputMissing {
          return []
        }
      }.flatMap { $0 }
    }
    guard !found.isEmpty else { throw Self.nothingMatches(uri) }
    let items = found.sorted { $0.path < $1.path }.map { found in
      var item = Self.item(found)
      item.arrival = Self.lastName(found.path)
      return item
    }
    return Selection(
      uri: uri, kind: .pattern, base: .store(base), items: items,
      rule: Pattern.rule(names.joined(separator: "/")))
  }

  private func listing(
    _ place: Place, _ name: String, recursive: Bool, _ marks: Marks
  ) async throws(TransferFailure) -> [StoreItem] {
    let items = try await rclone.list(
      place, describedAs: name, recursive: recursive, hashes: marks.hashes, times: false)
    guard marks.times, items.contains(where: { !$0.isFolder && $0.hash.isEmpty }) else { return items }
    return try await rclone.list(
      place, describedAs: name, recursive: recursive, hashes: marks.hashes, times: true)
  }

  private static func item(_ found: StoreItem) -> Selection.Item {
    .init(
      path: found.path, arrival: found.path, bytes: found.bytes, modified: found.modified, hash: found.hash)
  }

  static func nothingMatches(_ uri: TransferURI) -> TransferFailure {
    TransferFailure(.inputMissing, "\(uri.withoutActions): no file matches this pattern")
  }

  /// The folders before the first `*`, and the names from there on.
  static func patternParts(_ path: String) -> (base: String, names: [String]) {
    let names = path.split(separator: "/").map(String.init)
    let first = names.firstIndex { $0.contains("*") } ?? max(names.count - 1, 0)
    return (names[..<first].joined(separator: "/"), Array(names[first...]))
  }

  static func lastName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  /// With `%20` and the like read; a text that these do not make UTF-8 is left as it is.
  static func decoded(_ text: some StringProtocol) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), rest.count >= 2,
        let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(validating: bytes, as: UTF8.self) ?? String(text)
  }

  static func trimmed(_ path: some StringProtocol) -> String {
    var path = path[...]
    while path.hasPrefix("/") { path = path.dropFirst() }
    while path.hasSuffix("/") { path = path.dropLast() }
    return String(path)
  }
}
