/// A name with `*` for any characters but `/`. Nothing else is special.
struct Pattern: Sendable {
  private let pieces: [[UInt8]]

  init(_ text: some StringProtocol) {
    pieces = Array(text.utf8).split(separator: UInt8(ascii: "*"), omittingEmptySubsequences: false).map(
      Array.init)
  }

  /// Whether the whole name fits.
  func matches(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    guard pieces.count > 1 else { return bytes == pieces[0] }
    guard bytes.count >= pieces[0].count + pieces[pieces.count - 1].count,
      bytes.starts(with: pieces[0]),
      bytes.suffix(pieces[pieces.count - 1].count).elementsEqual(pieces[pieces.count - 1])
    else { return false }
    // What lies between is found from the left: the first place that fits leaves the most room for the rest.
    var position = pieces[0].count
    let end = bytes.count - pieces[pieces.count - 1].count
    for piece in pieces[1..<(pieces.count - 1)] where !piece.isEmpty {
      var start = position
      while start + piece.count <= end, !bytes[start..<(start + piece.count)].elementsEqual(piece) {
        start += 1
      }
      guard start + piece.count <= end else { return false }
      position = start + piece.count
    }
    return true
  }

  /// The rule of rclone's filters that chooses exactly what the pattern does below a folder.
  static func rule(_ path: some StringProtocol, isLiteral: Bool = false) -> String {
    var rule = "/"
    for character in path {
      if "?[]{}\\".contains(character) || (isLiteral && character == "*") { rule.append("\\") }
      rule.append(character)
    }
    return rule
  }
}
