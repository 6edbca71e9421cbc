import ScitqProtocol
package import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// One of the files that a URI chooses, before actions.
package struct ChosenFile: Sendable, Hashable {
  /// Where it is, without credentials: what `MovedFile` says when it was fetched.
  package var uri: String
  /// Where `fetch` would put it, relative to its folder.
  package var arrival: String
  /// -1 where the store does not tell.
  package var bytes: Int64
  /// As the store tells it, such as `md5:…`, or empty.
  package var hash: String
}

extension Transfer {
  /// What `fetch` would bring now, without bringing it. Throws as `fetch` does where that is nothing.
  package nonisolated func chosen(by uri: TransferURI) async throws(TransferFailure) -> [ChosenFile] {
    let selection = try await retrying { () throws(TransferFailure) in try await selector.select(uri) }
    return selection.items.map {
      ChosenFile(uri: selection.uri(of: $0), arrival: $0.arrival, bytes: $0.bytes, hash: $0.hash)
    }
  }

  /// Copies files of this machine, each to its arrival below `folder`, as files of their own that may be written to.
  /// The file system shares the bytes where it can. Throws `.checksum` where one changes meanwhile.
  package nonisolated func duplicate(
    _ files: [(source: FilePath, arrival: String)], into folder: FilePath
  ) async throws(TransferFailure) {
    try await blocking { interruption throws(TransferFailure) in
      for (source, arrival) in files {
        let target = folder.appending(arrival)
        try createFolder(target.removingLastComponent())
        try LocalCopy.copy(source, to: target, interruption, replacing: false)
        // What is downloaded can be written to by its owner and read by all.
        if let status = fileStatus(target) { chmod(target.string, (status.st_mode & 0o777) | 0o644) }
      }
    }
  }
}
