/// Rows under headings. On a screen columns line up and the widest give way until a row fits; elsewhere cells are
/// separated by tabs and whole.
struct Table {
  struct Column {
    let title: String
    var alignment: Alignment = .left
    /// A column that may be cut on a narrow screen keeps at least this width; nil: it is never cut.
    var shrinksTo: Int?

    enum Alignment { case left, right }
  }

  struct Cell: ExpressibleByStringInterpolation {
    let text: String
    var paint: Paint?

    init(_ text: String, paint: Paint? = nil) {
      self.text = Escaping.printable(text)
      self.paint = paint
    }
    init(stringLiteral value: String) { self.init(value) }
  }

  let columns: [Column]
  var rows: [[Cell]] = []

  func rendered(_ style: OutputStyle) -> String {
    guard let width = style.width else {
      let lines = [columns.map(\.title)] + rows.map { $0.map(\.text) }
      return lines.map { $0.joined(separator: "\t") + "\n" }.joined()
    }
    let widths = fitted(to: width)
    let heading = line(columns.map { Cell($0.title, paint: .bold) }, widths, style)
    return ([heading] + rows.map { line($0, widths, style) }).map { $0 + "\n" }.joined()
  }

  private static let gap = 2

  /// The width of each column: what its cells need, less what the screen does not have.
  private func fitted(to width: Int) -> [Int] {
    var widths = columns.indices.map { index in
      rows.reduce(TextWidth.of(columns[index].title)) { max($0, TextWidth.of($1[index].text)) }
    }
    var excess = widths.reduce(0, +) + Self.gap * (columns.count - 1) - width
    while excess > 0 {
      // The widest gives way first, one column at a time, so that narrow ones stay readable.
      let candidates = columns.indices.filter { index in
        columns[index].shrinksTo.map { widths[index] > max($0, TextWidth.of(columns[index].title)) } ?? false
      }
      guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { break }
      widths[widest] -= 1
      excess -= 1
    }
    return widths
  }

  private func line(_ cells: [Cell], _ widths: [Int], _ style: OutputStyle) -> String {
    var parts: [String] = []
    for (index, cell) in cells.enumerated() {
      let text = TextWidth.cut(cell.text, to: widths[index])
      let blanks = String(repeating: " ", count: max(0, widths[index] - TextWidth.of(text)))
      let painted = style.painted(text, cell.paint)
      switch columns[index].alignment {
      case .right: parts.append(blanks + painted)
      case .left: parts.append(index == cells.count - 1 ? painted : painted + blanks)
      }
    }
    let line = parts.joined(separator: String(repeating: " ", count: Self.gap))
    return String(line.reversed().drop { $0 == " " }.reversed())
  }
}

/// How many columns of a terminal text takes.
enum TextWidth {
  static func of(_ text: String) -> Int {
    if text.utf8.allSatisfy({ $0 < 0x80 }) { return text.utf8.count }
    return text.reduce(0) { $0 + of($1) }
  }

  /// The text, or as much of it as fits with `…` at its end.
  static func cut(_ text: String, to width: Int) -> String {
    guard of(text) > width else { return text }
    var result = ""
    var used = 0
    for character in text {
      let next = of(character)
      if used + next > width - 1 { break }
      result.append(character)
      used += next
    }
    return result + "…"
  }

  private static func of(_ character: Character) -> Int {
    guard let scalar = character.unicodeScalars.first else { return 0 }
    switch scalar.value {
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
      0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF,
      0x20000...0x3FFFD:
      return 2
    default:
      return scalar.properties.generalCategory == .nonspacingMark ? 0 : 1
    }
  }
}
