/// Reads one JSON value from bytes, as RFC 8259 has it, and nothing beside it.
///
/// Bounded: nesting deeper than 64 is refused. Every refusal names the column, counted in bytes from 1.
struct JSONParser {
  private let bytes: [UInt8]
  private var position = 0

  static func parse(_ bytes: [UInt8]) throws(TextProblem) -> JSON {
    var parser = JSONParser(bytes: bytes)
    parser.skipBlanks()
    let value = try parser.value(depth: 0)
    parser.skipBlanks()
    guard parser.position == bytes.count else { throw parser.problem("nothing more was expected") }
    return value
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  private func problem(_ what: String) -> TextProblem {
    TextProblem("at column \(position + 1) this is not JSON: \(what)")
  }

  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipBlanks() {
    while let byte = current, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { position += 1 }
  }

  private mutating func value(depth: Int) throws(TextProblem) -> JSON {
    guard depth <= 64 else { throw problem("it is nested more than 64 deep") }
    switch current {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    case let byte? where byte == UInt8(ascii: "-") || Self.isDigit(byte): return try number()
    case nil: throw problem("it ends too early")
    default: throw problem("a value was expected")
    }
  }

  private mutating func word(_ word: StaticString, _ value: JSON) throws(TextProblem) -> JSON {
    let text = Array(word.description.utf8)
    guard bytes[position...].starts(with: text) else { throw problem("a value was expected") }
    position += text.count
    return value
  }

  private mutating func array(depth: Int) throws(TextProblem) -> JSON {
    position += 1
    var elements: [JSON] = []
    skipBlanks()
    if current == UInt8(ascii: "]") {
      position += 1
      return .array([])
    }
    while true {
      skipBlanks()
      elements.append(try value(depth: depth + 1))
      skipBlanks()
      switch current {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "]"):
        position += 1
        return .array(elements)
      default: throw problem("',' or ']' was expected")
      }
    }
  }

  private mutating func object(depth: Int) throws(TextProblem) -> JSON {
    position += 1
    var members: [JSON.Member] = []
    var seen: Set<String> = []
    skipBlanks()
    if current == UInt8(ascii: "}") {
      position += 1
      return .object([])
    }
    while true {
      skipBlanks()
      guard current == UInt8(ascii: "\"") else { throw problem("a key in quotes was expected") }
      let key = try string()
      guard seen.insert(key).inserted else {
        throw problem("the key '\(Escaping.printable(key))' stands here a second time")
      }
      skipBlanks()
      guard current == UInt8(ascii: ":") else { throw problem("':' was expected") }
      position += 1
      skipBlanks()
      members.append(.init(key, try value(depth: depth + 1)))
      skipBlanks()
      switch current {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "}"):
        position += 1
        return .object(members)
      default: throw problem("',' or '}' was expected")
      }
    }
  }

  private mutating func number() throws(TextProblem) -> JSON {
    let start = position
    var isWhole = true
    if current == UInt8(ascii: "-") { position += 1 }
    let first = current
    guard digits() > 0 else { throw problem("a digit was expected") }
    if first == UInt8(ascii: "0"), position - start > (bytes[start] == UInt8(ascii: "-") ? 2 : 1) {
      position = start
      throw problem("a number does not begin with 0")
    }
    if current == UInt8(ascii: ".") {
      isWhole = false
      position += 1
      guard digits() > 0 else { throw problem("a digit was expected") }
    }
    if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
      isWhole = false
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      guard digits() > 0 else { throw problem("a digit was expected") }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if isWhole, let integer = Int64(text) { return .integer(integer) }
    guard let number = Double(text), number.isFinite else {
      position = start
      throw problem("the number is too large")
    }
    return .number(number)
  }

  private mutating func digits() -> Int {
    let start = position
    while let byte = current, Self.isDigit(byte) { position += 1 }
    return position - start
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  private mutating func string() throws(TextProblem) -> String {
    position += 1
    var text: [UInt8] = []
    while let byte = current {
      switch byte {
      case UInt8(ascii: "\""):
        guard let string = String(validating: text, as: UTF8.self) else {
          throw problem("the text before this is not UTF-8")
        }
        position += 1
        return string
      case UInt8(ascii: "\\"):
        position += 1
        try escape(into: &text)
      case 0..<0x20: throw problem("a control character in text is written as \\n, \\t or \\u0000")
      default:
        text.append(byte)
        position += 1
      }
    }
    throw problem("the text has no closing quote")
  }

  private mutating func escape(into text: inout [UInt8]) throws(TextProblem) {
    guard let byte = current else { throw problem("it ends too early") }
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      position += 1
      let scalar = try unicode()
      text.append(contentsOf: Array(String(Character(scalar)).utf8))
      return
    default: throw problem("'\\' is followed by one of \" \\ / b f n r t u")
    }
    position += 1
  }

  /// The scalar of `XXXX` or of the pair `XXXX\uXXXX`.
  private mutating func unicode() throws(TextProblem) -> Unicode.Scalar {
    let high = try hexadecimal()
    if let scalar = Unicode.Scalar(high) { return scalar }
    guard (0xD800..<0xDC00).contains(high), current == UInt8(ascii: "\\"), position + 1 < bytes.count,
      bytes[position + 1] == UInt8(ascii: "u")
    else { throw problem("half of a surrogate pair stands alone") }
    position += 2
    let low = try hexadecimal()
    guard (0xDC00..<0xE000).contains(low),
      let scalar = Unicode.Scalar(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    else { throw problem("half of a surrogate pair stands alone") }
    return scalar
  }

  private mutating func hexadecimal() throws(TextProblem) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw problem("four hexadecimal digits were expected")
      }
      value = value << 4 | UInt32(digit)
      position += 1
    }
    return value
  }
}
