import GRDB
import ScitqProtocol

/// What people read of tasks: from a snapshot, without waiting for the engine.
struct TaskQueries {
  let db: Database

  /// Bytes of a command that a list shows.
  private static let shownCommand = 200

  private static let joins = """
    FROM task JOIN task_spec ON task_spec.id = task.spec_id
    LEFT JOIN worker ON worker.id = task.worker_id LEFT JOIN user ON user.id = task.owner_id
    LEFT JOIN step ON step.id = task.step_id LEFT JOIN workflow ON workflow.id = step.workflow_id
    LEFT JOIN job ON job.id = task.job_id
    """
  private static let names =
    "worker.name, user.username, step.name, step.workflow_id, workflow.name, job.size"

  func task(_ id: TaskID) throws -> WireTask? {
    let statement = try HotStatement(
      db,
      """
      SELECT \(TaskRow.selection), \(TaskSpecRow.selection), \(Self.names) \(Self.joins)
      WHERE task.id = ?
      """)
    statement.bind(id.rawValue)
    var found: WireTask?
    try statement.each { found = Self.view($0) }
    guard var task = found else { return nil }
    task.dependencies = try db.prerequisites(of: id).map(\.rawValue)
    return task
  }

  /// What a task has read and written; nil when there is no such task.
  func files(_ id: TaskID) throws -> WireTaskFiles? {
    guard let row = try db.task(id) else { return nil }
    var files = WireTaskFiles()
    files.inputs = row.inputs.map(FilesColumn.decode) ?? []
    files.outputs = row.outputs.map(FilesColumn.decode) ?? []
    return files
  }

  /// Newest first. Every value is bound: nothing of a filter becomes part of the SQL.
  func list(_ request: WireListTasks) throws(CallError) -> WireTaskList {
    var conditions: [String] = []
    var values: [any DatabaseValueConvertible] = []
    func add(_ condition: String, _ value: any DatabaseValueConvertible) {
      conditions.append(condition)
      values.append(value)
    }
    let filter = request.filter
    if !filter.showHidden { conditions.append("task.hidden = 0") }
    if !filter.statuses.isEmpty {
      let letters = Set(filter.statuses.map(String.init))
      for letter in letters.sorted() where TaskStatus(rawValue: letter) == nil {
        throw CallError(
          .invalid,
          "\"\(letter)\" is no status; they are \(TaskStatus.allCases.map(\.rawValue).joined(separator: " "))",
          field: "status")
      }
      conditions.append("task.status IN (\(letters.map { _ in "?" }.joined(separator: ", ")))")
      values.append(contentsOf: letters.sorted())
    }
    if filter.workerID != 0 { add("task.worker_id = ?", filter.workerID) }
    if filter.stepID != 0 { add("task.step_id = ?", filter.stepID) }
    if filter.workflowID != 0 {
      add("task.step_id IN (SELECT id FROM step WHERE workflow_id = ?)", filter.workflowID)
    }
    if filter.jobID != 0 { add("task.job_id = ?", filter.jobID) }
    if !filter.command.isEmpty {
      let pattern = filter.command.replacing("\\", with: "\\\\").replacing("_", with: "\\_")
      add("task_spec.command LIKE ? ESCAPE '\\'", "%\(pattern)%")
    }
    if request.beforeID > 0 { add("task.id < ?", request.beforeID) }
    let limit = min(request.limit == 0 ? 20 : Int(request.limit), 1000)
    let specColumns = TaskSpecRow.selection.replacing(
      "task_spec.command", with: "substr(task_spec.command, 1, \(Self.shownCommand))")
    let sql = """
      SELECT \(TaskRow.selection), \(specColumns), \(Self.names) \(Self.joins)
      \(conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND "))
      ORDER BY task.id DESC LIMIT ? OFFSET ?
      """
    var list = WireTaskList()
    do {
      let statement = try HotStatement(db, sql)
      for value in values {
        switch value.databaseValue.storage {
        case .int64(let number): statement.bind(number)
        case .string(let text): statement.bind(text)
        default: statement.bindNull()
        }
      }
      // One more than asked for tells whether there are more.
      statement.bind(Int64(limit + 1))
      statement.bind(Int64(request.offset))
      try statement.each { row in
        var task = Self.view(row)
        task.outputs = []
        list.tasks.append(task)
      }
    } catch { throw Engine.unavailable(error) }
    if list.tasks.count > limit {
      list.tasks.removeLast()
      list.nextBeforeID = list.tasks.last?.id ?? 0
    }
    return list
  }

  static func view(_ columns: HotStatement.Row) -> WireTask {
    let row = TaskRow(columns)
    var rest = columns
    rest.skip(TaskRow.columns.count)
    var task = WireTask()
    task.spec = TaskSpecRow.read(&rest)
    row.expand(&task.spec)
    task.workerName = rest.optionalText() ?? ""
    task.owner = rest.optionalText() ?? ""
    task.stepName = rest.optionalText() ?? ""
    task.workflowID = rest.optionalInteger() ?? 0
    task.workflowName = rest.optionalText() ?? ""
    task.arraySize = rest.optionalInteger() ?? 0
    task.jobID = row.job?.rawValue ?? 0
    task.arrayIndex = row.arrayIndex ?? 0
    task.readyAt = row.readyAt ?? 0
    task.notBefore = row.notBefore ?? 0
    task.suspendRequested = !row.suspendWish.isEmpty && row.status != .suspended
    task.memoryFactor = row.memoryMilli == 1000 ? 0 : Double(row.memoryMilli) / 1000
    task.id = row.id.rawValue
    task.name = row.name
    task.status = row.status.rawValue
    task.stepID = row.step?.rawValue ?? 0
    task.workerID = row.worker?.rawValue ?? 0
    task.assignment = row.assignment
    task.weight = Double(row.weightMilli) / 1000
    task.priority = row.priority
    task.retry = UInt32(clamping: row.retry)
    task.attempt = UInt32(clamping: row.attempt)
    task.losses = UInt32(clamping: row.losses)
    task.previousTaskID = row.previous?.rawValue ?? 0
    task.nextTaskID = row.next?.rawValue ?? 0
    task.hidden = row.hidden
    task.reason = row.reason ?? ""
    task.message = row.message ?? ""
    task.hasExitCode_p = row.exitCode != nil
    task.exitCode = row.exitCode ?? 0
    task.unmet = UInt32(clamping: row.unmet)
    task.acceptFailure = row.acceptFailure
    task.onDependencyFailure = row.cancelWithPrerequisite ? .cancel : .wait
    task.cancelRequested = row.cancelRequested
    task.createdAt = row.createdAt
    task.assignedAt = row.assignedAt ?? 0
    task.downloadStartedAt = row.downloadStartedAt ?? 0
    task.runStartedAt = row.runStartedAt ?? 0
    task.runEndedAt = row.runEndedAt ?? 0
    task.endedAt = row.endedAt ?? 0
    task.outBytes = row.outBytes
    task.errBytes = row.errBytes
    task.outputs = row.outputs.map(FilesColumn.decode) ?? []
    return task
  }
}
