import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq user`.
struct UserCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "user", "The accounts that may use the server.", example: "scitq user list",
    subcommands: [
      List.self, Create.self, Update.self, Delete.self, ChangePassword.self, RevokeTokens.self,
    ])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List all users.", example: "scitq user list")

    @OptionGroup var globals: Globals

    func run(_ client: Client) async throws {
      let users = try await client.connected { try await $0.call(.listUsers, WireEmpty()) }.users
      switch client.format {
      case .text: try client.put(UserRendering.table(users).rendered(client.style))
      case .json: try client.put(JSON.lines(users.map(UserRendering.json)) + "\n")
      case .quiet: try client.put(users.map { "\($0.id)\n" }.joined())
      }
    }
  }

  struct Create: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "create", "Create an account.",
      example: "scitq user create --username alice --email alice@example.org --password 'S3cure!' --admin")

    @OptionGroup var globals: Globals
    @Option(help: "The login name.") var username: String
    @Option(help: "Where the user is reached.") var email: String
    @Option(help: "The password; 'ps' shows it, so prefer --password-stdin.") var password: String?
    @Flag(name: .customLong("password-stdin"), help: "Read the password from the first line of stdin.")
    var passwordStdin = false
    @Flag(help: "Grant admin rights.") var admin = false
    @Option(help: "admin, user (the default) or read-only.", transform: UserCommand.role) var role: String?

    mutating func validate() throws {
      if admin, role != nil {
        throw ValidationError("--admin and --role exclude each other; give one of them")
      }
      guard (password != nil) != passwordStdin else {
        throw ValidationError("the new user needs a password; give either --password or --password-stdin")
      }
    }

    func run(_ client: Client) async throws {
      guard client.token != nil else { throw Failure(Client.reminder) }
      let password = try password ?? Secrets.lines(1)[0]
      var request = WireCreateUser()
      request.username = username
      request.email = email
      request.password = password
      request.admin = admin
      request.role = role ?? ""
      let asked = request
      let user = try await client.connected { try await $0.call(.createUser, asked) }
      try client.put(
        text: "user \(user.id) created\n", json: UserRendering.json(user), quiet: "\(user.id)\n")
    }
  }

  struct Update: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "update", "Change an account.",
      example: "scitq user update --id 12 --username alice2\nscitq user update --id 12 --no-admin")

    @OptionGroup var globals: Globals
    @Option(help: "The user's id.", transform: Values.id) var id: Int64
    @Option(help: "A new login name.") var username: String?
    @Option(help: "A new address.") var email: String?
    @Flag(inversion: .prefixedNo, help: "Grant or remove admin rights.") var admin: Bool?
    @Option(help: "admin, user or read-only.", transform: UserCommand.role) var role: String?
    @Option(help: "Their share beside other users; 1 unless set.", transform: Values.weight) var weight:
      Double?
    @Option(
      name: .customLong("maximum-running"), help: "The most tasks on workers at once; 0: no limit.",
      transform: Values.count)
    var maximumRunning: UInt32?
    @Option(
      name: .customLong("maximum-cpu"), help: "The most CPUs that those may state together; 0: no limit.",
      transform: Values.processors)
    var maximumCPU: Double?

    mutating func validate() throws {
      if admin != nil, role != nil {
        throw ValidationError("--admin and --role exclude each other; give one of them")
      }
      if username == nil, email == nil, admin == nil, role == nil, weight == nil, maximumRunning == nil,
        maximumCPU == nil
      {
        throw ValidationError(
          "nothing is to be changed; give --username, --email, --admin, --no-admin, --role, --weight, --maximum-running or --maximum-cpu"
        )
      }
    }

    func run(_ client: Client) async throws {
      var request = WireUpdateUser()
      request.id = id
      if let username { request.username = username }
      if let email { request.email = email }
      if let admin { request.admin = admin }
      if let role { request.role = role }
      if let weight { request.weight = weight }
      if let maximumRunning { request.maximumRunning = maximumRunning }
      if let maximumCPU { request.maximumCpu = maximumCPU }
      let asked = request
      let user = try await client.connected { try await $0.call(.updateUser, asked) }
      try client.put(
        text: "user \(user.id) updated\n", json: UserRendering.json(user), quiet: "\(user.id)\n")
    }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete", "Delete an account.", example: "scitq user delete --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The user's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      _ = try await client.connected { session in
        try await session.call(.deleteUser, .with { $0.id = id })
      }
      try client.put(
        text: "user \(id) deleted\n", json: .object([.init("id", .integer(id))]), quiet: "\(id)\n")
    }
  }

  static func role(_ text: String) throws(TextProblem) -> String {
    let roles = ["admin", "user", "read-only"]
    guard roles.contains(text) else {
      let hint = Nearest.sentence(to: text, among: roles) ?? "they are: \(roles.joined(separator: ", "))"
      throw TextProblem("'\(Escaping.printable(text))' is no role; \(hint)")
    }
    return text
  }

  struct RevokeTokens: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "revoke-tokens", "Make all tokens of a user worthless at once.",
      example: "scitq user revoke-tokens --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The user's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      _ = try await client.connected { try await $0.call(.revokeTokens, .with { $0.id = id }) }
      try client.put(
        text: "the tokens of user \(id) are revoked\n", json: .object([.init("id", .integer(id))]),
        quiet: "\(id)\n")
    }
  }

  struct ChangePassword: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "change-password", "Change a password: asks for the current one, then twice for the new one.",
      example: "scitq user change-password --username alice")

    @OptionGroup var globals: Globals
    @Option(help: "Whose password.") var username: String
    @Flag(
      name: .customLong("password-stdin"),
      help: "Read the current password and the new one from the first two lines of stdin.")
    var passwordStdin = false

    func run(_ client: Client) async throws {
      let (current, new) = try passwordStdin ? fromStdin() : asked()
      var request = WireChangePassword()
      request.username = username
      request.currentPassword = current
      request.newPassword = new
      let wanted = request
      // The current password is proof enough, whatever has become of a token; without it an admin's token is the proof.
      do {
        _ = try await client.connected(token: current.isEmpty ? client.token : nil) { session in
          try await session.call(.changePassword, wanted)
        }
      } catch let error as CallError where error.code == .unauthenticated && !current.isEmpty {
        // No token was shown, so logging in again is not what helps.
        throw Failure("the password was not changed: the name or the current password is wrong")
      }
      try client.put(
        text: "the password of \(Escaping.printable(username)) is changed\n",
        json: .object([.init("username", .string(username))]), quiet: "")
    }

    private func fromStdin() throws -> (current: String, new: String) {
      let lines = try Secrets.lines(2)
      return (lines[0], lines[1])
    }

    private func asked() throws -> (current: String, new: String) {
      guard let prompt = Prompt.open() else {
        throw Failure("there is no terminal to ask for passwords on; give --password-stdin")
      }
      let current = try prompt.askSecretly("Current password: ")
      let new = try prompt.askSecretly("New password: ")
      guard try prompt.askSecretly("New password again: ") == new else {
        throw Failure("the two new passwords differ, so nothing was changed")
      }
      return (current, new)
    }
  }
}
