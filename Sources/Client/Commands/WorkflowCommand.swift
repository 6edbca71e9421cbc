import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq workflow`.
struct WorkflowCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "workflow", "Collections of steps that belong together.", example: "scitq workflow list",
    subcommands: [
      List.self, Create.self, Show.self, Update.self, Start.self, Suspend.self, Resume.self, Cancel.self,
      Wait.self, Cost.self, Delete.self,
    ])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List workflows, the newest first.",
      example: "scitq workflow list\nscitq workflow list --name 'meta%' --status RF")

    @OptionGroup var globals: Globals
    @Option(help: "Only workflows of this name; % stands for anything.") var name: String?
    @Option(help: "Only workflows with this status: letters of I R Z S F X.", transform: Values.statuses)
    var status: [[TaskStatus]] = []
    @Option(help: "At most so many.", transform: Values.positiveCount) var limit = 20

    func run(_ client: Client) async throws {
      var request = WireListWorkflows()
      request.name = name ?? ""
      request.statuses = Set(status.joined().map(\.rawValue)).sorted().joined()
      let (first, limit) = (request, limit)
      let flows = try await client.connected { session in
        var request = first
        var flows: [WireWorkflow] = []
        while flows.count < limit {
          request.limit = UInt32(min(1000, limit - flows.count))
          let answer = try await session.call(.listWorkflows, request)
          flows += answer.workflows
          guard answer.nextBeforeID > 0, !answer.workflows.isEmpty else { break }
          request.beforeID = answer.nextBeforeID
        }
        return flows
      }
      switch client.format {
      case .text: try client.put(FlowRendering.table(flows).rendered(client.style))
      case .json: try client.put(JSON.lines(flows.map(FlowRendering.json)) + "\n")
      case .quiet: try client.put(flows.map { "\($0.id)\n" }.joined())
      }
    }
  }

  struct Create: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "create", "Create a workflow. It runs at once, unless it is a draft or its strategy is Z.",
      example:
        "scitq workflow create --name myworkflow --run-strategy B --maximum-workers 50 --maximum-cost 20"
    )

    @OptionGroup var globals: Globals
    @Option(help: "Its name.") var name: String
    @Option(
      name: .customLong("run-strategy"),
      help:
        "B: finish a step before the next (the default); T: drive each thread deep; D: debug; Z: suspended.",
      transform: WorkflowCommand.strategy)
    var runStrategy: RunStrategy?
    @Option(
      name: .customLong("maximum-workers"), help: "The most workers it may have.", transform: Values.count)
    var maximumWorkers: UInt32?
    @Option(
      name: .customLong("maximum-cost"),
      help: "When so much was spent on rented hosts, nothing more is rented for it; 0: no limit.",
      transform: Values.cost)
    var maximumCost: Double?
    @Option(help: "Its share beside its owner's other workflows (default: 1).", transform: Values.weight)
    var weight: Double?
    @Flag(help: "Nothing of it becomes real until 'workflow start'.") var draft = false

    func run(_ client: Client) async throws {
      var request = WireCreateWorkflow()
      request.idempotencyKey = TaskSubmission.key()
      request.name = name
      request.strategy = runStrategy?.rawValue ?? ""
      request.maximumWorkers = maximumWorkers ?? 0
      request.maximumCost = maximumCost ?? 0
      request.weight = weight ?? 0
      request.draft = draft
      let asked = request
      let flow = try await client.connected { try await $0.call(.createWorkflow, asked) }
      try client.put(
        text: "workflow \(flow.id) created\n", json: FlowRendering.json(flow), quiet: "\(flow.id)\n")
    }
  }

  static func strategy(_ text: String) throws(TextProblem) -> RunStrategy {
    guard let strategy = RunStrategy(rawValue: text.uppercased()) else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no run strategy; give B (batch-wise), T (thread-wise), D (debug) or Z (suspended)"
      )
    }
    return strategy
  }

  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show a workflow.", example: "scitq workflow show --id 3")

    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow

    func run(_ client: Client) async throws {
      let flow = try await client.connected { session in
        let id = try await one.resolve(session)
        return try await session.call(.getWorkflow, .with { $0.id = id })
      }
      switch client.format {
      case .text: try client.put(FlowRendering.block(flow, client.style))
      case .json: try client.put(FlowRendering.json(flow).pretty + "\n")
      case .quiet: try client.put("\(flow.id)\n")
      }
    }
  }

  struct Update: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "update", "Change a workflow.",
      example: "scitq workflow update --id 3 --maximum-workers 20 --run-strategy T")

    @OptionGroup var globals: Globals
    @Option(help: "The workflow's id.", transform: Values.id) var id: Int64
    @Option(help: "A new name.") var name: String?
    @Option(name: .customLong("run-strategy"), help: "B, T or D.", transform: WorkflowCommand.strategy)
    var runStrategy: RunStrategy?
    @Option(
      name: .customLong("maximum-workers"), help: "The most workers it may have; 0: no limit.",
      transform: Values.count)
    var maximumWorkers: UInt32?
    @Option(
      name: .customLong("maximum-cost"),
      help: "When so much was spent on rented hosts, nothing more is rented for it; 0: no limit.",
      transform: Values.cost)
    var maximumCost: Double?
    @Option(
      help: "Its share beside its owner's other workflows; above 1 takes an admin.", transform: Values.weight)
    var weight: Double?

    mutating func validate() throws {
      if name == nil, runStrategy == nil, maximumWorkers == nil, maximumCost == nil, weight == nil {
        throw ValidationError(
          "nothing is to be changed; give --name, --run-strategy, --maximum-workers, --maximum-cost or --weight"
        )
      }
    }

    func run(_ client: Client) async throws {
      var request = WireUpdateWorkflow()
      request.id = id
      if let name { request.name = name }
      if let runStrategy { request.strategy = runStrategy.rawValue }
      if let maximumWorkers { request.maximumWorkers = maximumWorkers }
      if let maximumCost { request.maximumCost = maximumCost }
      if let weight { request.weight = weight }
      let asked = request
      let flow = try await client.connected { try await $0.call(.updateWorkflow, asked) }
      try client.put(
        text: "workflow \(flow.id) updated\n", json: FlowRendering.json(flow), quiet: "\(flow.id)\n")
    }
  }

  struct Start: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "start", "Make a draft real, whole; or launch a workflow that was made with the strategy Z.",
      example: "scitq workflow start --id 3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow
    func run(_ client: Client) async throws { try await one.act(.start, "started", client) }
  }

  struct Suspend: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "suspend", "Start nothing more of a workflow, and pause what runs.",
      example: "scitq workflow suspend --id 3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow
    func run(_ client: Client) async throws { try await one.act(.suspend, "suspended", client) }
  }

  struct Resume: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "resume", "Let a suspended workflow go on.", example: "scitq workflow resume --id 3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow
    func run(_ client: Client) async throws { try await one.act(.resume, "resumed", client) }
  }

  struct Cancel: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "cancel", "End all tasks of a workflow; it takes no more.", example: "scitq workflow cancel --id 3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow
    func run(_ client: Client) async throws { try await one.act(.cancel, "canceled", client) }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete",
      "Delete a workflow with its steps, tasks and logs; what runs is ended. This cannot be undone.",
      example: "scitq workflow delete --id 3")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneWorkflow
    func run(_ client: Client) async throws { try await one.act(.delete, "deleted", client) }
  }

  struct Wait: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "wait", "Wait until nothing in workflows can go on; status 1 unless all succeeded.",
      example: "scitq workflow wait --id 3 --id 4")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("id"), help: "The workflow's id; may be repeated.", transform: Lists.ids)
    var ids: [[Int64]]

    func run(_ client: Client) async throws {
      var unique: Set<Int64> = []
      let ids = ids.flatMap(\.self).filter { unique.insert($0).inserted }
      var told: Set<Int64> = []
      var allSucceeded = true
      try await Persistence(client).until { session in
        for try await flow in session.connection.feed(.waitWorkflows, .with { $0.ids = ids }) {
          guard told.insert(flow.id).inserted else { continue }
          allSucceeded = allSucceeded && flow.status == TaskStatus.succeeded.rawValue
          try client.put(
            text: FlowRendering.ending(flow) + "\n", json: FlowRendering.json(flow), quiet: "\(flow.id)\n")
        }
      }
      if !allSucceeded { throw ExitCode(1) }
    }
  }
}

/// The workflow that a verb is for.
struct OneWorkflow: ParsableArguments {
  @Option(help: "The workflow's id.", transform: Values.id) var id: Int64?
  @Option(help: "The workflow's name, instead of its id.") var name: String?

  mutating func validate() throws {
    guard (id == nil) != (name == nil) else {
      throw ValidationError("which workflow? give either --id or --name")
    }
  }

  func resolve(_ session: Session) async throws -> Int64 {
    if let id { return id }
    return try await session.workflow(named: name ?? "")
  }

  func act(_ verb: WireFlowVerb, _ done: String, _ client: Client) async throws {
    let flow = try await client.connected { session in
      let id = try await resolve(session)
      return try await session.call(.actOnWorkflow, .with { ($0.id, $0.verb) = (id, verb) })
    }
    try client.put(
      text: "workflow \(flow.id) \(done)\n", json: FlowRendering.json(flow), quiet: "\(flow.id)\n")
  }
}
