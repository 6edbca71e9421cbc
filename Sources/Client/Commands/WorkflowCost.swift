import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

extension WorkflowCommand {
  struct Cost: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "cost",
      """
      Show what rented hosts have cost, in the currency of their prices: for a workflow, or for all. \
      With --quiet lines of KIND ID COST, '-' where there is no id, the total last.
      """,
      example: "scitq workflow cost\nscitq workflow cost --name myworkflow")

    @OptionGroup var globals: Globals
    @Option(help: "The workflow's id.", transform: Values.id) var id: Int64?
    @Option(help: "The workflow's name, instead of its id.") var name: String?

    mutating func validate() throws {
      if id != nil, name != nil {
        throw ValidationError("--id and --name exclude each other; give one of them")
      }
    }

    func run(_ client: Client) async throws {
      let costs = try await client.connected { session in
        var workflow = id ?? 0
        if let name { workflow = try await session.workflow(named: name) }
        let asked = workflow
        return try await session.call(.readCost, .with { $0.workflowID = asked })
      }
      switch client.format {
      case .text: try client.put(FleetRendering.table(costs).rendered(client.style))
      case .json: try client.put(FleetRendering.json(costs).pretty + "\n")
      case .quiet: try client.put(FleetRendering.lines(costs))
      }
    }
  }
}
