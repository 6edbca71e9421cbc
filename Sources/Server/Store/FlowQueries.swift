import GRDB
import Scheduling
import ScitqProtocol

/// What people read of workflows and steps: from a snapshot, without waiting for the engine.
struct FlowQueries {
  let db: Database

  // MARK: Workflows

  func workflow(_ id: Int64) throws -> WireWorkflow? {
    let found = try Row.fetchOne(db, sql: "\(Self.workflows) WHERE workflow.id = ?", arguments: [id])
    return try found.map { try view(workflow: $0, costs: try costs([id])) }
  }

  /// Newest first.
  func workflows(_ request: WireListWorkflows) throws -> WireWorkflowList {
    let limit = min(request.limit == 0 ? 20 : Int(request.limit), 1000)
    var list = WireWorkflowList()
    var before = request.beforeID == 0 ? Int64.max : request.beforeID
    // A status is known only when a workflow has been looked at.
    while list.workflows.count <= limit {
      let rows = try Row.fetchAll(
        db,
        sql: """
          \(Self.workflows) WHERE workflow.id < ? AND (? = '' OR workflow.name LIKE ? ESCAPE '\\')
          ORDER BY workflow.id DESC LIMIT ?
          """, arguments: [before, request.name, Self.pattern(request.name), limit + 1])
      let costs = try costs(rows.map { $0["id"] })
      for row in rows where list.workflows.count <= limit {
        let workflow = try view(workflow: row, costs: costs)
        before = workflow.id
        if request.statuses.isEmpty || request.statuses.contains(workflow.status) {
          list.workflows.append(workflow)
        }
      }
      if rows.count <= limit { break }
    }
    if list.workflows.count > limit {
      list.workflows.removeLast()
      list.nextBeforeID = list.workflows.last?.id ?? 0
    }
    return list
  }

  /// `%` is a wildcard; everything else stands for itself.
  private static func pattern(_ name: String) -> String {
    name.replacing("\\", with: "\\\\").replacing("_", with: "\\_")
  }

  private static let workflows = """
    SELECT workflow.*, user.username AS owner_name,
      (SELECT count(*) FROM step WHERE step.workflow_id = workflow.id) AS steps,
      (SELECT count(*) FROM worker JOIN step ON step.id = worker.step_id
        WHERE step.workflow_id = workflow.id AND worker.status <> 'deleted') AS workers
    FROM workflow LEFT JOIN user ON user.id = workflow.owner_id
    """

  /// What rented hosts have cost these workflows until now; one that has cost nothing is not named.
  private func costs(_ workflows: [Int64]) throws -> [Int64: Double] {
    guard !workflows.isEmpty else { return [:] }
    let places = Array(repeating: "?", count: workflows.count).joined(separator: ", ")
    let rows = try Row.fetchAll(
      db,
      sql: """
        SELECT used.workflow_id AS id,
          sum((coalesce(used.ended_at, ?) - used.started_at) * instance.price) / 3.6e9 AS cost
        FROM instance_use AS used JOIN instance ON instance.id = used.instance_id
        WHERE used.workflow_id IN (\(places)) GROUP BY used.workflow_id
        """, arguments: StatementArguments([microsecondsNow()] + workflows))
    return Dictionary(rows.map { ($0["id"], $0["cost"]) }, uniquingKeysWith: { first, _ in first })
  }

  private func view(workflow row: Row, costs: [Int64: Double]) throws -> WireWorkflow {
    let kept = WorkflowRow(row)
    var workflow = WireWorkflow()
    workflow.id = kept.id.rawValue
    workflow.name = kept.name
    workflow.strategy = kept.strategy.rawValue
    workflow.maximumWorkers = UInt32(clamping: kept.maximumWorkers)
    workflow.maximumCost = kept.maximumCost ?? 0
    workflow.cost = costs[kept.id.rawValue] ?? 0
    workflow.weight = Double(kept.weightMilli) / 1000
    workflow.owner = row["owner_name"] ?? ""
    workflow.createdAt = kept.createdAt
    workflow.steps = row["steps"]
    workflow.workers = row["workers"]
    let counts = try counts("SELECT id FROM step WHERE workflow_id = ?", kept.id.rawValue)
    workflow.tasks = counts.wire
    (workflow.status, workflow.blockedBy) = try standing(
      counts, kept.state, "SELECT id FROM step WHERE workflow_id = ?", kept.id.rawValue)
    let span = try Row.fetchOne(
      db,
      sql: """
        SELECT min(started_at) AS first, max(ended_at) AS last FROM phase_count
        WHERE step_id IN (SELECT id FROM step WHERE workflow_id = ?)
        """, arguments: [kept.id.rawValue])
    workflow.startedAt = span?["first"] ?? 0
    if "SFX".contains(workflow.status) { workflow.endedAt = span?["last"] ?? 0 }
    return workflow
  }

  // MARK: Steps

  func step(_ id: Int64) throws -> WireStep? {
    try Row.fetchOne(db, sql: "\(Self.steps) WHERE step.id = ?", arguments: [id]).map(view(step:))
  }

  /// In the order in which they were made.
  func steps(_ request: WireListSteps) throws -> WireStepList {
    var list = WireStepList()
    list.steps = try Row.fetchAll(
      db,
      sql:
        "\(Self.steps) WHERE (?1 = 0 OR workflow.id = ?1) AND (?2 = '' OR step.name = ?2) ORDER BY step.id",
      arguments: [request.workflowID, request.name]
    ).map(view(step:))
    return list
  }

  private static let steps = """
    SELECT step.*, workflow.name AS workflow_name, workflow.state AS state,
      (SELECT count(*) FROM step AS other
        WHERE other.workflow_id = step.workflow_id AND other.id <= step.id) AS position,
      (SELECT count(*) FROM worker WHERE worker.step_id = step.id AND worker.status <> 'deleted') AS workers
    FROM step JOIN workflow ON workflow.id = step.workflow_id
    """

  private func view(step row: Row) throws -> WireStep {
    let kept = StepRow(row)
    var step = WireStep()
    step.id = kept.id.rawValue
    step.name = kept.name
    step.workflowID = kept.workflow.rawValue
    step.workflowName = row["workflow_name"]
    step.position = row["position"]
    step.workers = row["workers"]
    let counts = try counts("SELECT ?", kept.id.rawValue)
    step.tasks = counts.wire
    let state = WorkflowRow.State(rawValue: row["state"]) ?? .running
    (step.status, step.blockedBy) = try standing(
      counts, state == .running && kept.isSuspended ? .suspended : state, "SELECT ?", kept.id.rawValue)
    return step
  }

  // MARK: Status

  /// The newest attempts of some steps' tasks, by status.
  private func counts(_ steps: String, _ id: Int64) throws -> StatusCounts {
    var counts = StatusCounts()
    for row in try Row.fetchAll(
      db,
      sql: """
        SELECT status, sum(count) AS count FROM task_count WHERE hidden = 0 AND step_id IN (\(steps))
        GROUP BY status
        """, arguments: [id])
    {
      if let status = TaskStatus(rawValue: row["status"]) { counts[status] = row["count"] }
    }
    return counts
  }

  /// A letter, and what holds it up where nothing can go on.
  private func standing(
    _ counts: StatusCounts, _ state: WorkflowRow.State, _ steps: String, _ id: Int64
  ) throws -> (status: String, blockedBy: String) {
    if state == .draft { return ("I", "") }
    let ended = counts[.succeeded] + counts[.failed] + counts[.canceled]
    let live = counts.total - ended
    if live == 0 {
      if counts[.failed] > 0 { return ("F", "") }
      if counts[.canceled] > 0 || state == .canceled { return ("X", "") }
      if state == .suspended { return ("Z", "") }
      return (counts.total > 0 ? "S" : "R", "")
    }
    if state == .suspended || counts[.suspended] == live { return ("Z", "") }
    guard counts[.waiting] == live, let blocker = try blocker(steps, id) else { return ("R", "") }
    return ("F", "blocked by \(blocker); \(live) \(live == 1 ? "task waits" : "tasks wait")")
  }

  /// Where all that is left waits: for what it waits in the end, if that has failed or was canceled for good. Nil
  /// while something that can still move is waited for.
  private func blocker(_ steps: String, _ id: Int64) throws -> String? {
    let row = try Row.fetchOne(
      db,
      sql: """
        SELECT *, sum(status NOT IN ('F', 'X', 'W', 'J')) OVER () AS moving FROM (
          SELECT prerequisite_id, coalesce(prerequisite.status, (
            SELECT CASE WHEN status = 'W' THEN 'W' ELSE 'P' END FROM job_count
            WHERE job_id = prerequisite_id AND count > 0 AND status NOT IN ('S', 'F', 'X')
            ORDER BY status = 'W' LIMIT 1), 'J') AS status
          FROM task
          JOIN dependency ON dependency.task_id = task.id AND dependency.met = 0
          LEFT JOIN task AS prerequisite ON prerequisite.id = dependency.prerequisite_id
          WHERE task.step_id IN (\(steps)) AND task.status = 'W')
        ORDER BY status = 'W', prerequisite_id LIMIT 1
        """, arguments: [id])
    guard let row, row["moving"] == 0 else { return nil }
    let name: Int64 = row["prerequisite_id"]
    switch row["status"] as String {
    case "F": return "task \(name), which failed"
    case "X": return "task \(name), which was canceled"
    case "J": return "job \(name), of which tasks failed or were canceled"
    default: return nil
    }
  }
}

extension StatusCounts {
  /// In the order of life, without what is zero.
  var wire: [WireStatusCount] {
    TaskStatus.allCases.filter { self[$0] != 0 }.map { status in
      var count = WireStatusCount()
      count.status = status.rawValue
      count.count = Int64(self[status])
      return count
    }
  }
}
