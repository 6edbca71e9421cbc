/// Makes foreign text safe to show: a task's name must not move the cursor or colour the screen.
enum Escaping {
  /// One line: control characters become `\n`, `\t` or `\u{…}`, and so do characters that reorder text.
  static func printable(_ text: some StringProtocol) -> String {
    // Most text has nothing to escape, and lists are made of it.
    guard text.unicodeScalars.contains(where: isUnsafe) else { return String(text) }
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n": result += "\\n"
      case "\t": result += "\\t"
      case "\r": result += "\\r"
      case _ where isUnsafe(scalar): result += "\\u{\(String(scalar.value, radix: 16))}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// As `printable`, but lines and tabs stay.
  static func printableLines(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false)
      .map {
        $0.split(separator: "\t", omittingEmptySubsequences: false).map(printable).joined(separator: "\t")
      }
      .joined(separator: "\n")
  }

  private static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F..<0xA0: true
    case 0x200E, 0x200F, 0x202A...0x202E, 0x2066...0x2069: true
    default: false
    }
  }
}
