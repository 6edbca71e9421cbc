import ArgumentParser
import ScitqProtocol

/// `scitq task list`.
struct TaskList: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "list", "List tasks, the newest first.",
    example: "scitq task list --status RUV --limit 50\nscitq task list --command 'align%chr7' --show-hidden")

  @OptionGroup var globals: Globals
  @Option(help: "At most so many tasks.", transform: Values.positiveCount) var limit = 20
  @Option(help: "Start after so many tasks.", transform: Values.count) var offset: UInt32 = 0
  @Option(
    help: "Only tasks with this status: letters as in RUV, or words as in running; may be repeated.",
    transform: Values.statuses)
  var status: [[TaskStatus]] = []
  @Option(name: .customLong("worker-id"), help: "Only tasks of this worker.", transform: Values.id)
  var workerID: Int64?
  @Option(name: .customLong("step-id"), help: "Only tasks of this step.", transform: Values.id) var stepID:
    Int64?
  @Option(name: .customLong("workflow-id"), help: "Only tasks of this workflow.", transform: Values.id)
  var workflowID: Int64?
  @Option(name: .customLong("job-id"), help: "Only tasks of this job.", transform: Values.id) var jobID:
    Int64?
  @Option(help: "Only tasks whose command contains this; % stands for anything.") var command: String?
  @Flag(name: .customLong("show-hidden"), help: "Also earlier attempts of tasks that were retried.")
  var showHidden = false

  /// The server answers this many tasks at most in one call.
  private static let page = 1000

  var filter: WireTaskFilter {
    var filter = WireTaskFilter()
    var letters = ""
    for status in status.joined() where !letters.contains(status.rawValue) { letters += status.rawValue }
    filter.statuses = letters
    filter.workerID = workerID ?? 0
    filter.stepID = stepID ?? 0
    filter.workflowID = workflowID ?? 0
    filter.jobID = jobID ?? 0
    filter.command = command ?? ""
    filter.showHidden = showHidden
    return filter
  }

  func run(_ client: Client) async throws {
    let tasks = try await client.connected { try await fetch($0) }
    switch client.format {
    case .text:
      let table = TaskRendering.table(tasks, showHidden: showHidden, now: Moment.now(), client.style)
      try client.put(table.rendered(client.style))
    case .json: try client.put(JSON.lines(tasks.lazy.map(TaskRendering.json)) + "\n")
    case .quiet: try client.put(tasks.map { "\($0.id)\n" }.joined())
    }
  }

  private func fetch(_ session: Session) async throws -> [WireTask] {
    var tasks: [WireTask] = []
    var request = WireListTasks()
    request.filter = filter
    request.offset = offset
    while tasks.count < limit {
      request.limit = UInt32(min(Self.page, limit - tasks.count))
      let answer = try await session.call(.listTasks, request)
      tasks += answer.tasks
      guard answer.nextBeforeID > 0, !answer.tasks.isEmpty else { break }
      request.beforeID = answer.nextBeforeID
      request.offset = 0
    }
    return tasks
  }
}
