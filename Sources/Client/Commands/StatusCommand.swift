import ArgumentParser
import ScitqProtocol

/// `scitq status`: the server, the fleet and the queue on one screen.
struct StatusCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "status", "Show the server, its workers and its tasks on one screen.", example: "scitq status")

  @OptionGroup var globals: Globals

  func run(_ client: Client) async throws {
    let status = try await client.connected { try await $0.call(.serverStatus, WireEmpty()) }
    switch client.format {
    case .json: try client.put(StatusRendering.json(status).pretty + "\n")
    case .text, .quiet:
      try client.put(StatusRendering.text(status, address: client.address, now: Moment.now(), client.style))
    }
  }
}
