import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// The tasks or jobs that a verb is for.
struct SomeTasks: ParsableArguments {
  @Option(
    name: .customLong("id"), help: "The id of a task or job, or JOB:INDEX; may be repeated.",
    transform: TaskReference.list)
  var references: [[TaskReference]]

  /// Does it to each. One that it does not fit is no reason to leave the others as they are.
  func act(
    _ verb: WireTaskVerb, release: Bool = false, doing: (_ id: Int64, _ done: WireActedOnTasks) -> String,
    _ participle: String, _ client: Client
  ) async throws {
    let references = references.flatMap(\.self)
    let refused = try await client.connected { session in
      var refused = 0
      for reference in references {
        do {
          let id = try await session.resolve(reference)
          let found = try await session.call(.findTask, .with { $0.id = id }).found
          let isJob = if case .job? = found { true } else { false }
          let done = try await session.call(
            .actOnTask, .with { ($0.id, $0.verb, $0.release) = (id, verb, release) })
          let sentence = isJob ? job(id, done, participle) : doing(id, done)
          try client.put(
            text: sentence + "\n",
            json: done.hasTask
              ? TaskRendering.json(done.task)
              : .object([.init("id", .integer(id)), .init("count", .integer(done.count))]),
            quiet: "\(id)\n")
        } catch let error as CallError
          where [.conflict, .notFound, .invalid].contains(error.code) && references.count > 1
        {
          refused += 1
          try client.note("scitq: \(error)")
        }
      }
      return refused
    }
    if refused > 0 { throw Failure("\(refused) of \(references.count) were not \(participle)") }
  }

  private func job(_ id: Int64, _ done: WireActedOnTasks, _ participle: String) -> String {
    "\(done.count) \(done.count == 1 ? "task" : "tasks") of job \(id) \(participle)"
  }
}

extension TaskCommand {
  struct Cancel: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "cancel", "End tasks: what waits is canceled at once, what runs is stopped.",
      example: "scitq task cancel --id 12 --id 13\nscitq task cancel --id 101:3")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    func run(_ client: Client) async throws {
      try await tasks.act(.cancel, doing: TaskRendering.canceling, "canceled", client)
    }
  }

  struct Kill: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "kill", "End tasks at once: what runs gets SIGKILL, and no time to end by itself.",
      example: "scitq task kill --id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    func run(_ client: Client) async throws {
      try await tasks.act(.kill, doing: TaskRendering.canceling, "killed", client)
    }
  }

  struct Suspend: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "suspend", "Suspend tasks: what runs is paused where it is, and keeps its slot.",
      example: "scitq task suspend --id 12\nscitq task suspend --id 12 --release")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    @Flag(help: "Give the slot up: what runs is ended, and waits as a new task to be run from its beginning.")
    var release = false
    func run(_ client: Client) async throws {
      try await tasks.act(
        .suspend, release: release,
        doing: { id, done in
          done.task.status == TaskStatus.suspended.rawValue
            ? "task \(id) suspended"
            : release
              ? "task \(id) is being ended; a new task will wait in its place"
              : "task \(id) is being suspended"
        }, "suspended", client)
    }
  }

  struct Resume: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "resume", "Let suspended tasks go on.", example: "scitq task resume --id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    func run(_ client: Client) async throws {
      try await tasks.act(.resume, doing: { id, _ in "task \(id) resumed" }, "resumed", client)
    }
  }

  struct RunNow: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "run-now", "Let one task of a workflow of the strategy D run.", example: "scitq task run-now --id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    func run(_ client: Client) async throws {
      try await tasks.act(.runNow, doing: { id, _ in "task \(id) may run" }, "run", client)
    }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete", "Delete tasks that have ended, with their earlier attempts and logs. This cannot be undone.",
      example: "scitq task delete --id 12")
    @OptionGroup var globals: Globals
    @OptionGroup var tasks: SomeTasks
    func run(_ client: Client) async throws {
      try await tasks.act(.delete, doing: { id, _ in "task \(id) deleted" }, "deleted", client)
    }
  }

  struct Edit: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "edit", "Change a task that no worker has; one that has ended is retried with another command.",
      example: "scitq task edit --id 12 --command 'echo better'\nscitq task edit --id 12 --priority 10")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id, or JOB:INDEX.", transform: TaskReference.init) var id: TaskReference
    @Option(help: "What to run instead.") var command: String?
    @Option(parsing: .unconditional, help: "Tasks with a higher number go first.", transform: Values.priority)
    var priority: Int32?
    @Option(help: "How often it may be retried by itself.", transform: Values.count) var retry: UInt32?

    mutating func validate() throws {
      if command == nil, priority == nil, retry == nil {
        throw ValidationError("nothing is to be changed; give --command, --priority or --retry")
      }
    }

    func run(_ client: Client) async throws {
      try await client.connected { session in
        let id = try await session.resolve(id)
        let task = try await session.call(.getTask, .with { $0.id = id })
        guard TaskStatus(rawValue: task.status)?.isFinal != true else {
          return try await again(task, session, client)
        }
        var request = WireEditTask()
        request.id = id
        if let command { request.command = command }
        if let priority { request.priority = priority }
        if let retry { request.retry = retry }
        let changed = try await session.call(.editTask, request)
        try client.put(text: "task \(id) changed\n", json: TaskRendering.json(changed), quiet: "\(id)\n")
      }
    }

    /// What has ended never changes: a new task takes its place.
    private func again(_ task: WireTask, _ session: Session, _ client: Client) async throws {
      guard let command, priority == nil else {
        throw Failure("task \(task.id) has ended: only --command, and --retry with it, can be given then")
      }
      var request = WireRetryTask()
      request.id = task.id
      request.command = command
      if let retry {
        request.hasRetry_p = true
        request.retry = retry
      }
      let new = try await session.call(.retryTask, request).firstID
      try client.put(
        text: "task \(task.id) retried as task \(new)\n",
        json: .object([.init("id", .integer(new)), .init("previous_task_id", .integer(task.id))]),
        quiet: "\(new)\n")
    }
  }

  struct Retry: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "retry", "Run a failed or canceled task again, as a new task; or all those of a job.",
      example:
        "scitq task retry --id 12\nscitq task retry --id 12 --retry 3\nscitq task retry --id 101 --failed-only"
    )

    @OptionGroup var globals: Globals
    @Option(help: "The id of a task or job, or JOB:INDEX.", transform: TaskReference.init) var id:
      TaskReference
    @Option(help: "How often the new task may be retried by itself.", transform: Values.count) var retry:
      UInt32?
    @Flag(help: "Also when the task succeeded.") var force = false
    @Flag(
      name: .customLong("failed-only"), help: "Of a job: those that failed, not those that were canceled.")
    var failedOnly = false

    func run(_ client: Client) async throws {
      try await client.connected { session in
        let id = try await session.resolve(id)
        var request = WireRetryTask()
        request.id = id
        request.force = force
        request.failedOnly = failedOnly
        if let retry {
          request.retry = retry
          request.hasRetry_p = true
        }
        let asked = request
        let found = try await session.call(.findTask, .with { $0.id = id })
        let done = try await session.call(.retryTask, asked)
        let isJob = if case .job? = found.found { true } else { false }
        let last = done.firstID + done.count - 1
        let tasks =
          done.count == 1
          ? "task of job \(id) retried as task \(last)"
          : "tasks of job \(id) retried as tasks \(done.firstID)–\(last)"
        try client.put(
          text: isJob ? "\(done.count) \(tasks)\n" : "task \(id) retried as task \(done.firstID)\n",
          json: isJob
            ? .object([
              .init("job_id", .integer(id)), .init("first_id", .integer(done.firstID)),
              .init("count", .integer(done.count)),
            ])
            : .object([.init("id", .integer(done.firstID)), .init("previous_task_id", .integer(id))]),
          quiet: (done.firstID...last).map { "\($0)\n" }.joined())
      }
    }
  }
}
