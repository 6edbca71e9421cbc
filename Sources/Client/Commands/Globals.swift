import ArgumentParser
import Foundation
import ScitqProtocol

/// The flags that every command takes.
struct Globals: ParsableArguments {
  @Option(
    name: [.long, .customShort("s")],
    help: "Where the server is, as host:port (default: $SCITQ_SERVER, or localhost:50051).",
    transform: Values.server)
  var server: ServerAddress?

  @Option(help: "The token from 'scitq login'; prefer $SCITQ_TOKEN, which 'ps' does not show.")
  var token: String?

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "Print ids alone.")
  var quiet = false

  @Option(help: "How long to wait for the server, as 30s or 2m.", transform: Values.duration)
  var timeout: Duration?

  mutating func validate() throws {
    if json, quiet { throw ValidationError("--json and --quiet exclude each other; give one of them") }
    if let timeout, timeout <= .zero { throw ValidationError("--timeout is 0; give a time such as 30s") }
  }

  func address(_ environment: [String: String]) throws -> ServerAddress {
    if let server { return server }
    guard let text = environment["SCITQ_SERVER"], !text.isEmpty else {
      return ServerAddress(host: "localhost")
    }
    do { return try Values.server(text) } catch { throw ValidationError("SCITQ_SERVER is wrong: \(error)") }
  }
}

/// A command that talks to the server.
protocol ClientCommand: AsyncParsableCommand {
  var globals: Globals { get }
  func run(_ client: Client) async throws
}

extension ClientCommand {
  mutating func run() async throws {
    try await run(Client(globals, environment: ProcessInfo.processInfo.environment))
  }
}

extension CommandConfiguration {
  /// One command, with an example as every help page has it.
  static func command(
    _ name: String, _ abstract: String, example: String, subcommands: [any ParsableCommand.Type] = []
  )
    -> CommandConfiguration
  {
    let lines = example.split(separator: "\n").map { "  \($0)" }.joined(separator: "\n")
    return CommandConfiguration(
      commandName: name, abstract: abstract, discussion: "Example:\n\(lines)", subcommands: subcommands)
  }
}
