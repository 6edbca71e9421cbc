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
  /// One try. What Aspera has brought stays in `staging` for the next one.
  nonisolated func fetchAspera(
    _ uri: TransferURI, through staging: FilePath, into arrivals: FilePath,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> Delivered {
    progress?(TransferProgress(bytes: 0, totalBytes: 0, files: 0, totalFiles: 0))
    let scratch = staging.appending("aspera")
    try createFolder(scratch)
    let aspera = try Aspera(environment, archive)
    try await gate.through { () throws(TransferFailure) in try await aspera.fetch(uri, into: scratch) }
    let name = uri.withoutActions.description
    let arrived = scratch.appending(uri.lastName)
    guard let status = fileStatus(arrived) else {
      throw TransferFailure(.checksum, "\(name): nothing is there after its transfer", isTransient: true)
    }
    let isFolder = status.st_mode & S_IFMT == S_IFDIR
    guard isFolder || !uri.isFolder else {
      throw TransferFailure(.input, "\(name): it is a file; write it without the / at its end")
    }
    let moved = try await blocking { interruption throws(TransferFailure) in
      if isFolder {
        try merge(arrived, into: arrivals, replacing: true)
      } else {
        try moveIntoPlace(arrived, arrivals.appending(uri.lastName), replacing: true)
      }
      var moved: [(path: String, file: MovedFile)] = []
      for file in try LocalFolder.read(arrivals, interruption).files {
        let from = isFolder ? uri.withoutActions.asFolder.description + file.path : name
        let hash = try md5(of: file.source, interruption)
        moved.append((file.path, MovedFile(uri: from, bytes: file.bytes, hash: hash)))
      }
      return moved
    }
    let bytes = moved.reduce(0) { $0 + $1.file.bytes }
    progress?(
      TransferProgress(bytes: bytes, totalBytes: bytes, files: moved.count, totalFiles: moved.count))
    return Delivered(moved: moved.map(\.file), paths: moved.map(\.path), isLenient: isFolder)
  }
}
