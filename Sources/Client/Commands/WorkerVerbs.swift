import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// The workers that a verb is for.
struct SomeWorkers: ParsableArguments {
  @Option(
    name: [.customLong("worker-id"), .customLong("id")], help: "The worker's id; may be repeated.",
    transform: Lists.ids)
  var workerIDs: [[Int64]]

  var ids: [Int64] { workerIDs.flatMap(\.self) }

  func act(_ verb: WireWorkerVerb, running: Bool = false, _ client: Client) async throws {
    let ids = ids
    let workers = try await client.connected { session in
      try await session.call(.actOnWorkers, .with { ($0.ids, $0.verb, $0.running) = (ids, verb, running) })
    }.workers
    try Self.put(workers, client)
  }

  static func put(_ workers: [WireWorker], _ client: Client) throws {
    for worker in workers {
      try client.put(
        text: "worker \(worker.id) (\(Escaping.printable(worker.name))) is \(worker.status)\n",
        json: WorkerRendering.json(worker), quiet: "\(worker.id)\n")
    }
  }
}

extension WorkerCommand {
  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show everything that is known of a worker.", example: "scitq worker show --worker-id 12")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")], help: "The worker's id.", transform: Values.id)
    var workerID: Int64

    func run(_ client: Client) async throws {
      let workers = try await client.connected { try await $0.call(.listWorkers, WireListWorkers()) }.workers
      guard let worker = workers.first(where: { $0.id == workerID }) else {
        throw Failure("worker \(workerID) does not exist; 'scitq worker list' shows those that do")
      }
      switch client.format {
      case .text: try client.put(WorkerRendering.block(worker, client.style))
      case .json: try client.put(WorkerRendering.json(worker).pretty + "\n")
      case .quiet: try client.put("\(worker.id)\n")
      }
    }
  }

  struct Explain: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "explain", "Say in one sentence why a worker has nothing more to do than it has.",
      example: "scitq worker explain --worker-id 12")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")], help: "The worker's id.", transform: Values.id)
    var workerID: Int64

    func run(_ client: Client) async throws {
      let id = workerID
      let answer = try await client.connected { try await $0.call(.explainWorker, .with { $0.id = id }) }
      try client.put(
        text: Escaping.printableLines(answer.sentence) + "\n",
        json: .object([.init("id", .integer(id)), .init("sentence", .string(answer.sentence))]),
        quiet: "\(id)\n")
    }
  }

  struct Update: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "update", "Give workers another step, scope, concurrency or prefetch.",
      example:
        "scitq worker update --worker-id 12 --step-id 14 --concurrency 4\nscitq worker update --worker-id 12 --scope G"
    )

    @OptionGroup var globals: Globals
    @OptionGroup var workers: SomeWorkers
    @Option(name: .customLong("step-id"), help: "The step that they serve.", transform: Values.id) var stepID:
      Int64?
    @Flag(name: .customLong("no-step"), help: "They serve tasks without a step.") var noStep = false
    @Option(help: "How many tasks run at once.", transform: Values.count) var concurrency: UInt32?
    @Option(help: "How many more are made ready meanwhile.", transform: Values.count) var prefetch: UInt32?
    @Option(
      help: "What they may be used for: N or T their step alone, W all of its workflow, G everything.",
      transform: WorkerCommand.scope)
    var scope: WorkerScope?
    @Flag(inversion: .prefixedNo, help: "They are never returned to whoever rents them out.") var permanent:
      Bool?

    mutating func validate() throws {
      if stepID != nil, noStep { throw ValidationError("--step-id and --no-step exclude each other") }
      if stepID == nil, !noStep, concurrency == nil, prefetch == nil, scope == nil, permanent == nil {
        throw ValidationError(
          "nothing is to be changed; give --step-id, --no-step, --scope, --concurrency, --prefetch or --permanent"
        )
      }
    }

    func run(_ client: Client) async throws {
      var request = WireUpdateWorker()
      request.ids = workers.ids
      if let stepID { request.stepID = stepID }
      if noStep { request.stepID = 0 }
      if let concurrency { request.concurrency = concurrency }
      if let prefetch { request.prefetch = prefetch }
      if let scope { request.scope = scope.rawValue }
      if let permanent { request.permanent = permanent }
      let asked = request
      let changed = try await client.connected { try await $0.call(.updateWorkers, asked) }.workers
      for worker in changed {
        try client.put(
          text: "worker \(worker.id) updated\n", json: WorkerRendering.json(worker), quiet: "\(worker.id)\n")
      }
    }
  }

  static func scope(_ text: String) throws(TextProblem) -> WorkerScope {
    guard let scope = WorkerScope(rawValue: text.uppercased()) else {
      throw TextProblem("'\(Escaping.printable(text))' is no scope; give N, T, W or G")
    }
    return scope
  }

  struct Drain: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "drain", "Let workers finish what runs, and give them nothing more.",
      example: "scitq worker drain --worker-id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var workers: SomeWorkers
    func run(_ client: Client) async throws { try await workers.act(.drain, client) }
  }

  struct Pause: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "pause", "Give workers nothing for now; what runs goes on, unless --running.",
      example: "scitq worker pause --worker-id 12 --running")
    @OptionGroup var globals: Globals
    @OptionGroup var workers: SomeWorkers
    @Flag(help: "Pause what runs as well.") var running = false
    func run(_ client: Client) async throws { try await workers.act(.pause, running: running, client) }
  }

  struct Resume: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "resume", "Give workers tasks again that were drained, paused or quarantined.",
      example: "scitq worker resume --worker-id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var workers: SomeWorkers
    func run(_ client: Client) async throws { try await workers.act(.resume, client) }
  }

  struct Events: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "events", "Show what happened to a worker.", example: "scitq worker events --worker-id 12 --follow")

    @OptionGroup var globals: Globals
    @Option(
      name: [.customLong("worker-id"), .customLong("id")], help: "The worker's id.", transform: Values.id)
    var workerID: Int64
    @Flag(help: "Go on with what happens from now.") var follow = false

    func run(_ client: Client) async throws {
      var request = WireReadEvents()
      request.object = "worker"
      request.id = workerID
      request.follow = follow
      if follow { try await tellWhatStandsInTheWay(client) }
      try await EventPrinting(client).run(request)
      if !follow { try await tellWhatStandsInTheWay(client) }
    }

    /// What has happened does not say what does not happen.
    private func tellWhatStandsInTheWay(_ client: Client) async throws {
      guard client.format == .text else { return }
      let workers = try await client.connected { try await $0.call(.listWorkers, WireListWorkers()) }.workers
      for note in WorkerRendering.notes(workers.filter { $0.id == workerID }) { try client.note(note) }
    }
  }
}
