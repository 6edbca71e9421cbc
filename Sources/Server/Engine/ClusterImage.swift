import GRDB
import Scheduling
import ScitqProtocol

/// What the database says of everything that can still move: all that the engine is rebuilt from.
struct ClusterImage: Sendable {
  var workers: [WorkerRow] = []
  var workflows: [WorkflowRow]
  var steps: [StepRow]
  /// Those with a task that can still move, or for which something waits.
  var jobs: [JobRow] = []
  var users: [UserEntry]
  var tasks: [(row: TaskRow, facts: SpecFacts)] = []
  var unmet: [TaskID: [TaskID]] = [:]
  /// Prerequisites that ended without being met, for good.
  var endedPrerequisites: [(TaskID, TaskStatus)] = []
  var acknowledged: [WorkerID: Int64] = [:]
  var lastTask: Int64
  var lastSpec: Int64
  var lastWorker: Int64
  var lastWorkflow: Int64
  var lastStep: Int64
  var lastEvent: Int64
  var fleet: FleetState

  init(_ db: Database) throws {
    func last(_ table: String) throws -> Int64 {
      try Int64.fetchOne(db, sql: "SELECT max(id) FROM \(table)") ?? 0
    }
    // A number is not given again after the newest of its kind was deleted.
    func lastEver(_ table: String) throws -> Int64 {
      try Int64.fetchOne(db, sql: "SELECT seq FROM sqlite_sequence WHERE name = ?", arguments: [table]) ?? 0
    }
    let given = try Int64.fetchOne(db, sql: "SELECT last FROM given WHERE kind = 'task'") ?? 0
    lastTask = max(try last("task"), try last("job"), given)
    lastSpec = try last("task_spec")
    lastWorker = try lastEver("worker")
    lastWorkflow = try lastEver("workflow")
    lastStep = try lastEver("step")
    lastEvent = try lastEver("event")
    fleet = try FleetState(db)
    workflows = try Row.fetchAll(db, sql: "SELECT * FROM workflow ORDER BY id").map(WorkflowRow.init)
    steps = try Row.fetchAll(db, sql: "SELECT * FROM step ORDER BY id").map(StepRow.init)
    users = try Row.fetchAll(db, sql: "SELECT * FROM user ORDER BY id").map { User($0).entry }
    workers = try Row.fetchAll(db, sql: "SELECT * FROM worker WHERE status <> 'deleted' ORDER BY id").map(
      WorkerRow.init)
    for row in try Row.fetchAll(db, sql: "SELECT worker_id, sequence FROM outbox_ack") {
      acknowledged[WorkerID(row["worker_id"])] = row["sequence"]
    }
    var endedStatus: [TaskID: TaskStatus] = [:]
    let edges = try HotStatement(
      db,
      """
      SELECT dependency.task_id, dependency.prerequisite_id, prerequisite.status
      FROM dependency
      JOIN task ON task.id = dependency.task_id
      LEFT JOIN task AS prerequisite ON prerequisite.id = dependency.prerequisite_id
      WHERE dependency.met = 0 AND task.status IN ('I', 'W', 'Z')
      ORDER BY dependency.task_id, dependency.prerequisite_id
      """)
    var unmet: [TaskID: [TaskID]] = [:]
    try edges.each { row in
      var row = row
      let task = TaskID(row.integer())
      let prerequisite = TaskID(row.integer())
      unmet[task, default: []].append(prerequisite)
      if let status = TaskStatus(rawValue: row.text()), status.isFinal { endedStatus[prerequisite] = status }
    }
    self.unmet = unmet
    let wanted = try Int64.fetchAll(
      db,
      sql: """
        SELECT DISTINCT job_id FROM task
        WHERE job_id IS NOT NULL AND status IN ('I', 'W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'Z') AND status <> 'S'
        UNION SELECT prerequisite_id FROM dependency JOIN job ON job.id = prerequisite_id WHERE met = 0
        """)
    jobs = try wanted.compactMap { try db.job(TaskID($0)) }
    for job in jobs where job.status.isFinal { endedStatus[job.id] = job.status }
    endedPrerequisites = endedStatus.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    let live = try HotStatement(
      db,
      """
      SELECT \(TaskRow.selection), \(SpecFacts.selection)
      FROM task JOIN task_spec ON task_spec.id = task.spec_id
      WHERE task.status IN ('I', 'W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'Z') AND task.status <> 'S'
      ORDER BY task.id
      """)
    var tasks: [(row: TaskRow, facts: SpecFacts)] = []
    try live.each { columns in
      var rest = columns
      rest.skip(TaskRow.columns.count)
      var row = TaskRow(columns)
      if row.unchecked, row.status == .waiting {
        self.unmet[row.id, default: []].append(Engine.check(of: row.id))
      }
      row.unmet = Int32(self.unmet[row.id]?.count ?? 0)
      tasks.append((row, SpecFacts(&rest)))
    }
    self.tasks = tasks
  }
}
