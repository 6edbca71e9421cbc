import Foundation
import ScitqProtocol
import SwiftProtobuf
import Testing

@testable import ScitqClient

@Suite("Tasks from a file")
struct TaskFileTests {
  /// The tasks of a text that comes through a pipe, as from `--from-file -`.
  private func tasks(_ text: String, defaults: TaskDraft = TaskDraft()) throws -> [WireNewTask] {
    try batches(Array(text.utf8), defaults: defaults).flatMap(\.tasks)
  }

  private func batches(_ bytes: [UInt8], defaults: TaskDraft = TaskDraft()) throws -> TaskBatches {
    let file = FileManager.default.temporaryDirectory.appending(path: "scitq-\(UUID().uuidString)")
    try Data(bytes).write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    var reader = LineReader(descriptor: handle.fileDescriptor)
    return try TaskFile.read(&reader, defaults: defaults, name: "tasks.txt")
  }

  @Test(
    "each line is a command, with the flags as defaults; blank lines and line ends of other systems are no matter"
  )
  func commands() throws {
    var defaults = TaskDraft()
    defaults.container = "alpine"
    let tasks = try tasks("echo 1\r\n\n  \n{ echo 2; }\nlast", defaults: defaults)
    #expect(tasks.map(\.spec.command) == ["echo 1", "{ echo 2; }", "last"])
    #expect(tasks.allSatisfy { $0.spec.container == "alpine" })
  }

  @Test("a file whose first command begins with a brace is still a file of commands")
  func braces() throws {
    #expect(try tasks("{ echo 1; }\n").map(\.spec.command) == ["{ echo 1; }"])
  }

  @Test("a JSON line has every key that the flags have")
  func everyKey() throws {
    let line = """
      {"command":"c","container":"i","shell":"sh","inputs":["a","b"],"resource":"r","output":"o/","dependencies":[1,2],\
      "name":"n","retry":3,"priority":-4,"cpu":1.5,"mem":2,"disk":0.5,"gpu":1,"accept-failure":true,\
      "on_dependency_failure":"cancel","download-timeout":"15m","run_timeout":90,"upload-timeout":"2h",\
      "env":{"A":"b"},"container_options":["--shm-size=2g"],"weight":0.5}
      """
    let task = try #require(try tasks(line).first)
    var expected = WireNewTask()
    expected.spec.command = "c"
    expected.spec.container = "i"
    expected.spec.shell = "sh"
    expected.spec.inputs = ["a", "b"]
    expected.spec.resources = ["r"]
    expected.spec.output = "o/"
    expected.dependencies = [1, 2]
    expected.name = "n"
    expected.retry = 3
    expected.priority = -4
    expected.spec.needs.cpu = 1.5
    expected.spec.needs.memoryBytes = 2 << 30
    expected.spec.needs.diskBytes = 1 << 29
    expected.spec.needs.gpu = 1
    expected.acceptFailure = true
    expected.onDependencyFailure = .cancel
    expected.spec.downloadTimeoutMs = 900_000
    expected.spec.runTimeoutMs = 90_000
    expected.spec.uploadTimeoutMs = 7_200_000
    expected.spec.env = ["A": "b"]
    expected.spec.containerOptions = ["--shm-size=2g"]
    expected.weight = 0.5
    #expect(task == expected)
  }

  @Test("a line's own values win over the flags', lists as a whole and variables one by one")
  func defaults() throws {
    var defaults = TaskDraft()
    defaults.command = "default"
    defaults.inputs = ["x"]
    defaults.retry = 2
    defaults.env = [try EnvironmentEntry(name: "A", value: "1"), try EnvironmentEntry(name: "B", value: "2")]
    let tasks = try tasks(
      #"{"inputs":["y"],"env":["B=3"],"name":null}"# + "\n" + #"{"command":"own","retry":0}"#,
      defaults: defaults)
    #expect(tasks[0].spec.command == "default")
    #expect(tasks[0].spec.inputs == ["y"])
    #expect(tasks[0].spec.env == ["A": "1", "B": "3"])
    #expect(tasks[0].retry == 2)
    #expect(tasks[1].spec.command == "own")
    #expect(tasks[1].spec.inputs == ["x"])
    #expect(tasks[1].retry == 0)
  }

  @Test(
    "a fault is named with its line, its key and what would be right",
    arguments: [
      (#"{"comand":"x"}"#, "tasks.txt, line 2: the key 'comand' is not known; did you mean 'command'?"),
      (
        #"{"command":1}"#,
        "tasks.txt, line 2: the value of 'command' is wrong: it is a number, and should be text"
      ),
      (
        #"{"command":"  "}"#,
        "tasks.txt, line 2: the command is empty; give a command to run as --command '…'"
      ),
      (#"{"name":"x"}"#, "tasks.txt, line 2: the command is missing; give it as --command '…'"),
      (
        #"{"command":"x","retry":1.5}"#,
        "tasks.txt, line 2: the value of 'retry' is wrong: it is a number, and should be a whole number"
      ),
      (
        #"{"command":"x","input":"a","inputs":["b"]}"#,
        "tasks.txt, line 2: the key 'input' is given twice, in singular and plural or with '_' and '-'"
      ),
      (
        #"["x"]"#,
        "tasks.txt, line 2: this is a list; a task is an object such as {\"command\": \"echo hello\"}"
      ),
      ("echo", "tasks.txt, line 2: at column 1 this is not JSON: a value was expected"),
    ])
  func faults(line: String, sentence: String) {
    let error = #expect(throws: TextProblem.self) { try tasks(#"{"command":"good"}"# + "\n" + line + "\n") }
    #expect(error?.description == sentence)
  }

  @Test("a file without a task, and commands beside --command, are refused")
  func refused() {
    #expect(throws: TextProblem.self) { try tasks("\n \n") }
    var defaults = TaskDraft()
    defaults.command = "x"
    let given = defaults
    #expect(throws: TextProblem.self) { try tasks("echo\n", defaults: given) }
    #expect(throws: TextProblem.self) { try batches([0xFF, 0xFE, 0x0A]) }
  }

  @Test("a hundred thousand tasks travel in order in batches that fit in frames")
  func bulk() throws {
    let count = 100_000
    let bytes = Array((1...count).lazy.map { "echo \($0)\n" }.joined().utf8)
    let batches = try batches(bytes)
    #expect(batches.count == count)
    var next = 1
    for batch in batches {
      let size = try batch.serializedData().count
      #expect(size <= TaskBatches.batchBytes)
      for task in batch.tasks {
        if task.spec.command != "echo \(next)" {
          Issue.record("task \(next) is '\(task.spec.command)'")
          return
        }
        next += 1
      }
    }
    #expect(next == count + 1)
    // A repeated call starts from the first again.
    let again = batches.first { _ in true }
    #expect(again?.tasks.first?.spec.command == "echo 1")
  }

  @Test("a line longer than a block is whole, and one longer than a message is refused")
  func longLines() throws {
    let long = String(repeating: "x", count: 300_000)
    #expect(try tasks("a\n\(long)\nb").map(\.spec.command) == ["a", long, "b"])
    let tooLong = [UInt8](repeating: UInt8(ascii: "x"), count: LineReader.longestLine + 10)
    let error = #expect(throws: TextProblem.self) { try batches(Array("a\n".utf8) + tooLong) }
    #expect(error?.description.contains("line 2 is longer than 8 MiB") == true)
  }

  @Test("whatever a file holds, reading it ends with tasks or a sentence", arguments: [UInt64(1), 2, 3, 4])
  func fuzz(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let seeds = [
      #"{"command":"c","inputs":["a"],"env":{"A":"b"},"retry":3,"mem":0.5,"run-timeout":"15m"}"#,
      "echo hello",
      #"{"command":"\ud83e\uddec","dependency":[1,2,3],"cpu":1e3}"#,
    ]
    for round in 0..<1500 {
      var bytes = Array((seeds.randomElement(using: &random)! + "\n").utf8)
      for _ in 0..<Int.random(in: 0...6, using: &random) {
        let position = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[position] = .random(in: 0...255, using: &random)
        case 1: bytes.insert(Array(#"{}[]",:\-0\n"#.utf8).randomElement(using: &random)!, at: position)
        case 2: if bytes.count > 1 { bytes.remove(at: position) }
        default: bytes += bytes[position...]
        }
      }
      do {
        var reader = try PipeReader(bytes)
        let batches = try TaskFile.read(&reader.lines, defaults: TaskDraft(), name: "fuzz")
        #expect(batches.reduce(0) { $0 + $1.tasks.count } == batches.count, "seed \(seed), round \(round)")
      } catch let problem as TextProblem {
        #expect(problem.description.hasPrefix("fuzz"), "seed \(seed), round \(round)")
      }
    }
  }
}

/// Bytes that come through a pipe.
private struct PipeReader: ~Copyable {
  var lines: LineReader
  private let pipe = Pipe()

  init(_ bytes: [UInt8]) throws {
    // Well below what a pipe holds, so nobody has to read while it is written.
    try pipe.fileHandleForWriting.write(contentsOf: Data(bytes.prefix(32_000)))
    try pipe.fileHandleForWriting.close()
    lines = LineReader(descriptor: pipe.fileHandleForReading.fileDescriptor)
  }
}

/// The same numbers for the same seed, on every machine.
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
