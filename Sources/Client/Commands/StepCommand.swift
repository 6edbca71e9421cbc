import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq step`.
struct StepCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "step", "Parts of workflows: tasks that ask for the same environment, and the workers that serve them.",
    example: "scitq step list --workflow-id 3",
    subcommands: [
      List.self, Create.self, Show.self, Update.self, Suspend.self, Resume.self, Cancel.self, Stats.self,
      Delete.self,
    ])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List the steps of a workflow, or of all.", example: "scitq step list --workflow-id 3")

    @OptionGroup var globals: Globals
    @OptionGroup var workflow: WorkflowChoice

    func run(_ client: Client) async throws {
      let steps = try await client.connected { session in
        let id = try await workflow.resolve(session)
        return try await session.call(.listSteps, .with { $0.workflowID = id ?? 0 })
      }.steps
      switch client.format {
      case .text: try client.put(FlowRendering.table(steps).rendered(client.style))
      case .json: try client.put(JSON.lines(steps.map(FlowRendering.json)) + "\n")
      case .quiet: try client.put(steps.map { "\($0.id)\n" }.joined())
      }
    }
  }

  struct Create: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "create", "Create a step in a workflow.",
      example: "scitq step create --workflow-name myworkflow --name quality_control")

    @OptionGroup var globals: Globals
    @OptionGroup var workflow: WorkflowChoice
    @Option(help: "Its name, of its own in the workflow.") var name: String

    mutating func validate() throws {
      if !workflow.isGiven {
        throw ValidationError("the workflow is missing; give --workflow-id or --workflow-name")
      }
    }

    func run(_ client: Client) async throws {
      let key = TaskSubmission.key()
      let step = try await client.connected { session in
        let id = try await workflow.required(session)
        return try await session.call(
          .createStep, .with { ($0.idempotencyKey, $0.workflowID, $0.name) = (key, id, name) })
      }
      try client.put(text: "step \(step.id) created\n", json: FlowRendering.json(step), quiet: "\(step.id)\n")
    }
  }

  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show a step.", example: "scitq step show --id 14")

    @OptionGroup var globals: Globals
    @Option(help: "The step's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      let step = try await client.connected { try await $0.call(.getStep, .with { $0.id = id }) }
      switch client.format {
      case .text: try client.put(FlowRendering.block(step, client.style))
      case .json: try client.put(FlowRendering.json(step).pretty + "\n")
      case .quiet: try client.put("\(step.id)\n")
      }
    }
  }

  struct Update: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "update", "Rename a step.", example: "scitq step update --id 14 --name trimming")

    @OptionGroup var globals: Globals
    @Option(help: "The step's id.", transform: Values.id) var id: Int64
    @Option(help: "Its new name.") var name: String

    func run(_ client: Client) async throws {
      let (id, name) = (id, name)
      let step = try await client.connected {
        try await $0.call(.updateStep, .with { ($0.id, $0.name) = (id, name) })
      }
      try client.put(text: "step \(step.id) updated\n", json: FlowRendering.json(step), quiet: "\(step.id)\n")
    }
  }

  struct Suspend: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "suspend", "Start nothing more of a step, and pause what runs.", example: "scitq step suspend --id 14")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneStep
    func run(_ client: Client) async throws { try await one.act(.suspend, "suspended", client) }
  }

  struct Resume: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "resume", "Let a suspended step go on.", example: "scitq step resume --id 14")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneStep
    func run(_ client: Client) async throws { try await one.act(.resume, "resumed", client) }
  }

  struct Cancel: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "cancel", "End all tasks of a step.", example: "scitq step cancel --id 14")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneStep
    func run(_ client: Client) async throws { try await one.act(.cancel, "canceled", client) }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete", "Delete a step with its tasks and logs; what runs is ended.",
      example: "scitq step delete --id 14")
    @OptionGroup var globals: Globals
    @OptionGroup var one: OneStep
    func run(_ client: Client) async throws { try await one.act(.delete, "deleted", client) }
  }

  struct Stats: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "stats",
      "Show how many tasks of steps stand where, and how long each phase took: average [least–most] total.",
      example: "scitq step stats --workflow-name myworkflow --totals")

    @OptionGroup var globals: Globals
    @OptionGroup var workflow: WorkflowChoice
    @Option(
      name: .customLong("step-id"), help: "Only these steps: ids with commas between, or repeated.",
      transform: Lists.ids)
    var stepIDs: [[Int64]] = []
    @Option(name: .customLong("task-name"), help: "Only steps that have a task with this in its name.")
    var taskName: String?
    @Flag(help: "Add a line with the sums, elapsed and cumulated time.") var totals = false

    func run(_ client: Client) async throws {
      let ids = stepIDs.flatMap(\.self)
      let steps = try await client.connected { session in
        let id = try await workflow.resolve(session)
        return try await session.call(
          .stepStats,
          .with {
            $0.workflowID = id ?? 0
            $0.stepIds = ids
            $0.taskName = taskName ?? ""
          })
      }.steps
      let now = Moment.now()
      switch client.format {
      case .text:
        try client.put(
          StepStatsRendering.table(steps, totals: totals, now: now, client.style).rendered(client.style))
      case .json: try client.put(StepStatsRendering.json(steps, totals: totals, now: now).pretty + "\n")
      case .quiet: try client.put(steps.map { "\($0.stepID)\n" }.joined())
      }
    }
  }
}

/// The step that a verb is for.
struct OneStep: ParsableArguments {
  @Option(help: "The step's id.", transform: Values.id) var id: Int64

  func act(_ verb: WireFlowVerb, _ done: String, _ client: Client) async throws {
    let id = id
    let step = try await client.connected { session in
      try await session.call(.actOnStep, .with { ($0.id, $0.verb) = (id, verb) })
    }
    try client.put(text: "step \(step.id) \(done)\n", json: FlowRendering.json(step), quiet: "\(step.id)\n")
  }
}
