import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

extension WorkerCommand {
  struct Deploy: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "deploy", "Rent hosts and have workers on them.",
      example: """
        scitq worker deploy --provider azure.primary --region swedencentral --flavor Standard_D8s_v3 \
        --count 2 --step 14 --concurrency 4
        """)

    @OptionGroup var globals: Globals
    @Option(help: "The provider and its configuration, such as azure.primary.") var provider: String
    @Option(help: "The flavor's name; 'scitq flavor list' shows those there are.") var flavor: String
    @Option(help: "The region (default: the provider's default one).") var region: String?
    @Option(help: "How many workers.", transform: Values.positive) var count: UInt32 = 1
    @Option(
      name: [.customLong("step"), .customLong("step-id")], help: "The step that they serve.",
      transform: Values.id)
    var step: Int64?
    @Option(help: "How many tasks each runs at once.", transform: Values.positive) var concurrency: UInt32 = 1
    @Option(help: "How many more each makes ready meanwhile.", transform: Values.count) var prefetch: UInt32 =
      0

    /// What is asked for, under a key of its own: an order that is sent again buys nothing twice.
    var request: WireDeployWorkers {
      var request = WireDeployWorkers()
      request.idempotencyKey = TaskSubmission.key()
      request.provider = provider
      request.flavor = flavor
      request.region = region ?? ""
      request.count = count
      request.stepID = step ?? 0
      request.concurrency = concurrency
      request.prefetch = prefetch
      return request
    }

    func run(_ client: Client) async throws {
      let asked = request
      let workers = try await client.connected { try await $0.call(.deployWorkers, asked) }.workers
      switch client.format {
      case .text: try client.put(FleetRendering.deployed(workers))
      case .json: try client.put(JSON.lines(workers.map(FleetRendering.json)) + "\n")
      case .quiet: try client.put(workers.map { "\($0.id)\n" }.joined())
      }
    }
  }
}
