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

/// What is somewhere, for people.
struct Listing: Sendable {
  let selector: Selector

  func entries(of uri: TransferURI) async throws(TransferFailure) -> [Entry] {
    guard uri.actions.isEmpty else {
      throw TransferFailure(.input, "\(uri): a listing takes no action")
    }
    guard !uri.isAspera else {
      throw TransferFailure(.input, "\(uri): Aspera lists nothing; name the file or folder to fetch")
    }
    let entries =
      if uri.isRun {
        try await run(uri)
      } else if uri.isLocal {
        try await blocking { _ throws(TransferFailure) in try Self.local(uri) }
      } else {
        try await stored(uri)
      }
    return entries.sorted { ($0.isFolder ? 0 : 1, $0.uri) < ($1.isFolder ? 0 : 1, $1.uri) }
  }

  /// The files of a public run, where its archive has them.
  private func run(_ uri: TransferURI) async throws(TransferFailure) -> [Entry] {
    let selection = try await selector.select(uri)
    return selection.items.map { item in
      Entry(uri: selection.uri(of: item), isFolder: false, bytes: max(item.bytes, 0), modified: nil)
    }
  }

  // MARK: this machine

  private static func local(_ uri: TransferURI) throws(TransferFailure) -> [Entry] {
    let path = Selector.absolute(uri.path)
    if uri.hasPattern {
      let (base, names) = Selector.patternParts(path.string)
      var found = [FilePath("/" + base)]
      for name in names {
        found = found.flatMap { folder in
          ((try? namesIn(folder)) ?? []).filter(Pattern(name).matches).map { folder.appending($0) }
        }
      }
      guard !found.isEmpty else { throw Selector.nothingMatches(uri) }
      return found.compactMap(entry)
    }
    guard let found = entry(path) else {
      throw TransferFailure(.inputMissing, "\(uri): there is no such file or folder")
    }
    guard found.isFolder else { return [found] }
    return try namesIn(path).compactMap { entry(path.appending($0)) }
  }

  private static func entry(_ path: FilePath) -> Entry? {
    guard let status = fileStatus(path, following: true) ?? fileStatus(path) else { return nil }
    let isFolder = status.st_mode & S_IFMT == S_IFDIR
    return Entry(
      uri: path.string + (isFolder && path.string != "/" ? "/" : ""), isFolder: isFolder,
      bytes: isFolder ? 0 : Int64(status.st_size),
      modified: Date(timeIntervalSince1970: Double(status.modified) / 1e9))
  }

  // MARK: stores

  private func stored(_ uri: TransferURI) async throws(TransferFailure) -> [Entry] {
    let place = try await selector.place(of: uri)
    let name = uri.description
    if uri.hasPattern {
      let (base, names) = Selector.patternParts(place.path)
      var found = [Place(root: place.root, path: base)]
      for name in names.dropLast() {
        let pattern = Pattern(name)
        found = try await bounded(found, width: 8) { folder throws(TransferFailure) in
          guard name.contains("*") else { return [folder.appending(name)] }
          return try await list(folder, uri.description).filter { $0.isFolder && pattern.matches($0.name) }
            .map { folder.appending($0.path) }
        }.flatMap { $0 }
      }
      let pattern = Pattern(names.last ?? "*")
      let entries = try await bounded(found, width: 8) { folder throws(TransferFailure) in
        try await list(folder, uri.description).filter { pattern.matches($0.name) }.map {
          entry($0, folder, uri)
        }
      }.flatMap { $0 }
      guard !entries.isEmpty else { throw Selector.nothingMatches(uri) }
      return entries
    }
    if !uri.isFolder {
      let found = try await selector.rclone.stat(place, describedAs: name)
      guard let found else {
        throw TransferFailure(.inputMissing, "\(uri): there is no such file or folder")
      }
      if !found.isFolder {
        var item = found
        item.path = place.split.name
        return [entry(item, place.split.folder, uri)]
      }
    }
    let items: [StoreItem]
    do throws(TransferFailure) {
      items = try await selector.rclone.list(
        place, describedAs: name, recursive: false, hashes: false, times: true)
    } catch  where error.reason == .inputMissing {
      throw TransferFailure(.inputMissing, "\(uri): there is no such folder")
    }
    if items.isEmpty, !place.path.isEmpty,
      try await !selector.rclone.keepsEmptyFolders(place, describedAs: name), place.path.contains("/")
    {
      throw TransferFailure(.inputMissing, "\(uri): there is no such folder")
    }
    return items.map { entry($0, place, uri) }
  }

  private func list(_ place: Place, _ name: String) async throws(TransferFailure) -> [StoreItem] {
    do throws(TransferFailure) {
      return try await selector.rclone.list(
        place, describedAs: name, recursive: false, hashes: false, times: true)
    } catch  where error.reason == .inputMissing {
      return []
    }
  }

  private func entry(_ item: StoreItem, _ folder: Place, _ uri: TransferURI) -> Entry {
    let text = Selection.text(of: folder.appending(item.path), like: uri)
    return Entry(
      uri: text + (item.isFolder ? "/" : ""), isFolder: item.isFolder,
      bytes: item.isFolder ? 0 : max(item.bytes, 0),
      modified: Self.date(item.modified))
  }

  /// RFC 3339, with or without a fraction. rclone gives 2000-01-01 where a store tells no time.
  static func date(_ text: String) -> Date? {
    guard !text.hasPrefix("2000-01-01T00:00:00") else { return nil }
    let whole = text.split(separator: ".", maxSplits: 1)
    let zone = whole.count == 2 ? whole[1].drop { $0.isNumber } : ""
    return try? Date(String(whole.first ?? "") + zone, strategy: .iso8601)
  }
}
