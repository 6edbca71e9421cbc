import GRDB
import ScitqProtocol

/// One row of `task`. The only list of its columns: reading, inserting and cloning all go through it.
struct TaskRow: Sendable, Hashable {
  var id: TaskID
  var specID: Int64
  var name = ""
  var owner: UserID
  var step: StepID?
  var status: TaskStatus
  var priority: Int32 = 0
  var weightMilli: Int32 = 1000
  /// Its place in the queue. A clone keeps the place of the first attempt.
  var place: Int64
  var unmet: Int32 = 0
  var worker: WorkerID?
  var assignment: Int64 = 0
  var avoid: WorkerID?
  var retry: Int32 = 0
  var attempt: Int32 = 1
  /// How often in a row it was lost with its worker.
  var losses: Int32 = 0
  var previous: TaskID?
  var next: TaskID?
  var hidden = false
  var acceptFailure = false
  var cancelWithPrerequisite = false
  var cancelRequested = false
  /// Nobody has looked yet whether its output exists, and it waits for that.
  var unchecked = false
  var reason: String?
  var message: String?
  var exitCode: Int32?
  var outBytes: Int64 = 0
  var errBytes: Int64 = 0
  /// JSON, as it is shown.
  var inputs: String?
  var outputs: String?
  var createdAt: Int64
  var assignedAt: Int64?
  var downloadStartedAt: Int64?
  var runStartedAt: Int64?
  var runEndedAt: Int64?
  var endedAt: Int64?

  static let columns = [
    "id", "spec_id", "name", "owner_id", "step_id", "status", "priority", "weight_milli", "place", "unmet",
    "worker_id", "assignment", "avoid_worker_id", "retry", "attempt", "losses", "previous_task_id",
    "next_task_id", "hidden", "accept_failure", "cancel_with_prerequisite", "cancel_requested", "unchecked",
    "reason",
    "message", "exit_code", "out_bytes", "err_bytes", "inputs", "outputs", "created_at", "assigned_at",
    "download_started_at", "run_started_at", "run_ended_at", "ended_at",
  ]

  static let selection = columns.map { "task.\($0)" }.joined(separator: ", ")
  static let insertion =
    "INSERT INTO task (\(columns.joined(separator: ", "))) VALUES (\(columns.map { _ in "?" }.joined(separator: ", ")))"
  /// Every column but the id: a changed row is written whole, so that no list of changed columns can forget one.
  static let update =
    "UPDATE task SET \(columns.dropFirst().map { "\($0) = ?" }.joined(separator: ", ")) WHERE id = ?"

  func bind(_ statement: HotStatement, idLast: Bool = false) {
    if !idLast { statement.bind(id.rawValue) }
    statement.bind(specID)
    statement.bind(name)
    statement.bind(owner.rawValue)
    statement.bind(step?.rawValue)
    statement.bind(status.rawValue)
    statement.bind(Int64(priority))
    statement.bind(Int64(weightMilli))
    statement.bind(place)
    statement.bind(Int64(unmet))
    statement.bind(worker?.rawValue)
    statement.bind(assignment)
    statement.bind(avoid?.rawValue)
    statement.bind(Int64(retry))
    statement.bind(Int64(attempt))
    statement.bind(Int64(losses))
    statement.bind(previous?.rawValue)
    statement.bind(next?.rawValue)
    statement.bind(hidden)
    statement.bind(acceptFailure)
    statement.bind(cancelWithPrerequisite)
    statement.bind(cancelRequested)
    statement.bind(unchecked)
    statement.bind(reason)
    statement.bind(message)
    statement.bind(exitCode.map(Int64.init))
    statement.bind(outBytes)
    statement.bind(errBytes)
    statement.bind(inputs)
    statement.bind(outputs)
    statement.bind(createdAt)
    statement.bind(assignedAt)
    statement.bind(downloadStartedAt)
    statement.bind(runStartedAt)
    statement.bind(runEndedAt)
    statement.bind(endedAt)
    if idLast { statement.bind(id.rawValue) }
  }

  /// From a row that was selected with `selection` first.
  init(_ row: HotStatement.Row) {
    var row = row
    id = TaskID(row.integer())
    specID = row.integer()
    name = row.text()
    owner = UserID(row.integer())
    step = row.optionalInteger().map(StepID.init(rawValue:))
    status = TaskStatus(rawValue: row.text()) ?? .failed
    priority = Int32(row.integer())
    weightMilli = Int32(row.integer())
    place = row.integer()
    unmet = Int32(row.integer())
    worker = row.optionalInteger().map(WorkerID.init(rawValue:))
    assignment = row.integer()
    avoid = row.optionalInteger().map(WorkerID.init(rawValue:))
    retry = Int32(row.integer())
    attempt = Int32(row.integer())
    losses = Int32(row.integer())
    previous = row.optionalInteger().map(TaskID.init(rawValue:))
    next = row.optionalInteger().map(TaskID.init(rawValue:))
    hidden = row.integer() != 0
    acceptFailure = row.integer() != 0
    cancelWithPrerequisite = row.integer() != 0
    cancelRequested = row.integer() != 0
    unchecked = row.integer() != 0
    reason = row.optionalText()
    message = row.optionalText()
    exitCode = row.optionalInteger().map { Int32(truncatingIfNeeded: $0) }
    outBytes = row.integer()
    errBytes = row.integer()
    inputs = row.optionalText()
    outputs = row.optionalText()
    createdAt = row.integer()
    assignedAt = row.optionalInteger()
    downloadStartedAt = row.optionalInteger()
    runStartedAt = row.optionalInteger()
    runEndedAt = row.optionalInteger()
    endedAt = row.optionalInteger()
  }

  init(id: TaskID, specID: Int64, owner: UserID, status: TaskStatus, place: Int64, createdAt: Int64) {
    self.id = id
    self.specID = specID
    self.owner = owner
    self.status = status
    self.place = place
    self.createdAt = createdAt
  }

  /// A new attempt at the same work: every field of the old one but what its own attempt left behind.
  func clone(id: TaskID, at now: Int64) -> TaskRow {
    var clone = self
    clone.id = id
    clone.status = .pending
    clone.worker = nil
    clone.assignment = 0
    clone.avoid = worker
    clone.attempt += 1
    clone.previous = self.id
    clone.next = nil
    clone.hidden = false
    clone.cancelRequested = false
    clone.unmet = 0
    clone.reason = nil
    clone.message = nil
    clone.exitCode = nil
    clone.outBytes = 0
    clone.errBytes = 0
    clone.unchecked = false
    clone.inputs = nil
    clone.outputs = nil
    clone.createdAt = now
    clone.assignedAt = nil
    clone.downloadStartedAt = nil
    clone.runStartedAt = nil
    clone.runEndedAt = nil
    clone.endedAt = nil
    return clone
  }
}
