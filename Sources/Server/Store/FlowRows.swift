import GRDB
import Scheduling
import ScitqProtocol

/// One row of `workflow`. The engine holds all of them.
struct WorkflowRow: Sendable {
  /// What people decided.
  enum State: String, Sendable { case draft, running, suspended, canceled }

  var id: WorkflowID
  var name: String
  var owner: UserID
  var strategy: RunStrategy
  var state: State
  /// Zero: no limit.
  var maximumWorkers: Int32
  /// When as much was spent, nothing more is bought for it; nil: no limit.
  var maximumCost: Double?
  var weightMilli: Int32
  var createdAt: Int64

  init(id: WorkflowID, name: String, owner: UserID, strategy: RunStrategy, state: State, createdAt: Int64) {
    self.id = id
    self.name = name
    self.owner = owner
    self.strategy = strategy
    self.state = state
    maximumWorkers = 0
    weightMilli = 1000
    self.createdAt = createdAt
  }

  init(_ row: Row) {
    id = WorkflowID(row["id"])
    name = row["name"]
    owner = UserID(row["owner_id"])
    strategy = RunStrategy(rawValue: row["strategy"]) ?? .batch
    state = State(rawValue: row["state"]) ?? .suspended
    maximumWorkers = row["maximum_workers"]
    maximumCost = row["maximum_cost"]
    weightMilli = row["weight_milli"]
    createdAt = row["created_at"]
  }

  func save(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT INTO workflow (id, name, owner_id, strategy, state, maximum_workers, weight_milli, created_at,
          maximum_cost)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, strategy = excluded.strategy, state = excluded.state,
          maximum_workers = excluded.maximum_workers, weight_milli = excluded.weight_milli,
          maximum_cost = excluded.maximum_cost
        """,
      arguments: [
        id.rawValue, name, owner.rawValue, strategy.rawValue, state.rawValue, maximumWorkers, weightMilli,
        createdAt, maximumCost,
      ])
  }

  /// As the scheduler sees it.
  var entry: WorkflowEntry {
    WorkflowEntry(
      id: id, owner: owner, strategy: strategy, weightMilli: weightMilli, isHeld: state != .running)
  }
}

/// One row of `step`. The engine holds all of them.
struct StepRow: Sendable {
  var id: StepID
  var workflow: WorkflowID
  var name: String
  var isSuspended: Bool
  var createdAt: Int64

  init(id: StepID, workflow: WorkflowID, name: String, createdAt: Int64) {
    self.id = id
    self.workflow = workflow
    self.name = name
    isSuspended = false
    self.createdAt = createdAt
  }

  init(_ row: Row) {
    id = StepID(row["id"])
    workflow = WorkflowID(row["workflow_id"])
    name = row["name"]
    isSuspended = row["suspended"]
    createdAt = row["created_at"]
  }

  func save(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT INTO step (id, workflow_id, name, suspended, created_at) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, suspended = excluded.suspended
        """, arguments: [id.rawValue, workflow.rawValue, name, isSuspended, createdAt])
  }

  /// As the scheduler sees it.
  var entry: StepEntry { StepEntry(id: id, workflow: workflow, isHeld: isSuspended) }
}

/// One row of `job`, with how many of its tasks stand where.
struct JobRow: Sendable {
  enum Kind: String, Sendable { case array, split }

  var id: TaskID
  var kind: Kind
  var name: String
  var owner: UserID
  var step: StepID?
  var size: Int64
  var firstIndex: Int64
  var stride: Int64
  var createdAt: Int64
  /// Of the newest attempts, ended ones included.
  var counts = StatusCounts()

  init(
    id: TaskID, kind: Kind, name: String, owner: UserID, step: StepID?, size: Int64, firstIndex: Int64,
    stride: Int64, createdAt: Int64
  ) {
    self.id = id
    self.kind = kind
    self.name = name
    self.owner = owner
    self.step = step
    self.size = size
    self.firstIndex = firstIndex
    self.stride = stride
    self.createdAt = createdAt
  }

  init(_ row: Row) {
    id = TaskID(row["id"])
    kind = Kind(rawValue: row["kind"]) ?? .array
    name = row["name"]
    owner = UserID(row["owner_id"])
    step = (row["step_id"] as Int64?).map(StepID.init(rawValue:))
    size = row["size"]
    firstIndex = row["first_index"]
    stride = row["stride"]
    createdAt = row["created_at"]
  }

  func insert(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT INTO job (id, kind, name, owner_id, step_id, size, first_index, stride, created_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
      arguments: [
        id.rawValue, kind.rawValue, name, owner.rawValue, step?.rawValue, size, firstIndex, stride, createdAt,
      ])
  }

  /// What its tasks have come to: final when none can move any more.
  var status: TaskStatus { Self.status(counts) }

  static func status(_ counts: StatusCounts) -> TaskStatus {
    let ended = counts[.succeeded] + counts[.failed] + counts[.canceled]
    if counts.total == ended {
      return counts[.failed] > 0 ? .failed : counts[.canceled] > 0 ? .canceled : .succeeded
    }
    let still: [TaskStatus] = [.inactive, .suspended, .waiting, .pending]
    for status in still where counts[status] + ended == counts.total { return status }
    if counts[.waiting] + counts[.pending] + counts[.suspended] + counts[.inactive] == counts.total {
      return .pending
    }
    return .running
  }
}

extension Database {
  func job(_ id: TaskID) throws -> JobRow? {
    guard
      let row = try Row.fetchOne(self, sql: "SELECT * FROM job WHERE id = ?", arguments: [id.rawValue])
    else { return nil }
    var job = JobRow(row)
    for count in try Row.fetchAll(
      self, sql: "SELECT status, count FROM job_count WHERE job_id = ?", arguments: [id.rawValue])
    {
      guard let status = TaskStatus(rawValue: count["status"]) else { continue }
      job.counts[status] = count["count"]
    }
    return job
  }

  /// The newest attempts of a job's tasks, by index.
  func tasks(of job: TaskID) throws -> [TaskID] {
    let statement = try HotStatement(
      self, "SELECT id FROM task WHERE job_id = ? AND hidden = 0 ORDER BY array_index")
    statement.bind(job.rawValue)
    var found: [TaskID] = []
    try statement.each { row in
      var row = row
      found.append(TaskID(row.integer()))
    }
    return found
  }
}
