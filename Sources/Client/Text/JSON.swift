/// A JSON value whose objects keep the order of their members, so that output is the same every time.
enum JSON: Hashable, Sendable {
  case null
  case bool(Bool)
  case integer(Int64)
  case number(Double)
  case string(String)
  case array([JSON])
  case object([Member])

  struct Member: Hashable, Sendable {
    let key: String
    let value: JSON
    init(_ key: String, _ value: JSON) {
      self.key = key
      self.value = value
    }
  }

  /// What this is, for a sentence about it.
  var kind: String {
    switch self {
    case .null: "null"
    case .bool: "a truth value"
    case .integer, .number: "a number"
    case .string: "text"
    case .array: "a list"
    case .object: "an object"
    }
  }

  /// On one line, without blanks.
  var compact: String {
    var text = ""
    write(to: &text, indentation: nil)
    return text
  }

  /// Over several lines, two blanks a level.
  var pretty: String {
    var text = ""
    write(to: &text, indentation: 0)
    return text
  }

  /// A list with one element a line: as easy to look through as to parse.
  static func lines(_ elements: some Sequence<JSON>) -> String {
    let lines = elements.map { "  " + $0.compact }
    return lines.isEmpty ? "[]" : "[\n" + lines.joined(separator: ",\n") + "\n]"
  }

  private func write(to text: inout String, indentation: Int?) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .number(let value):
      // JSON has no word for infinity or not-a-number.
      text += value.isFinite ? Self.plain(value) : "null"
    case .string(let value): Self.quote(value, into: &text)
    case .array(let elements):
      Self.enclose(elements, "[", "]", into: &text, indentation: indentation) { element, text, inner in
        element.write(to: &text, indentation: inner)
      }
    case .object(let members):
      Self.enclose(members, "{", "}", into: &text, indentation: indentation) { member, text, inner in
        Self.quote(member.key, into: &text)
        text += inner == nil ? ":" : ": "
        member.value.write(to: &text, indentation: inner)
      }
    }
  }

  private static func enclose<Part>(
    _ parts: [Part], _ open: String, _ close: String, into text: inout String, indentation: Int?,
    write: (Part, inout String, Int?) -> Void
  ) {
    guard !parts.isEmpty else {
      text += open + close
      return
    }
    let inner = indentation.map { $0 + 2 }
    text += open
    for (index, part) in parts.enumerated() {
      if index > 0 { text += "," }
      if let inner { text += "\n" + String(repeating: " ", count: inner) }
      write(part, &text, inner)
    }
    if let indentation { text += "\n" + String(repeating: " ", count: indentation) }
    text += close
  }

  /// A whole number is written without a fraction.
  private static func plain(_ value: Double) -> String {
    value.rounded() == value && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }

  private static func quote(_ value: String, into text: inout String) {
    text += "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case _ where scalar.value < 0x20 || scalar.value == 0x7F:
        let hex = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

extension JSON {
  /// Text, or null where it is empty: nothing stated.
  static func text(_ value: String) -> JSON { value.isEmpty ? .null : .string(value) }
  /// An id, or null where it is 0: none.
  static func id(_ value: Int64) -> JSON { value == 0 ? .null : .integer(value) }
  static func strings(_ values: [String]) -> JSON { .array(values.map(JSON.string)) }
}
