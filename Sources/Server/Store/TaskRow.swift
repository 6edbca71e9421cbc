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
  /// The array that it is part of, and its place there.
  var job: TaskID?
  var arrayIndex: Int64?
  /// What is its own of the array's spec: `TaskParameters` as JSON.
  var parameters: String?
  var suspendWish: SuspendWish = []
  /// Since when its command stands still; and how long it did before, in microseconds.
  var suspendedAt: Int64?
  var suspendedFor: Int64 = 0
  /// In a workflow that is being debugged: somebody said that it may run.
  var released = false
  /// When it first had nothing left to wait for.
  var readyAt: Int64?
  /// A retry that is held back until then.
  var notBefore: Int64?
  /// What retries have made of the memory in its spec, in thousandths.
  var memoryMilli: Int64 = 1000
  /// The worker that holds what it reads.
  var prefer: WorkerID?
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
    "download_started_at", "run_started_at", "run_ended_at", "ended_at", "job_id", "array_index",
    "parameters",
    "suspend_wish", "suspended_at", "suspended_for", "released", "ready_at", "not_before", "memory_milli",
    "prefer_worker_id",
  ]

  static let selection = columns.map { "task.\($0)" }.joined(separator: ", ")
  static let insertion =
    "INSERT INTO task (\(columns.joined(separator: ", "))) VALUES (\(columns.map { _ in "?" }.joined(separator: ", ")))"
  func bind(_ statement: HotStatement) {
    statement.bind(id.rawValue)
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
    statement.bind(job?.rawValue)
    statement.bind(arrayIndex)
    statement.bind(parameters)
    statement.bind(Int64(suspendWish.rawValue))
    statement.bind(suspendedAt)
    statement.bind(suspendedFor)
    statement.bind(released)
    statement.bind(readyAt)
    statement.bind(notBefore)
    statement.bind(memoryMilli)
    statement.bind(prefer?.rawValue)
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
    job = row.optionalInteger().map(TaskID.init(rawValue:))
    arrayIndex = row.optionalInteger()
    parameters = row.optionalText()
    suspendWish = SuspendWish(rawValue: UInt8(truncatingIfNeeded: row.integer()))
    suspendedAt = row.optionalInteger()
    suspendedFor = row.integer()
    released = row.integer() != 0
    readyAt = row.optionalInteger()
    notBefore = row.optionalInteger()
    memoryMilli = row.integer()
    prefer = row.optionalInteger().map(WorkerID.init(rawValue:))
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
    clone.suspendWish = []
    clone.suspendedAt = nil
    clone.suspendedFor = 0
    clone.released = false
    clone.readyAt = now
    clone.notBefore = nil
    clone.prefer = nil
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

/// Who wants a task suspended. It goes on when nobody does any more.
struct SuspendWish: OptionSet, Sendable, Hashable {
  let rawValue: UInt8

  /// A person, by the task itself.
  static let task = SuspendWish(rawValue: 1)
  static let step = SuspendWish(rawValue: 2)
  static let workflow = SuspendWish(rawValue: 4)
  static let worker = SuspendWish(rawValue: 8)
  /// Its attempt is to end, so that its slot is free; a clone waits in its place.
  static let release = SuspendWish(rawValue: 16)
}
