import ArgumentParser
import Foundation
import ScitqProtocol
import SwiftProtobuf

/// `scitq top`: the status, kept up to date.
struct TopCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "top", "Keep the server, its workers and its tasks on the screen; ^C ends it.", example: "scitq top")

  @OptionGroup var globals: Globals

  /// Figures of hosts come with their beats: they are looked at as often without an event.
  private static let refresh = Duration.seconds(2)

  func run(_ client: Client) async throws {
    // Without a screen there is nothing to keep up to date.
    guard client.style.width != nil else {
      return try client.put(try await client.connected { try await screen($0, client) })
    }
    try await Persistence(client).until { session in
      let (wakes, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          for try await _ in session.connection.feed(.readEvents, .with { ($0.follow, $0.last) = (true, 1) })
          {
            wake.yield()
          }
        }
        group.addTask {
          while !Task.isCancelled {
            wake.yield()
            try await Task.sleep(for: Self.refresh)
          }
        }
        group.addTask {
          for await _ in wakes {
            let text = try await screen(session, client)
            // From the top left, over what was there, and nothing below.
            try client.put("\u{1B}[H" + text.replacing("\n", with: "\u{1B}[K\n") + "\u{1B}[J")
            // A storm of events is shown as a few pictures a second.
            try await Task.sleep(for: .milliseconds(200))
          }
        }
        try await group.next()
        group.cancelAll()
      }
    }
  }

  private func screen(_ session: Session, _ client: Client) async throws -> String {
    let status = try await session.call(.serverStatus, WireEmpty())
    let workers = try await session.call(.workerStats, WireWorkerIds()).workers
    return StatusRendering.text(status, address: client.address, now: Moment.now(), client.style) + "\n"
      + WorkerRendering.statsTable(workers).rendered(client.style)
  }
}
