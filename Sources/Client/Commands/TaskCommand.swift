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
      TaskCreate.self, TaskList.self, Show.self, TaskOutput.self, Retry.self, Cancel.self, Kill.self,
      Suspend.self,
      Resume.self, RunNow.self, Wait.self, Explain.self, Edit.self, Files.self, Delete.self,
    ])

  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show everything that is known of a task, or of a job.",
      example: "scitq task show --id 12\nscitq task show --id 101:3")

    @OptionGroup var globals: Globals
    @Option(help: "The id of a task or job, or JOB:INDEX.", transform: TaskReference.init) var id:
      TaskReference

    func run(_ client: Client) async throws {
      let asked = id.wire
      let found = try await client.connected { try await $0.call(.findTask, asked) }
      if case .job(let job)? = found.found {
        switch client.format {
        case .text: try client.put(FlowRendering.block(job, client.style))
        case .json: try client.put(FlowRendering.json(job).pretty + "\n")
        case .quiet: try client.put("\(job.id)\n")
        }
        return
      }
      let task = found.task
      switch client.format {
      case .text: try client.put(TaskRendering.block(task, now: Moment.now(), client.style))
      case .json: try client.put(TaskRendering.json(task).pretty + "\n")
      case .quiet: try client.put("\(task.id)\n")
      }
    }
  }

  struct Wait: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "wait", "Wait until tasks have ended for good; status 1 unless all succeeded.",
      example: "scitq task wait --id 12 --id 13")

    @OptionGroup var globals: Globals
    @Option(
      name: .customLong("id"), help: "The id of a task or job, or JOB:INDEX; may be repeated.",
      transform: TaskReference.list)
    var references: [[TaskReference]]

    func run(_ client: Client) async throws {
      let references = references.flatMap(\.self)
      var ids: [Int64] = []
      if references.contains(where: { $0.index != nil }) {
        ids = try await client.connected { session in
          var ids: [Int64] = []
          for reference in references { ids.append(try await session.resolve(reference)) }
          return ids
        }
      } else {
        ids = references.map(\.id)
      }
      try await TaskWaiting(client).run(ids)
    }
  }

  struct Files: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "files", "List the files that a task has read and written, with sizes and hashes.",
      example: "scitq task files --id 12")

    @OptionGroup var globals: Globals
    @Option(help: "The task's id, or JOB:INDEX.", transform: TaskReference.init) var id: TaskReference

    func run(_ client: Client) async throws {
      let files = try await client.connected { session in
        let id = try await session.resolve(id)
        return try await session.call(.taskFiles, .with { $0.id = id })
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
    @Option(help: "The id of a task or job, or JOB:INDEX.", transform: TaskReference.init) var id:
      TaskReference

    func run(_ client: Client) async throws {
      let reference = id
      let (id, answer) = try await client.connected { session in
        let id = try await session.resolve(reference)
        return (id, try await session.call(.explainTask, .with { $0.id = id }))
      }
      try client.put(
        text: Escaping.printableLines(answer.sentence) + "\n",
        json: .object([.init("id", .integer(id)), .init("sentence", .string(answer.sentence))]),
        quiet: "\(id)\n")
    }
  }
}
