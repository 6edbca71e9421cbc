import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq worker`.
struct WorkerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "worker", "The compute units that run tasks.", example: "scitq worker list",
    subcommands: [
      List.self, Show.self, Explain.self, Deploy.self, Update.self, Drain.self, Pause.self, Resume.self,
      Events.self, Stats.self, Clean.self, Delete.self,
    ])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List all workers that the server knows.",
      example: "scitq worker list\nscitq worker list --cost")

    @OptionGroup var globals: Globals
    @Flag(help: "Show what their hosts cost an hour, and have cost until now.") var cost = false

    func run(_ client: Client) async throws {
      let workers = try await client.connected { try await $0.call(.listWorkers, WireListWorkers()) }.workers
      switch client.format {
      case .text:
        try client.put(WorkerRendering.table(workers, cost: cost).rendered(client.style))
        for note in WorkerRendering.notes(workers) { try client.note(note) }
      case .json: try client.put(JSON.lines(workers.map(WorkerRendering.json)) + "\n")
      case .quiet: try client.put(workers.map { "\($0.id)\n" }.joined())
      }
    }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete", "Delete workers: what had not started goes to others, what runs is lost.",
      example: "scitq worker delete --worker-id 12\nscitq worker delete --worker-id 12 --undeployed")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")], help: "The worker's id; may be repeated.",
      transform: Lists.ids)
    var workerIDs: [[Int64]]
    @Flag(help: "Their hosts are gone already: forget them without asking their providers.") var undeployed =
      false

    func run(_ client: Client) async throws {
      let (ids, undeployed) = (workerIDs.flatMap(\.self), undeployed)
      _ = try await client.connected { session in
        try await session.call(.deleteWorkers, .with { ($0.ids, $0.undeployed) = (ids, undeployed) })
      }
      for id in ids {
        try client.put(
          text: "worker \(id) deleted\n", json: .object([.init("id", .integer(id))]), quiet: "\(id)\n")
      }
    }
  }

  struct Clean: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "clean", "Remove what no task uses from workers: resources kept for later, and left-over files.",
      example: "scitq worker clean\nscitq worker clean --worker-id 12")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")],
      help: "The worker's id; may be repeated; all connected workers without.",
      transform: Lists.ids)
    var workerIDs: [[Int64]] = []

    func run(_ client: Client) async throws {
      let ids = workerIDs.flatMap(\.self)
      let workers = try await client.connected { session in
        try await session.call(.cleanWorkers, .with { $0.ids = ids })
      }.workers
      switch client.format {
      case .text:
        let lines = workers.map {
          "worker \(Escaping.printable($0.name)): \(Quantity.bytes($0.freedBytes)) freed, \($0.removed) removed\n"
        }
        try client.put(lines.joined())
      case .json: try client.put(JSON.lines(workers.map(WorkerRendering.cleanedJSON)) + "\n")
      case .quiet: try client.put(workers.map { "\($0.workerID)\n" }.joined())
      }
    }
  }

  struct Stats: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "stats", "Show what workers use of their hosts.",
      example: "scitq worker stats --worker-id 12 --worker-id 13")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")],
      help: "The worker's id; may be repeated; all workers without.",
      transform: Lists.ids)
    var workerIDs: [[Int64]] = []

    func run(_ client: Client) async throws {
      let ids = workerIDs.flatMap(\.self)
      let workers = try await client.connected { session in
        try await session.call(.workerStats, .with { $0.ids = ids })
      }.workers
      switch client.format {
      case .text: try client.put(WorkerRendering.statsTable(workers).rendered(client.style))
      case .json: try client.put(JSON.lines(workers.map(WorkerRendering.statsJSON)) + "\n")
      case .quiet: try client.put(workers.map { "\($0.workerID)\n" }.joined())
      }
    }
  }
}

/// Flags that take several values, repeated or with commas between.
enum Lists {
  static func ids(_ text: String) throws(TextProblem) -> [Int64] {
    var ids: [Int64] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      ids.append(try Values.id(String(part)))
    }
    return ids
  }
}
