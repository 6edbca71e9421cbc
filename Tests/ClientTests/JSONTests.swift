import Testing

@testable import ScitqClient

@Suite("JSON")
struct JSONTests {
  @Test(
    "what was written reads back the same",
    arguments: [
      #"{"a":1,"b":[true,false,null],"c":{"d":"x"}}"#, #"[]"#, #"{}"#, #""\"\\\n\t\r\u0001""#, "-12", "0.5",
      #""Zoë 数 🧬""#,
    ])
  func roundTrip(text: String) throws {
    #expect(try JSONParser.parse(Array(text.utf8)).compact == text)
  }

  @Test("escapes of every kind are understood")
  func escapes() throws {
    #expect(
      try JSONParser.parse(Array(#""\u0041\ud83e\uddec\/\b\f""#.utf8)) == .string("A🧬/\u{8}\u{C}"))
  }

  @Test(
    "what is not JSON is refused with the column",
    arguments: [
      ("", 1), ("{", 2), (#"{"a"}"#, 5), (#"{"a":1,}"#, 8), ("[1,]", 4), ("01", 1), ("1.", 3), ("1e", 3),
      ("-", 2),
      (#""abc"#, 5), (#""\x""#, 3), (#""\ud800""#, 8), ("tru", 1), ("1 2", 3), ("\"\n\"", 2), ("1e999", 1),
      (#"{"a":1,"a":2}"#, 11), ("NaN", 1), ("'a'", 1),
    ])
  func malformed(text: String, column: Int) {
    let error = #expect(throws: TextProblem.self) { try JSONParser.parse(Array(text.utf8)) }
    #expect(error?.description.hasPrefix("at column \(column) ") == true, "\(error?.description ?? "")")
  }

  @Test("deep nesting is refused and does not end the program")
  func deep() {
    let bytes = Array(repeating: UInt8(ascii: "["), count: 100_000)
    #expect(throws: TextProblem.self) { try JSONParser.parse(bytes) }
  }

  @Test("text that is not UTF-8 is refused")
  func notUTF8() {
    #expect(throws: TextProblem.self) { try JSONParser.parse([0x22, 0xFF, 0x22]) }
  }

  @Test("lists have one element a line, and whole numbers no fraction")
  func layout() {
    #expect(JSON.lines([.integer(1), .object([.init("a", .number(2))])]) == "[\n  1,\n  {\"a\":2}\n]")
    #expect(JSON.lines([JSON]()) == "[]")
    #expect(JSON.object([.init("a", .array([.number(0.5)]))]).pretty == "{\n  \"a\": [\n    0.5\n  ]\n}")
    #expect(JSON.number(.infinity).compact == "null")
  }
}
