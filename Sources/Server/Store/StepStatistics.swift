import GRDB
import ScitqProtocol

/// How long the phases of steps' tasks took: from what is kept with the rows, and what runs now.
struct StepStatistics {
  let db: Database

  func list(_ request: WireReadStepStats, now: Int64) throws -> WireStepStatsList {
    var conditions: [String] = []
    var values: [Int64] = []
    if request.workflowID != 0 {
      conditions.append("step.workflow_id = ?")
      values.append(request.workflowID)
    }
    if !request.stepIds.isEmpty {
      conditions.append("step.id IN (\(request.stepIds.map { _ in "?" }.joined(separator: ", ")))")
      values.append(contentsOf: request.stepIds)
    }
    var arguments = StatementArguments(values)
    if !request.taskName.isEmpty {
      conditions.append(
        "EXISTS (SELECT 1 FROM task WHERE task.step_id = step.id AND instr(task.name, ?) > 0)")
      arguments += [request.taskName]
    }
    let filter = conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND ")
    let rows = try Row.fetchAll(
      db,
      sql: """
        SELECT step.id, step.name, step.workflow_id, workflow.name AS workflow_name
        FROM step JOIN workflow ON workflow.id = step.workflow_id \(filter) ORDER BY step.id
        """, arguments: arguments)
    var list = WireStepStatsList()
    list.steps = try rows.map { row in
      var stats = WireStepStats()
      stats.stepID = row["id"]
      stats.name = row["name"]
      stats.workflowID = row["workflow_id"]
      stats.workflowName = row["workflow_name"]
      stats.tasks = try counts(stats.stepID)
      try addPhases(to: &stats)
      try addCurrent(to: &stats, now)
      return stats
    }
    return list
  }

  private func counts(_ step: Int64) throws -> [WireStatusCount] {
    try Row.fetchAll(
      db,
      sql:
        "SELECT status, count FROM task_count WHERE step_id = ? AND hidden = 0 AND count > 0 ORDER BY status",
      arguments: [step]
    ).map { row in
      var count = WireStatusCount()
      count.status = row["status"]
      count.count = row["count"]
      return count
    }
  }

  private func addPhases(to stats: inout WireStepStats) throws {
    for row in try Row.fetchAll(
      db, sql: "SELECT * FROM phase_count WHERE step_id = ?", arguments: [stats.stepID])
    {
      var phase = WirePhaseStats()
      phase.count = row["count"]
      phase.total = row["total"]
      phase.least = row["least"]
      phase.most = row["most"]
      switch PhaseSums.Phase(rawValue: row["phase"]) {
      case .download?: stats.download = phase
      case .run_succeeded?: stats.runSucceeded = phase
      case .run_failed?: stats.runFailed = phase
      case .upload?: stats.upload = phase
      case nil: continue
      }
      let start: Int64 = row["started_at"]
      stats.startedAt = stats.startedAt == 0 ? start : min(stats.startedAt, start)
      stats.endedAt = max(stats.endedAt, row["ended_at"])
    }
  }

  /// What runs or stands still now.
  private func addCurrent(to stats: inout WireStepStats, _ now: Int64) throws {
    let row = try Row.fetchOne(
      db,
      sql: """
        SELECT count(*) AS count, sum(span) AS total, min(span) AS least, max(span) AS most, min(start) AS start FROM (
          SELECT coalesce(suspended_at, ?1) - run_started_at - suspended_for AS span, run_started_at AS start
          FROM task WHERE step_id = ?2 AND status IN ('R', 'Z') AND status <> 'S' AND run_started_at IS NOT NULL
            AND run_ended_at IS NULL)
        """, arguments: [now, stats.stepID])
    guard let row, row["count"] as Int64 > 0 else { return }
    stats.runCurrent.count = row["count"]
    stats.runCurrent.total = row["total"]
    stats.runCurrent.least = row["least"]
    stats.runCurrent.most = row["most"]
    let start: Int64 = row["start"]
    stats.startedAt = stats.startedAt == 0 ? start : min(stats.startedAt, start)
    // It has not ended.
    stats.endedAt = 0
  }
}
