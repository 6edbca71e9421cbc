import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension Transfer {
  /// Where a selection goes.
  enum Target: Sendable {
    /// Each item below this folder, as its arrival says.
    case folder(TransferURI)
    /// The only item, under exactly this name.
    case exact(TransferURI)

    static func folder(at path: FilePath) throws(TransferFailure) -> Target {
      .folder(try TransferURI(parsing: "/").with(path: path.string + "/"))
    }

    var uri: TransferURI {
      switch self {
      case .folder(let uri), .exact(let uri): uri
      }
    }
  }

  /// How `copy` reads its destination.
  nonisolated func target(for selection: Selection, _ uri: TransferURI) throws(TransferFailure) -> Target {
    let isLocalFolder = uri.isLocal && isFolder(Selector.absolute(uri.path))
    if selection.kind == .file && !uri.isFolder && !isLocalFolder { return .exact(uri) }
    if uri.isLocal && !isLocalFolder, let status = fileStatus(Selector.absolute(uri.path), following: true),
      status.st_mode & S_IFMT != S_IFDIR
    {
      throw TransferFailure(.input, "\(uri): it is a file, and several files need a folder to go to")
    }
    return .folder(uri.asFolder)
  }

  /// What a finished delivery answers, from what was selected.
  nonisolated func moved(_ selection: Selection, to target: Target) -> [MovedFile] {
    selection.items.map { item in
      let uri =
        switch target {
        case .exact(let uri): uri.description
        case .folder(let uri): uri.description + item.arrival
        }
      return MovedFile(uri: uri, bytes: max(item.bytes, 0), hash: item.hash)
    }
  }

  nonisolated func deliver(
    _ selection: Selection, to target: Target, progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> [MovedFile] {
    try await retrying { () throws(TransferFailure) in
      try await deliverOnce(selection, to: target, progress: progress)
    }
  }

  /// One try: transfers, then looks at what is there.
  nonisolated func deliverOnce(
    _ selection: Selection, to target: Target, progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> [MovedFile] {
    let checks = DeliveryChecks(
      source: await daemon.checksums(selection.uri.scheme), target: await daemon.checksums(target.uri.scheme))
    try checks.check(selection)
    if case .local(let folder) = selection.base, target.uri.isLocal {
      try await copyLocally(selection, folder, to: target, progress)
      return try await recorded(moved(selection, to: target)) { index in
        self.localPath(of: selection.items[index], target)
      }
    }
    let place = try await selector.place(of: target.uri)
    let group = "scitq-\(UInt64.random(in: 0 ... .max))"
    try await reporting(progress, selection, group: group) { () throws(TransferFailure) in
      try await self.transfer(selection, to: target, at: place, group: group, checks)
    }
    return try await verified(selection, target, place, checks)
  }

  // MARK: transferring

  private nonisolated func transfer(
    _ selection: Selection, to target: Target, at place: Place, group: String, _ checks: DeliveryChecks
  ) async throws(TransferFailure) {
    let name = selection.uri.withoutActions.description
    let shown = target.uri.isLocal ? name : "\(target.uri)"
    if selection.items.isEmpty { return }
    if case .exact = target {
      try await transferFile(
        selection, selection.items[0], to: place, group: group, describedAs: shown, checks)
      return
    }
    let options = try await options(selection, to: target, place, checks)
    switch (selection.base, selection.kind) {
    case (.local(let folder), .folder):
      let linked = folder.files.filter(\.isLinked)
      let rules = (linked.map(\.path) + folder.skipped.map(\.path)).map { Pattern.rule($0, isLiteral: true) }
      if linked.count < folder.files.count {
        try await gate.through { () throws(TransferFailure) in
          try await rclone.copyFolder(
            .local(folder.root), to: place, excluding: rules, options: options, group: group,
            describedAs: shown)
        }
      }
      let chosen = Set(linked.map(\.path))
      try await transferEach(
        selection, selection.items.filter { chosen.contains($0.path) }, to: place, group: group,
        describedAs: shown, checks)
    case (.store(let base), .folder):
      try await gate.through { () throws(TransferFailure) in
        try await rclone.copyFolder(base, to: place, options: options, group: group, describedAs: shown)
      }
    case (.store(let base), .pattern) where selection.items.allSatisfy { $0.path == $0.arrival }:
      let rules = selection.rule.map { [$0] } ?? []
      try await gate.through { () throws(TransferFailure) in
        try await rclone.copyFolder(
          base, to: place, including: rules, options: options, group: group, describedAs: shown)
      }
    default:
      try await transferEach(selection, selection.items, to: place, group: group, describedAs: shown, checks)
    }
  }

  private nonisolated func transferEach(
    _ selection: Selection, _ items: [Selection.Item], to place: Place, group: String,
    describedAs name: String, _ checks: DeliveryChecks
  ) async throws(TransferFailure) {
    _ = try await bounded(items, width: 8) { item throws(TransferFailure) in
      try await self.transferFile(
        selection, item, to: place.appending(item.arrival), group: group, describedAs: name, checks)
    }
  }

  private nonisolated func transferFile(
    _ selection: Selection, _ item: Selection.Item, to place: Place, group: String,
    describedAs name: String, _ checks: DeliveryChecks
  ) async throws(TransferFailure) {
    try await gate.through { () throws(TransferFailure) in
      var options = Rclone.JobOptions(
        transfers: 1, ignoresTimes: place.root != .local, multiThread: !selection.uri.scheme.hasPrefix("ftp"),
        ignoresHashes: !checks.comparesHashes)
      switch selection.base {
      case .local(let folder):
        let source = folder.files.first { $0.path == item.path }?.source ?? folder.root.appending(item.path)
        try await rclone.copyFile(
          .local(try realPath(source)), to: place, options: options, group: group, describedAs: name)
      case .store(let base):
        try await rclone.copyFile(
          base.appending(item.path), to: place, options: options, group: group, describedAs: name)
      case .link(let url):
        try await rclone.copyURL(url, to: place, group: group, describedAs: name)
      case .links(let links):
        // One that is not there is found missing when the files are looked at.
        guard let link = links[item.path] else { return }
        if link.scheme.hasPrefix("http") {
          try await rclone.copyURL(link.text, to: place, group: group, describedAs: "\(link)")
        } else {
          options.multiThread = false
          try await rclone.copyFile(
            try await selector.place(of: link), to: place, options: options, group: group,
            describedAs: "\(link)")
        }
      }
    }
  }

  private nonisolated func options(
    _ selection: Selection, to target: Target, _ place: Place, _ checks: DeliveryChecks
  ) async throws(TransferFailure) -> Rclone.JobOptions {
    // Small files wait for the store more than for the network: many at a time.
    let isFTP = selection.uri.scheme.hasPrefix("ftp") || target.uri.scheme.hasPrefix("ftp")
    let average = selection.totalBytes / Int64(max(selection.items.count, 1))
    var options = Rclone.JobOptions(transfers: isFTP ? 4 : average < 1 << 20 ? 32 : 6, multiThread: !isFTP)
    options.asksEach = selection.items.count <= 64
    options.ignoresHashes = !checks.comparesHashes
    guard !target.uri.isLocal else { return options }
    guard checks.comparesHashes else {
      options.ignoresTimes = true
      return options
    }
    let theirs = try await rclone.hashKinds(place, describedAs: "\(target.uri)")
    var isComparable = !theirs.isEmpty
    if case .store(let base) = selection.base {
      let ours = try await rclone.hashKinds(base, describedAs: "\(selection.uri)")
      isComparable = !Set(ours).isDisjoint(with: theirs) && selection.items.allSatisfy { !$0.hash.isEmpty }
    }
    // Times alone do not prove that a file is there already.
    options.comparesHashes = isComparable
    options.ignoresTimes = !isComparable
    return options
  }

  // MARK: verifying

  /// Looks at each file where it should be now. A wrong or missing one is `.checksum`, and worth another try.
  private nonisolated func verified(
    _ selection: Selection, _ target: Target, _ place: Place, _ checks: DeliveryChecks
  ) async throws(TransferFailure) -> [MovedFile] {
    var files = moved(selection, to: target)
    func check(_ index: Int, bytes: Int64?) throws(TransferFailure) {
      guard let bytes else {
        throw TransferFailure(
          .checksum, "\(files[index].uri): the file is not there after its transfer", isTransient: true)
      }
      let expected = selection.items[index].bytes
      guard expected < 0 || bytes < 0 || bytes == expected else {
        throw TransferFailure(
          .checksum, "\(files[index].uri): \(bytes) bytes arrived of \(expected)", isTransient: true)
      }
      files[index].bytes = max(bytes, 0)
    }

    if target.uri.isLocal {
      for (index, item) in selection.items.enumerated() {
        let path = localPath(of: item, target)
        try check(index, bytes: fileStatus(path).map { Int64($0.st_size) })
      }
      if case .links = selection.base {
        _ = try await bounded(selection.items, width: 4) { item throws(TransferFailure) in
          try await self.compare(
            self.localPath(of: item, target), with: item, describedAs: selection.uri(of: item))
        }
      }
      guard checks.comparesHashes else { return files }
      return try await recorded(files) { index in self.localPath(of: selection.items[index], target) }
    }
    let found: [StoreItem?]
    let name = "\(target.uri)"
    if case .exact = target {
      found = [
        try await rclone.stat(place, describedAs: name, findsFolders: false, hashes: checks.comparesHashes)
      ]
    } else if selection.items.count <= 64 {
      found = try await bounded(selection.items, width: 16) { item throws(TransferFailure) in
        try await self.rclone.stat(
          place.appending(item.arrival), describedAs: name, findsFolders: false, hashes: checks.comparesHashes
        )
      }
    } else {
      let listed = try await rclone.list(
        place, describedAs: name, recursive: true, hashes: checks.comparesHashes, times: false)
      let byPath = Dictionary(listed.map { ($0.path, $0) }, uniquingKeysWith: { first, _ in first })
      found = selection.items.map { byPath[$0.arrival] }
    }
    for (index, item) in found.enumerated() {
      try check(index, bytes: item.map(\.bytes))
      guard checks.comparesHashes, let item else { continue }
      let source = selection.items[index].hash.split(separator: ":", maxSplits: 1)
      if source.count == 2, let theirs = item.hashes[String(source[0])], !theirs.isEmpty, theirs != source[1]
      {
        throw TransferFailure(
          .checksum,
          "\(files[index].uri): its \(source[0].uppercased()) is \(theirs), and should be \(source[1])",
          isTransient: true)
      }
      if checks.target == .require, item.hash.isEmpty {
        throw DeliveryChecks.noHash(files[index].uri, target.uri.scheme)
      }
      files[index].hash = item.hash
    }
    guard checks.comparesHashes, case .local(let folder) = selection.base else { return files }
    let sources = folder.files.reduce(into: [:]) { $0[$1.path] = $1.source }
    return try await recorded(files) { index throws(TransferFailure) in
      let path = selection.items[index].path
      return try realPath(sources[path] ?? folder.root.appending(path))
    }
  }

  /// Compares a file of this machine with the size and MD5 that are told of it, as far as they are.
  nonisolated func compare(
    _ file: FilePath, with item: Selection.Item, describedAs name: String
  ) async throws(TransferFailure) {
    let bytes = fileStatus(file).map { Int64($0.st_size) } ?? 0
    guard item.bytes < 0 || bytes == item.bytes else {
      throw TransferFailure(
        .checksum, "\(name): \(bytes) bytes arrived of \(item.bytes)", isTransient: true)
    }
    guard item.hash.hasPrefix("md5:") else { return }
    let hash = try await blocking { interruption throws(TransferFailure) in
      try md5(of: file, interruption)
    }
    guard hash == item.hash else {
      throw TransferFailure(
        .checksum,
        "\(name): the MD5 of what arrived is \(hash.dropFirst(4)), and should be \(item.hash.dropFirst(4))",
        isTransient: true)
    }
  }

  /// With the MD5 of the bytes on this machine for each file that no store has told a hash of.
  private nonisolated func recorded(
    _ files: [MovedFile], _ path: @escaping @Sendable (Int) throws(TransferFailure) -> FilePath
  ) async throws(TransferFailure) -> [MovedFile] {
    let unknown = files.indices.filter { files[$0].hash.isEmpty }
    let hashes = try await bounded(unknown, width: 4) { index throws(TransferFailure) in
      try await blocking { interruption throws(TransferFailure) in try md5(of: path(index), interruption) }
    }
    var files = files
    for (index, hash) in zip(unknown, hashes) { files[index].hash = hash }
    return files
  }

  private nonisolated func localPath(of item: Selection.Item, _ target: Target) -> FilePath {
    switch target {
    case .exact(let uri): Selector.absolute(uri.path)
    case .folder(let uri): Selector.absolute(uri.path).appending(item.arrival)
    }
  }

  // MARK: within this machine

  private nonisolated func copyLocally(
    _ selection: Selection, _ folder: LocalFolder, to target: Target,
    _ progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) {
    var done = TransferProgress(
      bytes: 0, totalBytes: selection.totalBytes, files: 0, totalFiles: selection.items.count)
    progress?(done)
    if case .folder(let uri) = target {
      try createFolder(Selector.absolute(uri.path))
      if selection.kind == .folder {
        for empty in folder.emptyFolders { try createFolder(Selector.absolute(uri.path).appending(empty)) }
      }
    }
    let sources = Dictionary(
      folder.files.map { ($0.path, $0.source) }, uniquingKeysWith: { first, _ in first })
    for batch in stride(from: 0, to: selection.items.count, by: 64) {
      let items = selection.items[batch..<min(batch + 64, selection.items.count)]
      try await blocking { interruption throws(TransferFailure) in
        for item in items {
          let to = self.localPath(of: item, target)
          try createFolder(to.removingLastComponent())
          try LocalCopy.copy(
            sources[item.path] ?? folder.root.appending(item.path), to: to, interruption)
        }
      }
      done.files += items.count
      done.bytes += items.reduce(0) { $0 + $1.bytes }
      progress?(done)
    }
  }

  // MARK: progress

  /// Tells progress while `body` runs: at its start, twice a second, and at its end if it succeeds.
  private nonisolated func reporting(
    _ progress: (@Sendable (TransferProgress) -> Void)?, _ selection: Selection, group: String,
    _ body: @escaping @Sendable () async throws(TransferFailure) -> Void
  ) async throws(TransferFailure) {
    guard let progress else { return try await body() }
    let total = TransferProgress(
      bytes: 0, totalBytes: selection.totalBytes, files: 0, totalFiles: selection.items.count)
    progress(total)
    let result = await withTaskGroup(of: Void.self) { tasks -> Result<Void, TransferFailure> in
      tasks.addTask {
        while (try? await Task.sleep(for: .milliseconds(500))) != nil {
          guard let stats = try? await self.rclone.stats(group: group) else { continue }
          var now = total
          now.bytes = total.totalBytes > 0 ? min(stats.bytes, total.totalBytes) : stats.bytes
          now.files = min(stats.transfers, total.totalFiles)
          progress(now)
        }
      }
      let result: Result<Void, TransferFailure>
      do throws(TransferFailure) {
        try await body()
        result = .success(())
      } catch {
        result = .failure(error)
      }
      tasks.cancelAll()
      return result
    }
    try result.get()
    var done = total
    done.bytes = total.totalBytes
    done.files = total.totalFiles
    progress(done)
  }
}
