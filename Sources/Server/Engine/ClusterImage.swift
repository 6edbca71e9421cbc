import GRDB
import Scheduling
import ScitqProtocol

/// What the database says of everything that can still move: all that the engine is rebuilt from.
struct ClusterImage: Sendable {
  var workers: [WorkerRow] = []
  var tasks: [(row: TaskRow, needs: Needs)] = []
  var unmet: [TaskID: [TaskID]] = [:]
  /// Prerequisites that ended without being met, for good.
  var endedPrerequisites: [(TaskID, TaskStatus)] = []
  var acknowledged: [WorkerID: Int64] = [:]
  var lastTask: Int64
  var lastSpec: Int64
  var lastWorker: Int64

  init(_ db: Database) throws {
    lastTask = try Int64.fetchOne(db, sql: "SELECT max(id) FROM task") ?? 0
    lastSpec = try Int64.fetchOne(db, sql: "SELECT max(id) FROM task_spec") ?? 0
    lastWorker = try Int64.fetchOne(db, sql: "SELECT max(id) FROM worker") ?? 0
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
      JOIN task AS prerequisite ON prerequisite.id = dependency.prerequisite_id
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
    endedPrerequisites = endedStatus.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    let live = try HotStatement(
      db,
      """
      SELECT \(TaskRow.selection), task_spec.cpu, task_spec.memory_bytes, task_spec.disk_bytes, task_spec.gpu,
        task_spec.container
      FROM task JOIN task_spec ON task_spec.id = task.spec_id
      WHERE task.status IN ('I', 'W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'Z') AND task.status <> 'S'
      ORDER BY task.id
      """)
    var tasks: [(row: TaskRow, needs: Needs)] = []
    try live.each { columns in
      var rest = columns
      rest.skip(TaskRow.columns.count)
      var needs = WireNeeds()
      needs.cpu = rest.real()
      needs.memoryBytes = rest.integer()
      needs.diskBytes = rest.integer()
      needs.gpu = UInt32(clamping: rest.integer())
      var row = TaskRow(columns)
      if row.unchecked, row.status == .waiting {
        self.unmet[row.id, default: []].append(Engine.check(of: row.id))
      }
      row.unmet = Int32(self.unmet[row.id]?.count ?? 0)
      tasks.append((row, Needs(needs, container: rest.text())))
    }
    self.tasks = tasks
  }
}
