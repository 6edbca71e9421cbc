import ScitqProtocol

/// The indexes of an array: `N` is 0 to N − 1, `A-B` is A to B, and `A-B:S` every Sth of those.
struct ArrayIndexes: Hashable, Sendable {
  let first: Int64
  let stride: Int64
  let count: Int64

  init(_ text: String) throws(TextProblem) {
    let problem = TextProblem(
      "'\(Escaping.printable(text))' is no array; write how many tasks, as 100, or indexes as 1-100 or 1-100:5"
    )
    let halves = text.split(separator: ":", omittingEmptySubsequences: false)
    let ends = (halves.first ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int64($0) }
    guard halves.count <= 2, ends.count <= 2, ends.allSatisfy({ ($0 ?? -1) >= 0 }),
      let start = ends.first ?? nil
    else { throw problem }
    if ends.count == 1 {
      guard halves.count == 1, start > 0 else { throw problem }
      (first, stride, count) = (0, 1, start)
      return
    }
    let step = halves.count == 2 ? Int64(halves[1]) ?? 0 : 1
    guard let end = ends[1], end >= start, step > 0, end <= Int64(Int32.max) else { throw problem }
    (first, stride, count) = (start, step, (end - start) / step + 1)
  }

  static func parse(_ text: String) throws(TextProblem) -> ArrayIndexes { try ArrayIndexes(text) }
}

/// A table of an array: the names of the columns, and a row for each task.
struct ArrayTable: Hashable, Sendable {
  var columns: [String]
  var rows: [[String]]

  /// Tab-separated, with the names on the first line; blank lines are passed over.
  static func read(_ reader: inout LineReader, name: String) throws -> ArrayTable {
    var table: ArrayTable?
    while let line = try reader.next() {
      guard line.bytes.contains(where: { $0 != 0x20 && $0 != 0x09 }) else { continue }
      guard let text = String(validating: line.bytes, as: UTF8.self) else {
        throw TextProblem("\(name), line \(line.number): this is not UTF-8 text")
      }
      let fields = text.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      guard table != nil else {
        for field in fields where !isName(field) {
          throw TextProblem(
            "\(name), line \(line.number): '\(Escaping.printable(field))' cannot name a column; use letters, digits and _, with tabs between names"
          )
        }
        table = ArrayTable(columns: fields, rows: [])
        continue
      }
      guard fields.count == table?.columns.count else {
        throw TextProblem(
          "\(name), line \(line.number): this row has \(fields.count) fields, and there are \(table?.columns.count ?? 0) columns"
        )
      }
      table?.rows.append(fields)
    }
    guard let table, !table.rows.isEmpty else {
      throw TextProblem(
        "\(name) has no rows; give the names of columns on the first line, and a row for each task")
    }
    return table
  }

  private static func isName(_ text: String) -> Bool {
    guard let first = text.utf8.first, !(48...57).contains(first) else { return false }
    return text.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0 & 0xDF) || $0 == 95 }
  }
}

extension Array {
  /// In order, in so many parts whose sizes differ by one at most; fewer where there are not as many elements.
  func spread(over parts: Int) -> [[Element]] {
    let parts = Swift.min(parts, count)
    guard parts > 0 else { return [] }
    var start = 0
    return (0..<parts).map { part in
      let size = count / parts + (part < count % parts ? 1 : 0)
      defer { start += size }
      return Array(self[start..<(start + size)])
    }
  }
}
