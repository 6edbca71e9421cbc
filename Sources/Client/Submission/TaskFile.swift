import ScitqProtocol

/// Reads the tasks of a file: one command a line, or one JSON object a line. The first line that is not blank decides
/// which of the two the file is; blank lines are passed over.
enum TaskFile {
  /// All tasks of the file in batches that fit in frames, or the first fault with its line number.
  /// Memory: the encoded tasks, and one line.
  static func read(_ reader: inout LineReader, defaults: TaskDraft, name: String) throws -> TaskBatches {
    var batches = TaskBatches()
    var isJSON: Bool?
    while let line = try named(name, { try reader.next() }) {
      guard let first = line.bytes.first(where: { $0 != 0x20 && $0 != 0x09 }) else { continue }
      do {
        let asJSON = isJSON ?? (first == UInt8(ascii: "{") && looksLikeObject(line.bytes))
        isJSON = asJSON
        let draft =
          asJSON ? try TaskDraft(json: JSONParser.parse(line.bytes)) : try command(line.bytes, defaults)
        try batches.append(try draft.filled(from: defaults).newTask())
      } catch let problem as TextProblem {
        throw TextProblem("\(name), line \(line.number): \(problem)")
      }
    }
    guard batches.count > 0 else {
      throw TextProblem("\(name) names no task; give one command or JSON object a line")
    }
    return batches
  }

  private static func named<R>(_ name: String, _ body: () throws -> R) throws -> R {
    do { return try body() } catch let problem as TextProblem { throw TextProblem("\(name): \(problem)") }
  }

  /// A shell command may begin with `{` too, but then a word follows, not a quote.
  private static func looksLikeObject(_ bytes: [UInt8]) -> Bool {
    let rest = bytes.drop { $0 == 0x20 || $0 == 0x09 }.dropFirst().drop { $0 == 0x20 || $0 == 0x09 }
    return rest.first == UInt8(ascii: "\"") || rest.first == UInt8(ascii: "}") || rest.isEmpty
  }

  private static func command(_ bytes: [UInt8], _ defaults: TaskDraft) throws(TextProblem) -> TaskDraft {
    guard defaults.command == nil else {
      throw TextProblem("this is a command, and --command is given too; give one of the two")
    }
    guard let command = String(validating: bytes, as: UTF8.self) else {
      throw TextProblem("this is not UTF-8 text")
    }
    var draft = TaskDraft()
    draft.command = command
    return draft
  }
}
