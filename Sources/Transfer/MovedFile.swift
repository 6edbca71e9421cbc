package import FoundationEssentials

/// One file that was moved and verified.
package struct MovedFile: Sendable, Hashable {
  /// Where it came from (`fetch`), or where it is now (`store`, `copy`); without credentials.
  package var uri: String
  package var bytes: Int64
  /// `md5:…`, `sha1:…` or the like as the store tells it. Where it tells none, the MD5 of the bytes on this machine;
  /// empty where there were none or the remote's `ChecksumPolicy` is off.
  package var hash: String

  package init(uri: String, bytes: Int64, hash: String) {
    self.uri = uri
    self.bytes = bytes
    self.hash = hash
  }
}

/// How far a transfer is. The totals are known before the first byte moves; 0 where the source does not tell.
package struct TransferProgress: Sendable, Hashable {
  package var bytes: Int64
  package var totalBytes: Int64
  package var files: Int
  package var totalFiles: Int

  package init(bytes: Int64, totalBytes: Int64, files: Int, totalFiles: Int) {
    self.bytes = bytes
    self.totalBytes = totalBytes
    self.files = files
    self.totalFiles = totalFiles
  }
}

/// One line of a listing.
package struct Entry: Sendable, Hashable {
  /// The full URI, which ends in `/` for a folder.
  package var uri: String
  package var isFolder: Bool
  /// 0 for a folder and where the store does not tell.
  package var bytes: Int64
  package var modified: Date?

  package init(uri: String, isFolder: Bool, bytes: Int64, modified: Date?) {
    self.uri = uri
    self.isFolder = isFolder
    self.bytes = bytes
    self.modified = modified
  }
}
