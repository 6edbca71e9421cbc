import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq flavor`.
struct FlavorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "flavor", "The kinds of hosts that can be rented.",
    example: "scitq flavor list --filter 'cpu>32:mem>=10:disk<1000'",
    subcommands: [List.self, Enable.self, Disable.self])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List flavors, the cheapest first; without a word on eviction, those with eviction<=5.",
      example: """
        scitq flavor list --filter 'cpu>32:mem>=10:disk<1000'
        scitq flavor list --limit 3 --filter 'provider~%azure%:region~%swed%:gpumem>=10:eviction<50'
        """)

    @OptionGroup var globals: Globals
    @Option(help: "At most so many.", transform: Values.positive) var limit: UInt32 = 10
    @Option(help: "Only flavors that pass: conditions such as cpu>=8 or region~%swed%, with ':' between.")
    var filter: String?

    func run(_ client: Client) async throws {
      let (limit, filter) = (limit, filter ?? "")
      let list = try await client.connected { session in
        try await session.call(.listFlavors, .with { ($0.limit, $0.filter) = (limit, filter) })
      }
      let flavors = list.flavors
      switch client.format {
      case .text: try client.put(FleetRendering.table(flavors).rendered(client.style))
      case .json: try client.put(JSON.lines(flavors.map(FleetRendering.json)) + "\n")
      case .quiet: try client.put(flavors.map { Escaping.printable($0.name) + "\n" }.joined())
      }
      if flavors.isEmpty { try client.note(FleetRendering.noFlavor(filtered: self.filter != nil)) }
      for note in list.notes { try client.note(Escaping.printable(note)) }
    }
  }

  struct Enable: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "enable",
      "Let a flavor be bought that was disabled, and forget what went wrong with it and in its regions.",
      example: "scitq flavor enable --provider azure.primary --flavor Standard_D8s_v3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneFlavor
    func run(_ client: Client) async throws { try await one.enable(true, client) }
  }

  struct Disable: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "disable", "Buy a flavor no more; the workers that have it stay.",
      example: "scitq flavor disable --provider azure.primary --flavor Standard_D8s_v3 --region swedencentral"
    )
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneFlavor
    func run(_ client: Client) async throws { try await one.enable(false, client) }
  }
}

/// The flavor that a verb is for: of one region, or of all.
struct OneFlavor: ParsableArguments {
  @Option(help: "The provider and its configuration, such as azure.primary.") var provider: String
  @Option(help: "The flavor's name.") var flavor: String
  @Option(help: "Only in this region (default: in all).") var region: String?

  func enable(_ enabled: Bool, _ client: Client) async throws {
    var request = WireEnableFlavor()
    (request.provider, request.name) = (provider, flavor)
    (request.region, request.enabled) = (region ?? "", enabled)
    let asked = request
    let answer = try await client.connected { try await $0.call(.enableFlavor, asked) }
    try client.put(
      text: FleetRendering.enabled(asked, answer) + "\n",
      json: .object([
        .init("provider", .string(provider)), .init("flavor", .string(flavor)),
        .init("region", .text(region ?? "")), .init("enabled", .bool(enabled)),
        .init("changed", .integer(Int64(answer.changed))), .init("forgotten", .strings(answer.forgotten)),
      ]), quiet: "\(Escaping.printable(flavor))\n")
  }
}
