import ScitqProtocol

/// What is done to files after they have arrived and before anybody sees them.
package enum URIAction: Sendable, Hashable, CustomStringConvertible {
  /// An archive (tar, plain or compressed by gzip, bzip2, xz or zstd; zip) is replaced by its content.
  case untar
  /// A zip archive is replaced by its content.
  case unzip
  /// A file compressed by gzip is replaced by its content, without the `.gz`.
  case gunzip
  /// Everything goes into this sub-folder, a relative path without `..`.
  case move(String)
  /// The only file gets this name, and stays in its folder.
  case rename(String)

  /// One action as it stands between bars in a URI.
  init(parsing text: Substring, in uri: String) throws(TransferFailure) {
    if text == "untar" {
      self = .untar
    } else if text == "unzip" {
      self = .unzip
    } else if text == "gunzip" {
      self = .gunzip
    } else if text.hasPrefix("mv:") {
      let folder = text.dropFirst(3)
      let parts = folder.split(separator: "/", omittingEmptySubsequences: true)
      guard !parts.isEmpty else {
        throw TransferFailure(.input, "\(uri): mv: needs the name of a sub-folder, such as |mv:reference")
      }
      guard !folder.hasPrefix("/") else {
        throw TransferFailure(
          .input, "\(uri): mv:\(folder) is absolute; name a sub-folder, such as |mv:reference")
      }
      guard !parts.contains("..") && !folder.utf8.contains(0) else {
        throw TransferFailure(.input, "\(uri): mv:\(folder) leads out of the folder; .. is not allowed")
      }
      let kept = parts.filter { $0 != "." }
      guard !kept.isEmpty else {
        throw TransferFailure(
          .input, "\(uri): mv:\(folder) is not a sub-folder; name one, such as |mv:reference")
      }
      self = .move(kept.joined(separator: "/"))
    } else if text.hasPrefix("rename:") {
      let name = String(text.dropFirst(7))
      guard !name.isEmpty else {
        throw TransferFailure(.input, "\(uri): rename: needs the new name of the file, such as |rename:x.txt")
      }
      guard !name.utf8.contains(UInt8(ascii: "/")), name != ".", name != ".." else {
        throw TransferFailure(
          .input,
          "\(uri): rename:\(name) is not a plain name; write one without /, and |mv:FOLDER for a sub-folder")
      }
      self = .rename(name)
    } else {
      throw TransferFailure(
        .input,
        "\(uri): unknown action \(text.isEmpty ? "(empty)" : "|" + text); known are untar, unzip, gunzip, mv:FOLDER and rename:NAME"
      )
    }
  }

  package var description: String {
    switch self {
    case .untar: "untar"
    case .unzip: "unzip"
    case .gunzip: "gunzip"
    case .move(let folder): "mv:\(folder)"
    case .rename(let name): "rename:\(name)"
    }
  }
}
