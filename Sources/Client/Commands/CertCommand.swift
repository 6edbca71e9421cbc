import ArgumentParser
import ScitqProtocol

/// `scitq cert`: the authority of a server, before anybody believes it.
struct CertCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "cert", "Print the certificate of the server's authority.",
    example: "scitq cert > server.pem\nscitq cert --fingerprint")

  @OptionGroup var globals: Globals
  @Flag(help: "Print its SHA-256 fingerprint instead.") var fingerprint = false

  func run(_ client: Client) async throws {
    let authority = try await client.dialer.authority()
    let json = JSON.object([
      .init("pem", .string(authority.pem)), .init("fingerprint", .string(authority.fingerprint)),
    ])
    let text = fingerprint ? authority.fingerprint + "\n" : authority.pem
    try client.put(text: text, json: json, quiet: text)
  }
}
