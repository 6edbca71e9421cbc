import Foundation
import Testing

extension World {
  /// What `task show --json` and `task list --json` say of a task, as far as tests ask.
  struct TaskRow: Decodable {
    var id: Int64
    var status: String
    var reason: String?
    var message: String?
    var exitCode: Int32?
    var workerName: String?
    var previousTaskId: Int64?
    var nextTaskId: Int64?
  }

  func task(_ id: Int64) async throws -> TaskRow {
    try await rows(TaskRow.self, "task", "show", "--id", "\(id)", "--json")
  }

  /// Everything that `task list` shows of the newest `limit` tasks, the attempts that were replaced as well.
  func tasks(limit: Int) async throws -> [TaskRow] {
    try await rows([TaskRow].self, "task", "list", "--show-hidden", "--limit", "\(limit)", "--json")
  }

  /// Waits until a task stands at one of these letters.
  @discardableResult
  func task(_ id: Int64, reaches letters: String, within deadline: Duration = .seconds(60)) async throws
    -> TaskRow
  {
    var last: TaskRow?
    do {
      try await until("task \(id) is \(letters)", within: deadline) {
        let row = try await self.task(id)
        last = row
        return letters.contains(row.status)
      }
    } catch let trouble as Trouble {
      throw Trouble("\(trouble); it is \(last.map { "\($0)" } ?? "unknown")")
    }
    return try #require(last)
  }

  /// Waits for the end of a task by `task wait`, and requires that it is a success.
  @discardableResult
  func succeeded(_ id: Int64, within deadline: Duration = .seconds(60)) async throws -> TaskRow {
    _ = try await call(["task", "wait", "--id", "\(id)"], within: deadline)
    let row = try await task(id)
    guard row.status == "S" else {
      throw Trouble("task \(id) is no success: \(row)\n\(try await log(id).text.suffix(500))")
    }
    return row
  }

  /// Waits for the end of a task by `task wait`, and requires that it is a failure.
  @discardableResult
  func failed(_ id: Int64, within deadline: Duration = .seconds(60)) async throws -> TaskRow {
    _ = try await call(["task", "wait", "--id", "\(id)"], within: deadline)
    let row = try await task(id)
    try #require(row.status == "F", "task \(id): \(row)")
    return row
  }

  func log(_ id: Int64, _ stream: String...) async throws -> Output {
    try await scitq(["task", "output", "--id", "\(id)"] + stream)
  }

  /// The statuses a task went through, from the events that the server keeps: `PACDRVF`.
  func history(_ id: Int64) async throws -> String {
    try await sql(
      """
      SELECT group_concat(to_status, '') FROM (
        SELECT to_status FROM event WHERE object = 'task' AND \(id) BETWEEN first_id AND last_id ORDER BY sequence)
      """)
  }

  /// Reads the server's database, as an operator may.
  func sql(_ query: String) async throws -> String {
    let file = scratch("sql")
    defer { try? FileManager.default.removeItem(at: file) }
    let program = try Program(
      "sqlite3", try Tools.onPath("sqlite3"), ["-readonly", "-cmd", ".timeout 5000", database.path, query],
      environment: baseEnvironment, out: file, err: file)
    let status = await program.ended()
    let text = try String(contentsOf: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    try #require(status == 0, "sqlite3: \(text)")
    return text
  }
}
