import ArgumentParser
import Foundation
import ScitqProtocol

/// The whole of `scitq` behind its main.
public enum CommandLineClient {
  /// Runs one command with the arguments after the program's name. Results go to stdout, everything else to stderr.
  ///
  /// Answers the exit status: 0 done, 1 failed, 2 misused, 130 interrupted.
  public static func run(_ arguments: [String]) async -> Int32 {
    // A reader that goes away is an error of a write here, not the end of a connection without a goodbye.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try await parse(arguments)
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
      return 0
    } catch {
      let end = End(error)
      let descriptor = end.status == 0 ? STDOUT_FILENO : STDERR_FILENO
      if !end.text.isEmpty { try? Descriptor.write((end.text + "\n").utf8, to: descriptor) }
      return end.status
    }
  }

  static func parse(_ arguments: [String]) async throws -> any ParsableCommand {
    try await Scitq.asyncParseAsRoot(try Arguments.normalized(arguments))
  }

  /// How a command ends that did not run through: what is said, and the exit status.
  struct End: Equatable {
    let text: String
    let status: Int32

    init(_ error: any Error) {
      switch error {
      case is OutputClosed: (text, status) = ("", 0)
      case is Interrupted, is CancellationError: (text, status) = ("", 130)
      case let error as LoginFailure: (text, status) = (error.description, 1)
      case let error as CallError:
        (text, status) = ("scitq: \(Self.sentence(error))", Self.isMisuse(error) ? 2 : 1)
      case let error as Failure: (text, status) = ("scitq: \(error)", 1)
      case let error as TextProblem: (text, status) = ("scitq: \(error)", 2)
      default:
        let code = Scitq.exitCode(for: error)
        if code == .success {
          (text, status) = (Scitq.fullMessage(for: error), 0)
        } else {
          let isMisuse = code == .validationFailure
          let message = Scitq.message(for: error)
          let missing = message.isEmpty && isMisuse
          text =
            missing
            ? "scitq: something is missing; see 'scitq --help'" : message.isEmpty ? "" : "scitq: \(message)"
          status = isMisuse ? 2 : code.rawValue
        }
      }
    }

    /// What the server calls invalid is a wrong value. Of places of files it says so where they are not there, or not for
    /// this user: that is a failure.
    private static func isMisuse(_ error: CallError) -> Bool {
      error.code == .invalid && !["uri", "input", "resource", "output", "publish"].contains(error.field)
    }

    private static func sentence(_ error: CallError) -> String {
      switch error.code {
      case .unavailable where error.message.hasPrefix("dial "):
        "the server cannot be reached (\(error.message)); is it running, and is SCITQ_SERVER right?"
      // Some say it themselves.
      case .unauthenticated where error.message.contains("$(scitq login)"): error.message
      case .unauthenticated: "\(error.message); log in again with: export SCITQ_TOKEN=$(scitq login)"
      default: error.message
      }
    }
  }
}
