import FoundationEssentials
import Logging
import NIOCore
import ScitqProtocol
import SystemPackage

/// A place that rclone can reach: a root it opens and keeps, and a path below that.
struct Place: Sendable, Hashable {
  enum Root: Sendable, Hashable {
    /// A remote of the configuration; `isAbsolute` where its paths start at the server's own root.
    case remote(String, isAbsolute: Bool)
    /// A backend by its settings, for what needs no configuration.
    case settings([String: String])
    case local
  }

  var root: Root
  /// Without a slash at either end.
  var path: String

  func appending(_ name: String) -> Place {
    if name.isEmpty { return self }
    return Place(root: root, path: path.isEmpty ? name : "\(path)/\(name)")
  }

  /// What is above the last name, and that name.
  var split: (folder: Place, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (Place(root: root, path: ""), path) }
    return (Place(root: root, path: String(path[..<slash])), String(path[path.index(after: slash)...]))
  }

  static func local(_ path: FilePath) -> Place {
    Place(root: .local, path: path.string.split(separator: "/").joined(separator: "/"))
  }

  /// The root alone.
  fileprivate func rootFs(options: String = "") -> JSON {
    switch root {
    case .remote(let name, let isAbsolute): .string("\(name)\(options):\(isAbsolute ? "/" : "")")
    case .settings(let settings): .object(settings.mapValues { .string($0) })
    case .local: "/"
    }
  }

  /// The root moved down to the path, for calls on whole folders. It ends in a slash, which spares S3 the question
  /// whether it is a file.
  fileprivate var folderFs: JSON {
    let below = path.isEmpty ? "" : path + "/"
    return switch root {
    case .remote(let name, let isAbsolute): .string("\(name):\(isAbsolute ? "/" : "")\(below)")
    case .settings(let settings):
      .object(settings.mapValues { .string($0) }.merging(["_root": .string(below)]) { $1 })
    case .local: .string("/" + below)
    }
  }
}

/// A file or folder as a store lists it.
struct StoreItem: Sendable, Hashable {
  /// Relative to the folder that was listed.
  var path: String
  var isFolder: Bool
  /// -1 where the store does not tell.
  var bytes: Int64
  var modified: String
  var hashes: [String: String]

  var name: String { path.split(separator: "/").last.map(String.init) ?? path }

  /// The strongest one that the store tells, as `md5:…`.
  var hash: String {
    for kind in ["sha256", "sha1", "md5"] {
      if let value = hashes[kind], !value.isEmpty { return "\(kind):\(value)" }
    }
    for (kind, value) in hashes.sorted(by: { $0.key < $1.key }) where !value.isEmpty {
      return "\(kind):\(value)"
    }
    return ""
  }
}

/// The calls of rclone's remote control that this module makes, typed. One call is one try: whoever makes it retries.
struct Rclone: Sendable {
  let daemon: RcloneDaemon

  /// What one of its jobs has done so far.
  struct Stats: Decodable, Sendable {
    var bytes: Int64
    var transfers: Int
  }

  /// How a job compares and how wide it works.
  struct JobOptions: Sendable {
    var transfers: Int
    /// Equal size and hash mean equal; otherwise size and time do.
    var comparesHashes = false
    /// Copy even what seems to be there.
    var ignoresTimes = false
    /// Ask for each file rather than list the destination.
    var asksEach = false
    var multiThread = true
    /// Look at sizes alone after a transfer.
    var ignoresHashes = false

    fileprivate var config: JSON {
      var values: [String: JSON] = [
        "Transfers": .int(Int64(transfers)), "Checkers": .int(Int64(max(transfers, 8))),
      ]
      if comparesHashes { values["CheckSum"] = true }
      if ignoresTimes { values["IgnoreTimes"] = true }
      if asksEach { values["NoTraverse"] = true }
      if ignoresHashes { values["IgnoreChecksum"] = true }
      if !multiThread { values["MultiThreadStreams"] = 0 }
      return .object(values)
    }
  }

  /// The file or folder there, or nil. Without `findsFolders`, folders are not looked for.
  func stat(
    _ place: Place, describedAs name: String, findsFolders: Bool = true, hashes: Bool = true
  ) async throws(TransferFailure) -> StoreItem? {
    struct Reply: Decodable, Sendable { var item: Listed? }
    var options: [String: JSON] = ["showHash": .bool(hashes)]
    if !findsFolders { options["filesOnly"] = true }
    do throws(TransferFailure) {
      let reply = try await call(
        "operations/stat",
        ["fs": place.rootFs(), "remote": .string(place.path), "opt": .object(options)], doing: name,
        as: Reply.self)
      return reply.item?.item(below: "", named: place.path)
    } catch {
      if error.reason == .inputMissing { return nil }
      throw error
    }
  }

  /// What is in the folder. A missing one is empty on stores that know no folders, and `.inputMissing` elsewhere.
  func list(
    _ place: Place, describedAs name: String, recursive: Bool, hashes: Bool, times: Bool
  ) async throws(TransferFailure) -> [StoreItem] {
    struct Reply: Decodable, Sendable { var list: [Listed]? }
    // The store's own times come with the listing; those that rclone keeps beside each object cost a call each.
    var fs = place.rootFs()
    if times, case .remote = place.root, try await daemon.run().program.version >= .init(major: 1, minor: 72)
    {
      fs = place.rootFs(options: ",global.use_server_modtime=true")
    }
    let reply = try await call(
      "operations/list",
      [
        "fs": fs, "remote": .string(place.path),
        "opt": [
          "recurse": .bool(recursive), "showHash": .bool(hashes), "noModTime": .bool(!times),
          "noMimeType": true,
        ],
      ], doing: name, as: Reply.self)
    return (reply.list ?? []).map { $0.item(below: place.path, named: nil) }
  }

  /// Whether the store remembers folders without files.
  func keepsEmptyFolders(_ place: Place, describedAs name: String) async throws(TransferFailure) -> Bool {
    try await info(place, describedAs: name).Features["CanHaveEmptyDirectories"] ?? false
  }

  /// The kinds of hash that the store knows.
  func hashKinds(_ place: Place, describedAs name: String) async throws(TransferFailure) -> [String] {
    try await info(place, describedAs: name).Hashes ?? []
  }

  private struct Info: Decodable, Sendable {
    var Features: [String: Bool]
    var Hashes: [String]?
  }

  private func info(_ place: Place, describedAs name: String) async throws(TransferFailure) -> Info {
    try await call("operations/fsinfo", ["fs": place.rootFs()], doing: name, as: Info.self)
  }

  /// Copies one file to exactly that place; on the store's own side where it can.
  func copyFile(
    _ source: Place, to destination: Place, options: JobOptions, group: String, describedAs name: String
  ) async throws(TransferFailure) {
    try await job(
      "operations/copyfile",
      [
        "srcFs": source.rootFs(), "srcRemote": .string(source.path), "dstFs": destination.rootFs(),
        "dstRemote": .string(destination.path), "_config": options.config,
      ], group: group, doing: name)
  }

  /// Copies what the rules choose below one folder into another. Nothing at the destination is deleted.
  func copyFolder(
    _ source: Place, to destination: Place, including: [String] = [], excluding: [String] = [],
    options: JobOptions,
    group: String, describedAs name: String
  ) async throws(TransferFailure) {
    var input: [String: JSON] = [
      "srcFs": source.folderFs, "dstFs": destination.folderFs, "_config": options.config,
    ]
    var filter: [String: JSON] = [:]
    if !including.isEmpty { filter["IncludeRule"] = .array(including.map { .string($0) }) }
    if !excluding.isEmpty { filter["ExcludeRule"] = .array(excluding.map { .string($0) }) }
    if !filter.isEmpty { input["_filter"] = .object(filter) }
    try await job("sync/copy", input, group: group, doing: name)
  }

  /// Downloads what a web server gives for exactly this URL.
  func copyURL(
    _ url: String, to destination: Place, group: String, describedAs name: String
  ) async throws(TransferFailure) {
    try await job(
      "operations/copyurl",
      ["url": .string(url), "fs": destination.rootFs(), "remote": .string(destination.path)], group: group,
      doing: name)
  }

  func stats(group: String) async throws(TransferFailure) -> Stats {
    try await call("core/stats", ["group": .string(group)], doing: "statistics", as: Stats.self)
  }

  /// A password in the form that rclone's settings ask for.
  func obscure(_ password: String) async throws(TransferFailure) -> String {
    struct Reply: Decodable, Sendable { var obscured: String }
    return try await call("core/obscure", ["clear": .string(password)], doing: "password", as: Reply.self)
      .obscured
  }

  // MARK: calls

  private struct Listed: Decodable, Sendable {
    var Path: String
    var Size: Int64?
    var ModTime: String?
    var IsDir: Bool
    var Hashes: [String: String]?

    func item(below folder: String, named name: String?) -> StoreItem {
      let path =
        name
        ?? (folder.isEmpty || !Path.hasPrefix(folder + "/") ? Path : String(Path.dropFirst(folder.count + 1)))
      return StoreItem(
        path: path, isFolder: IsDir, bytes: Size ?? -1, modified: ModTime ?? "", hashes: Hashes ?? [:])
    }
  }

  private struct Nothing: Decodable, Sendable {}

  private struct Problem: Decodable { var error: String }

  private func job(
    _ method: String, _ input: [String: JSON], group: String, doing name: String
  ) async throws(TransferFailure) {
    var input = input
    input["_group"] = .string(group)
    _ = try await call(method, input, group: group, doing: name, as: Nothing.self)
  }

  private func call<Reply: Decodable & Sendable>(
    _ method: String, _ input: [String: JSON], group: String? = nil, doing name: String, as: Reply.Type
  ) async throws(TransferFailure) -> Reply {
    let run = try await daemon.run()
    let body: Data
    do { body = try JSONEncoder().encode(JSON.object(input)) } catch {
      throw TransferFailure(.input, "\(name): the name cannot be told to rclone")
    }
    let reply: RcloneSocket.Reply
    do throws(RcloneSocket.Gone) {
      reply = try await run.socket.post(method, body: Array(body), group: group)
    } catch {
      if Task.isCancelled { throw .interrupted }
      await daemon.died(run)
      throw TransferFailure(.network, "\(name): rclone ended during the transfer", isTransient: true)
    }
    if Task.isCancelled { throw .interrupted }
    guard reply.status == 200 else {
      let said = (try? JSONDecoder().decode(Problem.self, from: Data(reply.body.readableBytesView)))?.error
      let message = await daemon.redact(said ?? "rclone answered with status \(reply.status)")
      throw RcloneError.failure(status: reply.status, message: message, doing: name)
    }
    do {
      return try JSONDecoder().decode(Reply.self, from: Data(reply.body.readableBytesView))
    } catch {
      throw TransferFailure(.network, "\(name): rclone's answer to \(method) cannot be read: \(error)")
    }
  }
}
