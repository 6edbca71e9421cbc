import ArgumentParser
import Foundation
import ScitqProtocol
import SwiftProtobuf

/// `scitq login`: name and password for a token.
struct LoginCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "login", "Log in and print a token.",
    example:
      "export SCITQ_TOKEN=$(scitq login)\nprintf '%s' \"$PASSWORD\" | scitq login --user alice --password-stdin"
  )

  @OptionGroup var globals: Globals
  @Option(name: [.long, .customLong("username")], help: "Who logs in; asked for when not given.") var user:
    String?
  @Flag(
    name: .customLong("password-stdin"),
    help: "Read the password from stdin, up to the end of its first line.")
  var passwordStdin = false

  @Option(
    help: "How long the token is good for, as 12h; at most as long as the server allows.",
    transform: Values.duration)
  var expires: Duration?

  mutating func validate() throws {
    if let expires, expires <= .zero { throw ValidationError("--expires is 0; give a time such as 12h") }
    if passwordStdin, user == nil {
      throw ValidationError("--password-stdin needs --user, since nobody can be asked for the name")
    }
  }

  func run(_ client: Client) async throws {
    let (username, secret) = try credentials()
    do {
      let answer = try await client.connected(token: nil) { session in
        try await session.call(
          .login,
          .with {
            ($0.username, $0.password) = (username, secret)
            $0.lifetimeMs = expires?.wholeMilliseconds ?? 0
          })
      }
      try client.put(
        text: answer.token + "\n",
        json: .object([
          .init("token", .string(answer.token)), .init("expires_at", Moment.json(answer.expiresAt)),
        ]),
        quiet: answer.token + "\n")
    } catch let error as CallError {
      throw LoginFailure(error, user: username, at: Moment.now(), zone: client.style.zone)
    } catch let error as Failure {
      let unavailable = CallError(.unavailable, error.description)
      throw LoginFailure(unavailable, user: username, at: Moment.now(), zone: client.style.zone)
    }
  }

  private func credentials() throws -> (username: String, password: String) {
    if passwordStdin { return (user ?? "", try Secrets.lines(1)[0]) }
    guard let prompt = Prompt.open() else {
      throw Failure("there is no terminal to ask for the password on; give --user and --password-stdin")
    }
    let name = try user ?? prompt.ask("Username: ")
    return (name, try prompt.askSecretly("Password: "))
  }
}

/// `scitq logout`.
struct LogoutCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "logout", "Make the token in SCITQ_TOKEN worthless.", example: "scitq logout; unset SCITQ_TOKEN")

  @OptionGroup var globals: Globals

  func run(_ client: Client) async throws {
    _ = try await client.connected { try await $0.call(.logout, WireEmpty()) }
    try client.note("logged out; unset SCITQ_TOKEN")
  }
}

/// A failed login in the shape that scripts around this command know.
struct LoginFailure: Error, CustomStringConvertible {
  let description: String

  init(_ error: CallError, user: String, at time: Int64, zone: TimeZone) {
    let reason =
      switch error.code {
      case .unauthenticated: "invalid credentials"
      case .unavailable:
        "connection error: desc = \"\(error.message.hasPrefix("dial ") ? "transport: Error while dialing: " : "")\(error.message)\""
      default: error.message
      }
    let stamp = Moment.logStamp(time, zone)
    description =
      "\(stamp) login failed: rpc error: code = \(Self.word(error.code)) desc = \(reason) (\(Escaping.printable(user)))"
  }

  private static func word(_ code: CallError.Code) -> String {
    switch code {
    case .unauthenticated: "Unauthenticated"
    case .forbidden: "PermissionDenied"
    case .notFound: "NotFound"
    case .invalid: "InvalidArgument"
    case .conflict: "AlreadyExists"
    case .exhausted: "ResourceExhausted"
    case .unavailable: "Unavailable"
    case .superseded: "Aborted"
    case .internal: "Internal"
    }
  }
}

/// Secrets from stdin, for scripts.
enum Secrets {
  /// The first lines of stdin, without their ends.
  static func lines(_ count: Int) throws -> [String] {
    var reader = LineReader(descriptor: STDIN_FILENO)
    var lines: [String] = []
    while lines.count < count {
      guard let line = try reader.next() else {
        throw Failure(
          count == 1
            ? "stdin ended before a password came"
            : "stdin ended after \(lines.count) of \(count) lines: the current password, then the new one")
      }
      lines.append(String(decoding: line.bytes, as: UTF8.self))
    }
    return lines
  }
}
