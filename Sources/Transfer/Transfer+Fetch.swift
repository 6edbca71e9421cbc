import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What was brought to this machine, before actions.
struct Delivered: Sendable {
  var moved: [MovedFile]
  /// Of the files that the actions are for, relative to where they arrived.
  var paths: [String]
  /// There may be files among them that an action is not for.
  var isLenient: Bool

  init(moved: [MovedFile], paths: [String], isLenient: Bool) {
    self.moved = moved
    self.paths = paths
    self.isLenient = isLenient
  }

  /// `moved` is what the delivery of the selection has answered.
  init(_ selection: Selection, _ moved: [MovedFile], paths: [String]? = nil, isLenient: Bool? = nil) {
    self.moved = zip(selection.items, moved).map { item, moved in
      MovedFile(uri: selection.uri(of: item), bytes: moved.bytes, hash: moved.hash)
    }
    self.paths = paths ?? selection.items.map(\.arrival)
    self.isLenient = isLenient ?? (selection.kind == .folder)
  }
}

extension Transfer {
  /// `fetch`; with `replacing`, files of the same name in `folder` are replaced.
  nonisolated func fetch(
    _ uri: TransferURI, into folder: FilePath, replacing: Bool,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> [MovedFile] {
    let folder = folder.isAbsolute ? folder : Selector.absolute(folder.string)
    try createFolder(folder)
    let staging = folder.appending(".scitq-\(UInt64.random(in: 0 ... .max))")
    try createFolder(staging, mode: 0o700)
    do throws(TransferFailure) {
      let moved = try await fetch(
        uri, through: staging, into: folder, replacing: replacing, progress: progress)
      await clear(staging)
      return moved
    } catch {
      await clear(staging)
      throw error
    }
  }

  /// Not through `blocking`, which does nothing for a cancelled task.
  private nonisolated func clear(_ staging: FilePath) async { removeTree(staging) }

  private nonisolated func fetch(
    _ uri: TransferURI, through staging: FilePath, into folder: FilePath, replacing: Bool,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> [MovedFile] {
    let arrivals = staging.appending("files")
    try createFolder(arrivals)
    let delivered = try await retrying { () throws(TransferFailure) in
      if uri.isRun {
        return try await fetchRun(uri, through: staging, into: arrivals, progress: progress)
      }
      if uri.isAspera {
        return try await fetchAspera(uri, through: staging, into: arrivals, progress: progress)
      }
      let selection = try await selector.select(uri)
      try Unpacking.check(uri.actions, on: selection.items.count, name: uri.withoutActions.description)
      let moved = try await deliverOnce(selection, to: try .folder(at: arrivals), progress: progress)
      return Delivered(selection, moved)
    }
    let arrived = try await Unpacking(
      folder: arrivals, scratch: staging, name: uri.withoutActions.description, limits: limits
    ).apply(uri.actions, to: delivered.paths, isLenient: delivered.isLenient)
    try await blocking { _ throws(TransferFailure) in
      // What comes from this machine or out of an archive has its mode.
      let isUnpacked = uri.actions.contains(.untar) || uri.actions.contains(.unzip)
      if !isUnpacked && (!uri.isLocal || uri.actions.contains(.gunzip)) {
        for path in arrived { makeProgramExecutable(arrivals.appending(path)) }
      }
      let final = uri.subfolder.isEmpty ? folder : folder.appending(uri.subfolder)
      if !replacing { try requireFree(arrivals, at: final) }
      try createFolder(final)
      try merge(arrivals, into: final, replacing: replacing)
    }
    return delivered.moved
  }
}

/// Stores keep no modes: what its first bytes show to be a program or a script is made one.
private func makeProgramExecutable(_ path: FilePath) {
  let file = open(path.string, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
  guard file >= 0 else { return }
  defer { close(file) }
  var bytes: [UInt8] = [0, 0, 0, 0]
  let count = read(file, &bytes, 4)
  guard (count == 4 && bytes == [0x7F, 0x45, 0x4C, 0x46]) || (count >= 2 && bytes[..<2] == [0x23, 0x21])
  else { return }
  var status = stat()
  // Whoever may read it may run it.
  if fstat(file, &status) == 0 { fchmod(file, status.st_mode | ((status.st_mode & 0o444) >> 2)) }
}

/// Throws where a name that would arrive is taken, before anything is moved.
func requireFree(_ source: FilePath, at target: FilePath) throws(TransferFailure) {
  guard fileStatus(target) != nil else { return }
  guard isFolder(target) else {
    throw TransferFailure(.input, "\(target): a file of this name is already there, where a folder should be")
  }
  for name in try namesIn(source) {
    let from = source.appending(name)
    let to = target.appending(name)
    guard fileStatus(to) != nil else { continue }
    guard let status = fileStatus(from), status.st_mode & S_IFMT == S_IFDIR else {
      throw TransferFailure(
        .input, "\(to): a file of this name is already there; give one of them its own folder with |mv:FOLDER"
      )
    }
    try requireFree(from, at: to)
  }
}

/// Moves everything in one folder into another, folders into folders.
func merge(_ source: FilePath, into target: FilePath, replacing: Bool) throws(TransferFailure) {
  for name in try namesIn(source) {
    let from = source.appending(name)
    let to = target.appending(name)
    if let status = fileStatus(from), status.st_mode & S_IFMT == S_IFDIR, isFolder(to) {
      try merge(from, into: to, replacing: replacing)
    } else {
      try moveIntoPlace(from, to, replacing: replacing)
    }
  }
}
