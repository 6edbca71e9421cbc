import Glibc
import Subprocess
import SystemPackage

/// The command-line program of a container engine, called with argument vectors.
struct ContainerTool: Sendable {
  var program: String

  struct Answer: Sendable {
    var code: Int32
    var output: String
    var error: String
    /// The last line of its error, as a sentence for people.
    var sentence: String {
      let lines = error.split(whereSeparator: \.isNewline).filter {
        !$0.hasPrefix("Run '") && !$0.hasPrefix("See '") && !$0.hasPrefix("Usage:")
      }
      return String((lines.first { $0.contains("rror") } ?? lines.last ?? "it said nothing").prefix(600))
    }

    /// The engine itself could not be reached, or went away in the middle: whether it did what it was asked is open.
    var isEngineAway: Bool { code != 0 && ContainerTool.signsOfAbsence.contains { error.contains($0) } }
  }

  static let signsOfAbsence = [
    "Cannot connect to the", "error during connect", "unexpected EOF", "connection refused",
    "connection reset",
    "broken pipe", "context deadline exceeded", "use of closed network connection",
    "unable to connect to Podman",
  ]

  /// Runs it to its end. Code -1: it could not be started, or did not end within `timeout`.
  func run(
    _ arguments: [String], input: String = "", environment: [String: String] = [:],
    timeout: Duration = .seconds(120)
  ) async -> Answer {
    let variables = Dictionary(
      uniqueKeysWithValues: environment.map { (Environment.Key(rawValue: $0.key)!, Optional($0.value)) })
    return await withTaskGroup(of: Answer?.self) { group in
      group.addTask {
        do {
          let result = try await Subprocess.run(
            .name(program), arguments: Arguments(arguments), environment: .inherit.updating(variables),
            input: .array(Array(input.utf8)), output: .string(limit: 64 << 20), error: .string(limit: 1 << 20)
          )
          let code: Int32 =
            switch result.terminationStatus {
            case .exited(let code): code
            case .signaled(let signal): 128 + signal
            }
          return Answer(code: code, output: result.standardOutput, error: result.standardError)
        } catch {
          return Answer(code: -1, output: "", error: "\(program) could not be run: \(error)")
        }
      }
      group.addTask {
        try? await Task.sleep(for: timeout)
        return nil
      }
      let first = await group.next() ?? nil
      group.cancelAll()
      return first
        ?? Answer(code: -1, output: "", error: "\(program) \(arguments[0]) did not end within \(timeout)")
    }
  }
}

/// What an engine says of a container.
struct Inspection: Sendable {
  enum Status: String, Sendable { case created, running, paused, ended }
  var status: Status
  var code: Int32
  var outOfMemory: Bool
  /// The engine's sentence, where it could not start the command.
  var error: String

  /// What `inspect` is asked to print, one line a container.
  static let format =
    "{{.Name}}\t{{.State.Status}}\t{{.State.ExitCode}}\t{{.State.OOMKilled}}\t{{json .State.Error}}"

  /// A line of that format, with the container's name.
  static func parse(_ line: Substring) -> (String, Inspection)? {
    let fields = line.split(separator: "\t", maxSplits: 4, omittingEmptySubsequences: false)
    guard fields.count == 5, let code = Int32(fields[2]) else { return nil }
    let status: Status =
      switch fields[1] {
      case "created", "configured", "initialized": .created
      case "exited", "dead", "stopped", "removing": .ended
      case "paused": .paused
      default: .running
      }
    var error = String(fields[4])
    if error.hasPrefix("\""), error.hasSuffix("\""), error.count >= 2 {
      error = String(error.dropFirst().dropLast()).replacing("\\\"", with: "\"").replacing("\\\\", with: "\\")
    }
    let name = fields[0].hasPrefix("/") ? fields[0].dropFirst() : fields[0]
    return (
      String(name),
      Inspection(status: status, code: code, outOfMemory: fields[3] == "true", error: error)
    )
  }

  /// The command is not there or cannot be executed: created, never running, with the code a shell would give.
  var isUnstartable: Bool { status == .created && (code == 126 || code == 127) && !error.isEmpty }
  /// Its command has been started and has not ended.
  var isAlive: Bool { status == .running || status == .paused }
  var isOver: Bool { status == .ended || isUnstartable }
}

/// Asks one question about many containers at once: while one call is under way the next gathers.
actor Batch<Answer: Sendable> {
  private let ask: @Sendable ([String]) async -> [String: Answer]
  private var waiting: [(name: String, turn: CheckedContinuation<Answer?, Never>)] = []
  private var busy = false

  init(ask: @escaping @Sendable ([String]) async -> [String: Answer]) { self.ask = ask }

  /// Nil: the caller who asked for this one was canceled, or the question had no answer for it.
  func callAsFunction(_ name: String) async -> Answer? {
    if busy {
      let answer = await withCheckedContinuation { waiting.append((name, $0)) }
      if let answer { return answer }
      if busy { return await callAsFunction(name) }
    }
    busy = true
    let others = waiting.prefix(50)
    waiting.removeFirst(others.count)
    let answers = await ask(Array(Set([name] + others.map(\.name))))
    busy = false
    for other in others { other.turn.resume(returning: answers[other.name]) }
    // Whoever came meanwhile leads the next call.
    if !waiting.isEmpty { waiting.removeFirst().turn.resume(returning: nil) }
    return answers[name]
  }
}
