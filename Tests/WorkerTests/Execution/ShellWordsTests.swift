import Foundation
import Subprocess
import SystemPackage
import Testing

@testable import ScitqWorker

@Suite("Words of a command")
struct ShellWordsTests {
  @Test(
    "a command is split as a shell splits it",
    arguments: [
      ("true", ["true"]), ("  a   b\tc\nd  ", ["a", "b", "c", "d"]), ("", []), ("''", [""]),
      (#"a"b c"'d e'f"#, ["ab cd ef"]), (#"echo "a\"b\\c\$d\`e\f""#, ["echo", #"a"b\c$d`e\f"#]),
      (#"a\ b \'c"#, ["a b", "'c"]), ("a\\\nb", ["ab"]), ("\"a\\\nb\"", ["ab"]), ("'a\\\nb'", ["a\\\nb"]),
      ("a|b;c>d $X *", ["a|b;c>d", "$X", "*"]), ("# x", ["#", "x"]), ("e\u{301}\"é\"", ["e\u{301}é"]),
    ])
  func splits(_ text: String, _ words: [String]) throws {
    #expect(try ShellWords.split(text) == words)
  }

  @Test("what is never closed is refused, with its place")
  func unbalanced() {
    #expect(throws: ShellWords.Unbalanced(kind: .singleQuote, position: 3)) { try ShellWords.split("a 'b") }
    #expect(throws: ShellWords.Unbalanced(kind: .doubleQuote, position: 1)) { try ShellWords.split(#""a\""#) }
    #expect(throws: ShellWords.Unbalanced(kind: .backslash, position: 2)) { try ShellWords.split("a\\") }
  }

  @Test("random texts are split as /bin/sh splits them")
  func fuzz() async throws {
    let seed =
      ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init) ?? .random(in: 0...UInt64.max)
    var random = SplitMix(state: seed)
    // No character that a shell would expand or act on.
    let alphabet = Array("ab \t\n'\"\\é%=+-")
    var texts: [String] = []
    var expected: [[String]] = []
    while texts.count < 300 {
      let text = String(
        (0..<Int.random(in: 0...14, using: &random)).map { _ in alphabet.randomElement(using: &random)! })
      // Unquoted line breaks end a command for a shell.
      guard let words = try? ShellWords.split(text), !words.isEmpty, !Self.breaksOutsideQuotes(text) else {
        continue
      }
      texts.append(text)
      expected.append(words)
    }
    let script = texts.map {
      "set -- \($0)\nfor w in \"$@\"; do printf '%s\\001' \"$w\"; done; printf '\\002'\n"
    }.joined()
    let result = try await Subprocess.run(
      .path("/bin/sh"), input: .array(Array(script.utf8)), output: .bytes(limit: 1 << 20),
      error: .string(limit: 4096))
    #expect(result.standardError == "", "seed \(seed)")
    let got = result.standardOutput.split(separator: 2, omittingEmptySubsequences: false).dropLast().map {
      part in
      part.split(separator: 1, omittingEmptySubsequences: false).dropLast().map {
        String(decoding: $0, as: UTF8.self)
      }
    }
    #expect(got.count == texts.count, "seed \(seed)")
    for (index, words) in got.enumerated() {
      #expect(words == expected[index], "seed \(seed): \(texts[index].debugDescription)")
    }
  }

  @Test("random bytes never crash the splitter")
  func noise() {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SplitMix(state: seed)
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      _ = try? ShellWords.split(String(decoding: bytes, as: UTF8.self))
    }
  }

  private static func breaksOutsideQuotes(_ text: String) -> Bool {
    var quote: Character?
    var escaped = false
    for c in text {
      if escaped {
        escaped = false
        continue
      }
      if c == "\\", quote != "'" {
        escaped = true
        continue
      }
      if let open = quote {
        if c == open { quote = nil }
      } else if c == "'" || c == "\"" {
        quote = c
      } else if c == "\n" {
        return true
      }
    }
    return false
  }
}

/// A small generator that a seed can repeat.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
