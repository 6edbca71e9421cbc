import GRDB
import ScitqProtocol

/// What happened, from a snapshot.
struct EventQueries {
  let db: Database

  /// At most so many events at a time, in their order.
  static let page = 1000

  /// The next events after a number.
  func events(_ request: WireReadEvents, after sequence: Int64) throws -> (events: [WireEvent], last: Int64) {
    let (condition, arguments) = Self.condition(request)
    let rows = try Row.fetchAll(
      db,
      sql: """
        \(Self.selection) WHERE event.sequence > ? \(condition) ORDER BY event.sequence LIMIT \(Self.page)
        """, arguments: [sequence] + arguments)
    let events = rows.map(Self.view)
    if events.count == Self.page { return (events, events.last?.sequence ?? sequence) }
    // Nothing else up to here was asked for.
    let newest = try Int64.fetchOne(db, sql: "SELECT max(sequence) FROM event") ?? 0
    return (events, max(newest, sequence))
  }

  /// The number after which the newest `last` events come that are asked for.
  func start(_ request: WireReadEvents) throws -> Int64 {
    guard request.last > 0 else { return request.since }
    let (condition, arguments) = Self.condition(request)
    let first = try Int64.fetchOne(
      db,
      sql: """
        SELECT min(sequence) FROM (
          SELECT event.sequence FROM event WHERE event.sequence > ? \(condition)
          ORDER BY event.sequence DESC LIMIT ?)
        """, arguments: [request.since] + arguments + [Int64(request.last)])
    return first.map { $0 - 1 } ?? request.since
  }

  private static let selection = """
    SELECT event.*, user.username FROM event LEFT JOIN user ON user.id = event.user_id
    """

  private static func condition(_ request: WireReadEvents) -> (sql: String, StatementArguments) {
    var sql = ""
    var arguments = StatementArguments()
    if !request.object.isEmpty {
      sql += " AND event.object = ?"
      arguments += [request.object]
    }
    if request.id != 0 {
      sql += " AND ? BETWEEN event.first_id AND event.last_id"
      arguments += [request.id]
    }
    if !request.kinds.isEmpty {
      sql += " AND event.to_status IN (\(request.kinds.map { _ in "?" }.joined(separator: ", ")))"
      arguments += StatementArguments(request.kinds)
    }
    if request.workflowID != 0 {
      // A run of tasks was submitted together: those at its ends are of it, or none is.
      sql += """
         AND (event.object = 'workflow' AND event.first_id = ?
          OR event.object = 'step' AND event.first_id IN (SELECT id FROM step WHERE workflow_id = ?)
          OR event.object = 'task' AND EXISTS (
            SELECT 1 FROM task JOIN step ON step.id = task.step_id
            WHERE task.id BETWEEN event.first_id AND event.last_id AND step.workflow_id = ?))
        """
      arguments += [request.workflowID, request.workflowID, request.workflowID]
    }
    return (sql, arguments)
  }

  private static func view(_ row: Row) -> WireEvent {
    var event = WireEvent()
    event.sequence = row["sequence"]
    event.at = row["at"]
    event.object = row["object"]
    event.firstID = row["first_id"]
    event.lastID = row["last_id"]
    event.from = row["from_status"] ?? ""
    event.to = row["to_status"]
    event.workerID = row["worker_id"] ?? 0
    event.user = row["username"] ?? ""
    event.reason = row["reason"] ?? ""
    return event
  }
}
