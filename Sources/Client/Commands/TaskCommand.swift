import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq task`.
struct TaskCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "task", "The commands that are run.",
    example:
      "scitq task create --container alpine --command 'echo \"hello world\"'\nscitq task list --status RF",
    subcommands: [
      TaskCreate.self, TaskList.self, Show.self, TaskOutput.self, Retry.self, Cancel.self, Wait.self,
      Explain.self, Files.self,
    ])

  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show everything that is known of a task.", example: "scitq task show --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      let task = try await client.connected { session in
        try await session.call(.getTask, .with { $0.id = id })
      }
      switch client.format {
      case .text: try client.put(TaskRendering.block(task, now: Moment.now(), client.style))
      case .json: try client.put(TaskRendering.json(task).pretty + "\n")
      case .quiet: try client.put("\(task.id)\n")
      }
    }
  }

  struct Retry: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "retry", "Run a failed or canceled task again, as a new task.",
      example: "scitq task retry --id 12\nscitq task retry --id 12 --retry 3")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id.", transform: Values.id) var id: Int64
    @Option(help: "How often the new task may be retried by itself.", transform: Values.count) var retry:
      UInt32?
    @Flag(help: "Also when the task succeeded.") var force = false

    func run(_ client: Client) async throws {
      var request = WireRetryTask()
      request.id = id
      request.force = force
      if let retry {
        request.retry = retry
        request.hasRetry_p = true
      }
      let asked = request
      let new = try await client.connected { try await $0.call(.retryTask, asked) }.firstID
      try client.put(
        text: "task \(id) retried as task \(new)\n",
        json: .object([.init("id", .integer(new)), .init("previous_task_id", .integer(id))]),
        quiet: "\(new)\n")
    }
  }

  struct Cancel: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "cancel", "End tasks: what waits is canceled at once, what runs is stopped.",
      example: "scitq task cancel --id 12 --id 13")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("id"), help: "The task's id; may be repeated.", transform: Lists.ids)
    var ids: [[Int64]]

    func run(_ client: Client) async throws {
      let ids = ids.flatMap(\.self)
      let refused = try await client.connected { session in
        var refused = 0
        for id in ids {
          // One that has ended already is no reason to let the others run on.
          do {
            let task = try await session.call(
              .actOnTask,
              .with {
                $0.id = id
                $0.verb = .cancel
              }
            ).task
            let done = task.status == TaskStatus.canceled.rawValue
            try client.put(
              text: done ? "task \(id) canceled\n" : "task \(id) is being canceled\n",
              json: TaskRendering.json(task), quiet: "\(id)\n")
          } catch let error as CallError
            where [.conflict, .notFound, .invalid].contains(error.code) && ids.count > 1
          {
            refused += 1
            try client.note("scitq: \(error)")
          }
        }
        return refused
      }
      if refused > 0 { throw Failure("\(refused) of \(ids.count) tasks were not canceled") }
    }
  }

  struct Wait: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "wait", "Wait until tasks have ended for good; status 1 unless all succeeded.",
      example: "scitq task wait --id 12 --id 13")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("id"), help: "The task's id; may be repeated.", transform: Lists.ids)
    var ids: [[Int64]]

    func run(_ client: Client) async throws {
      try await TaskWaiting(client).run(ids.flatMap(\.self))
    }
  }

  struct Files: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "files", "List the files that a task has read and written, with sizes and hashes.",
      example: "scitq task files --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      let files = try await client.connected { session in
        try await session.call(.taskFiles, .with { $0.id = id })
      }
      let all = files.inputs.map { ("input", $0) } + files.outputs.map { ("output", $0) }
      switch client.format {
      case .text: try client.put(FileRendering.table(all).rendered(client.style))
      case .json: try client.put(JSON.lines(all.map(FileRendering.json)) + "\n")
      case .quiet: try client.put(all.map { Escaping.printable($0.1.uri) + "\n" }.joined())
      }
    }
  }

  struct Explain: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "explain", "Say in one sentence why a task is where it is.", example: "scitq task explain --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id.", transform: Values.id) var id: Int64

    func run(_ client: Client) async throws {
      let id = id
      let answer = try await client.connected { session in
        try await session.call(.explainTask, .with { $0.id = id })
      }
      try client.put(
        text: Escaping.printableLines(answer.sentence) + "\n",
        json: .object([.init("id", .integer(id)), .init("sentence", .string(answer.sentence))]),
        quiet: "\(id)\n")
    }
  }
}
