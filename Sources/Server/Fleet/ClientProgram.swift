import Foundation
import Subprocess
import SystemPackage

/// A provider's own command line, called with an argument vector and a deadline.
struct ClientProgram: Sendable {
  /// A name that is looked for on PATH, or a path.
  var program: String
  /// Added to the server's own environment: credentials, endpoints. Never in the arguments, which all can see.
  var environment: [String: String] = [:]

  struct Answer: Sendable {
    /// -1: it could not be started; -2: it did not end in time, and whether it did what it was asked is open.
    var code: Int32
    var output: [UInt8]
    var error: String

    var isSuccess: Bool { code == 0 }
    var text: String { String(decoding: output, as: UTF8.self) }

    /// What went wrong, as the client's last line that speaks of an error has it.
    var sentence: String {
      let lines = (error.isEmpty ? text : error).split(whereSeparator: \.isNewline)
        .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
      guard let telling = lines.lastIndex(where: { $0.localizedCaseInsensitiveContains("error") }) else {
        return String((lines.last ?? "it said nothing").prefix(500))
      }
      // A heading says nothing without what stands below it.
      let words = lines[telling].hasSuffix(":") ? lines[telling...].joined(separator: " ") : lines[telling]
      return String(words.prefix(500))
    }
  }

  /// Runs it to its end, or to the deadline, when all of its process group is killed.
  func run(_ arguments: [String], input: String = "", deadline: Duration = .seconds(120)) async -> Answer {
    let variables = Dictionary(
      uniqueKeysWithValues: environment.compactMap { entry in
        Environment.Key(rawValue: entry.key).map { ($0, Optional(entry.value)) }
      })
    var options = PlatformOptions()
    options.processGroupID = 0
    options.teardownSequence = [
      .gracefulShutDown(toProcessGroup: true, allowedDurationToNextStep: .seconds(2))
    ]
    return await withTaskGroup(of: Answer?.self) { [options] group in
      group.addTask {
        do {
          let file = try Self.file(holding: input)
          let result = try await Subprocess.run(
            program.contains("/") ? .path(FilePath(program)) : .name(program),
            arguments: Arguments(arguments), environment: .inherit.updating(variables),
            platformOptions: options, input: .fileDescriptor(file, closeAfterSpawningProcess: true),
            output: .bytes(limit: 256 << 20),
            error: .string(limit: 1 << 20))
          let code: Int32 =
            switch result.terminationStatus {
            case .exited(let code): code
            case .signaled(let signal): 128 + signal
            }
          return Answer(code: code, output: result.standardOutput, error: result.standardError)
        } catch {
          return Answer(code: -1, output: [], error: "\(program) could not be run: \(error)")
        }
      }
      group.addTask {
        try? await Task.sleep(for: deadline)
        return nil
      }
      let first = await group.next() ?? nil
      group.cancelAll()
      return first
        ?? Answer(
          code: -2, output: [],
          error: "\(program) \(arguments.prefix(3).joined(separator: " ")) did not end within \(deadline)")
    }
  }

  /// What a program reads as its standard input: a file without a name. A pipe would end this process (SIGPIPE) or lose
  /// the answer of a program that ends before it has read all.
  private static func file(holding input: String) throws -> FileDescriptor {
    if input.isEmpty { return try .open("/dev/null", .readOnly, options: .closeOnExec) }
    let path = FilePath(NSTemporaryDirectory()).appending("scitq-input-\(UUID().uuidString)")
    let file = try FileDescriptor.open(
      path, .readWrite, options: [.create, .exclusiveCreate, .closeOnExec], permissions: .ownerReadWrite)
    do {
      try FileManager.default.removeItem(atPath: path.string)
      try file.writeAll(input.utf8)
      try file.seek(offset: 0, from: .start)
    } catch {
      try? file.close()
      throw error
    }
    return file
  }

  /// Runs it and reads the JSON it prints.
  ///
  /// - Parameter classify: what the client's complaint means; nil: `transient`.
  func json<Value: Decodable>(
    _ arguments: [String], as type: Value.Type, input: String = "", deadline: Duration = .seconds(120),
    classify: (String) -> ProviderError.Class?
  ) async throws(ProviderError) -> Value {
    let answer = try await checked(arguments, input: input, deadline: deadline, classify: classify)
    do {
      return try JSONDecoder().decode(Value.self, from: Data(answer.output))
    } catch {
      throw ProviderError(
        .transient,
        "\(program) answered what cannot be understood: \(String(answer.text.prefix(200)).debugDescription)")
    }
  }

  /// Runs it, and throws where it did not succeed.
  @discardableResult
  func checked(
    _ arguments: [String], input: String = "", deadline: Duration = .seconds(120),
    classify: (String) -> ProviderError.Class?
  ) async throws(ProviderError) -> Answer {
    let answer = await run(arguments, input: input, deadline: deadline)
    guard !answer.isSuccess else { return answer }
    if answer.code == -1 { throw ProviderError(.misconfigured, answer.error) }
    if answer.code == -2 { throw ProviderError(.transient, answer.error) }
    throw ProviderError(
      classify(answer.error + answer.text) ?? .transient, "\(program): \(answer.sentence)")
  }
}
