import GRDB
import ScitqProtocol

/// Everything one pass of the engine changes. Made durable in one transaction, or not at all.
struct Batch: Sendable {
  struct Event: Sendable {
    var object: String
    var first: Int64
    var last: Int64
    var from: TaskStatus?
    var to: String
    var worker: WorkerID?
    var user: UserID?
    var reason: String?
  }

  /// What the counts that people see are kept by.
  struct CountKey: Hashable, Sendable {
    var step: StepID?
    var status: TaskStatus
    var hidden: Bool
  }

  struct JobCountKey: Hashable, Sendable {
    var job: TaskID
    var status: TaskStatus
  }

  /// How a task has ended that no worker had.
  struct Ended: Sendable {
    var status: TaskStatus
    var reason: String?
    var message: String
  }

  /// Where a task that no worker has stands now.
  struct Standing: Sendable {
    var status: TaskStatus
    var unmet: Int32
    /// It has nothing left to wait for.
    var isReady: Bool
    var prefer: WorkerID?
  }

  struct Assigned: Sendable {
    var task: TaskID
    var worker: WorkerID
    var assignment: Int64
  }

  var now: Int64
  var specs: [(id: Int64, spec: WireTaskSpec)] = []
  var inserted: [TaskRow] = []
  private(set) var insertedAt: [TaskID: Int] = [:]
  /// Tasks on a worker, or ended: written whole but for what never changes.
  var updated: [TaskID: TaskRow] = [:]
  /// Tasks taken back from a worker, ready again.
  var requeued: [TaskID: TaskRow] = [:]
  /// Tasks that no worker has and that moved, or of which a prerequisite was met.
  var standing: [TaskID: Standing] = [:]
  /// Tasks that were ended while no worker had them.
  var ended: [TaskID: Ended] = [:]
  /// Tasks of which it is known now whether their output exists.
  var checked: [TaskID] = []
  var assigned: [Assigned] = []
  var dependencies: [(task: TaskID, prerequisite: TaskID, met: Bool)] = []
  /// The second takes over what the first waited for, and what still waits for the first waits for the second.
  var replaced: [(old: TaskID, new: TaskID)] = []
  /// Prerequisites that were met.
  var met: [(task: TaskID, prerequisite: TaskID)] = []
  var events: [Event] = []
  var counts: [CountKey: Int64] = [:]
  var jobCounts: [JobCountKey: Int64] = [:]
  var jobs: [JobRow] = []
  var phases = PhaseSums()
  var acknowledged: [WorkerID: Int64] = [:]
  var keys: [(user: UserID, key: String, first: Int64, count: Int64)] = []
  /// Before everything else.
  var writes: [@Sendable (Database) throws -> Void] = []
  /// After everything else but the assignments.
  var lastWrites: [@Sendable (Database) throws -> Void] = []
  /// Steps whose tasks are told which of their inputs are on their worker already.
  var threadSteps: Set<StepID> = []

  init(now: Int64) { self.now = now }

  mutating func insert(_ row: TaskRow) {
    insertedAt[row.id] = inserted.count
    inserted.append(row)
  }

  /// The row of a task that this very batch made.
  func inserted(_ id: TaskID) -> TaskRow? { insertedAt[id].map { inserted[$0] } }

  mutating func changeInserted(_ id: TaskID, _ change: (inout TaskRow) -> Void) {
    guard let index = insertedAt[id] else { return }
    change(&inserted[index])
  }

  mutating func count(step: StepID?, job: TaskID?, _ status: TaskStatus, hidden: Bool, _ by: Int64) {
    counts[CountKey(step: step, status: status, hidden: hidden), default: 0] += by
    if let job, !hidden { jobCounts[JobCountKey(job: job, status: status), default: 0] += by }
  }

  mutating func event(
    _ task: TaskID, from: TaskStatus?, to: TaskStatus, worker: WorkerID? = nil, user: UserID? = nil,
    reason: String? = nil
  ) {
    events.append(
      Event(
        object: "task", first: task.rawValue, last: task.rawValue, from: from, to: to.rawValue,
        worker: worker, user: user, reason: reason))
  }

  /// What happened to something else than a task's status.
  mutating func event(
    _ object: String, _ id: Int64, _ what: String, from: TaskStatus? = nil, worker: WorkerID? = nil,
    user: UserID? = nil, reason: String? = nil
  ) {
    events.append(
      Event(
        object: object, first: id, last: id, from: from, to: what, worker: worker, user: user, reason: reason)
    )
  }

  mutating func event(worker: WorkerID, _ what: String, user: UserID? = nil, reason: String? = nil) {
    event("worker", worker.rawValue, what, user: user, reason: reason)
  }

  var isEmpty: Bool {
    specs.isEmpty && inserted.isEmpty && updated.isEmpty && requeued.isEmpty && standing.isEmpty
      && ended.isEmpty && checked.isEmpty && assigned.isEmpty && dependencies.isEmpty && replaced.isEmpty
      && met.isEmpty && events.isEmpty && counts.isEmpty && jobs.isEmpty && phases.isEmpty
      && acknowledged.isEmpty && keys.isEmpty && writes.isEmpty && lastWrites.isEmpty
  }
}

extension Batch {
  /// What came of writing a batch.
  struct Written: Sendable {
    /// The rows and specs of the tasks it gave to workers.
    var orders: [Order] = []
    /// The number of its last event; nil: it had none.
    var lastEvent: Int64?
  }

  struct Order: Sendable {
    var row: TaskRow
    var spec: WireTaskSpec
    /// What its prerequisites left on this worker.
    var kept: [WireKeptOutput] = []
  }

  /// Writes it all.
  func write(_ db: Database) throws -> Written {
    for write in writes { try write(db) }
    for job in jobs { try job.insert(db) }
    let specStatement = try HotStatement(db, TaskSpecRow.insertion)
    for (id, spec) in specs {
      TaskSpecRow.bind(specStatement, id: id, spec)
      try specStatement.run()
    }
    let insertion = try HotStatement(db, TaskRow.insertion)
    for row in inserted {
      row.bind(insertion)
      try insertion.run()
    }
    try writeDependencies(db)
    try writeChanges(db)
    var written = Written()
    written.lastEvent = try writeEvents(db)
    try writeLedger(db)
    for write in lastWrites { try write(db) }
    written.orders = try writeAssignments(db)
    return written
  }

  private func writeDependencies(_ db: Database) throws {
    for (old, new) in replaced {
      // The old attempt keeps its own list, as history; what waits for it moves on.
      try db.execute(
        sql: """
          INSERT INTO dependency (task_id, prerequisite_id, met)
          SELECT ?, prerequisite_id, met FROM dependency WHERE task_id = ?
          """, arguments: [new.rawValue, old.rawValue])
      try db.execute(
        sql: "UPDATE OR REPLACE dependency SET prerequisite_id = ? WHERE prerequisite_id = ? AND met = 0",
        arguments: [new.rawValue, old.rawValue])
    }
    let edge = try HotStatement(
      db, "INSERT OR REPLACE INTO dependency (task_id, prerequisite_id, met) VALUES (?, ?, ?)")
    for (task, prerequisite, met) in dependencies {
      edge.bind(task.rawValue)
      edge.bind(prerequisite.rawValue)
      edge.bind(met)
      try edge.run()
    }
    let meet = try HotStatement(
      db, "UPDATE dependency SET met = 1 WHERE task_id = ? AND prerequisite_id = ?")
    for (task, prerequisite) in met {
      meet.bind(task.rawValue)
      meet.bind(prerequisite.rawValue)
      try meet.run()
    }
  }

  private func writeChanges(_ db: Database) throws {
    let stand = try HotStatement(
      db,
      """
      UPDATE task SET status = ?, unmet = ?, suspend_wish = ?, ready_at = coalesce(ready_at, ?),
        prefer_worker_id = coalesce(?, prefer_worker_id) WHERE id = ?
      """)
    for (id, change) in standing {
      stand.bind(change.status.rawValue)
      stand.bind(Int64(change.unmet))
      stand.bind(Int64(change.status == .suspended ? SuspendWish.task.rawValue : 0))
      stand.bind(change.isReady ? now : nil)
      stand.bind(change.prefer?.rawValue)
      stand.bind(id.rawValue)
      try stand.run()
    }
    let requeue = try HotStatement(
      db,
      """
      UPDATE task SET status = ?, worker_id = NULL, assigned_at = NULL, download_started_at = NULL,
        avoid_worker_id = ?, suspend_wish = ? WHERE id = ?
      """)
    for (id, row) in requeued {
      requeue.bind(row.status.rawValue)
      requeue.bind(row.avoid?.rawValue)
      requeue.bind(Int64(row.suspendWish.rawValue))
      requeue.bind(id.rawValue)
      try requeue.run()
    }
    let end = try HotStatement(
      db,
      """
      UPDATE task SET status = ?, cancel_requested = ?, reason = ?, message = ?, ended_at = ? WHERE id = ?
      """)
    for (id, how) in ended {
      end.bind(how.status.rawValue)
      end.bind(how.status == .canceled)
      end.bind(how.reason)
      end.bind(how.message)
      end.bind(now)
      end.bind(id.rawValue)
      try end.run()
    }
    let check = try HotStatement(db, "UPDATE task SET unchecked = 0 WHERE id = ?")
    for id in checked {
      check.bind(id.rawValue)
      try check.run()
    }
    let update = try HotStatement(
      db,
      """
      UPDATE task SET status = ?, next_task_id = ?, hidden = ?, cancel_requested = ?, reason = ?, message = ?,
        exit_code = ?, out_bytes = ?, err_bytes = ?, inputs = ?, outputs = ?, download_started_at = ?, run_started_at = ?,
        run_ended_at = ?, ended_at = ?, suspend_wish = ?, suspended_at = ?, suspended_for = ? WHERE id = ?
      """)
    for (id, row) in updated {
      update.bind(row.status.rawValue)
      update.bind(row.next?.rawValue)
      update.bind(row.hidden)
      update.bind(row.cancelRequested)
      update.bind(row.reason)
      update.bind(row.message)
      update.bind(row.exitCode.map(Int64.init))
      update.bind(row.outBytes)
      update.bind(row.errBytes)
      update.bind(row.inputs)
      update.bind(row.outputs)
      update.bind(row.downloadStartedAt)
      update.bind(row.runStartedAt)
      update.bind(row.runEndedAt)
      update.bind(row.endedAt)
      update.bind(Int64(row.suspendWish.rawValue))
      update.bind(row.suspendedAt)
      update.bind(row.suspendedFor)
      update.bind(id.rawValue)
      try update.run()
    }
  }

  private func writeEvents(_ db: Database) throws -> Int64? {
    if events.isEmpty { return nil }
    let event = try HotStatement(
      db,
      """
      INSERT INTO event (at, object, first_id, last_id, from_status, to_status, worker_id, user_id, reason)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
      """)
    for entry in events {
      event.bind(now)
      event.bind(entry.object)
      event.bind(entry.first)
      event.bind(entry.last)
      event.bind(entry.from?.rawValue)
      event.bind(entry.to)
      event.bind(entry.worker?.rawValue)
      event.bind(entry.user?.rawValue)
      event.bind(entry.reason)
      try event.run()
    }
    return db.lastInsertedRowID
  }

  private func writeLedger(_ db: Database) throws {
    let raise = try HotStatement(
      db,
      """
      INSERT INTO task_count (step_id, status, hidden, count) VALUES (?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET count = count + excluded.count
      """)
    let lower = try HotStatement(
      db, "UPDATE task_count SET count = count - ? WHERE step_id = ? AND status = ? AND hidden = ?")
    for (key, change) in counts where change != 0 {
      let step = key.step?.rawValue ?? 0
      if change > 0 {
        raise.bind(step)
        raise.bind(key.status.rawValue)
        raise.bind(key.hidden)
        raise.bind(change)
        try raise.run()
      } else {
        lower.bind(-change)
        lower.bind(step)
        lower.bind(key.status.rawValue)
        lower.bind(key.hidden)
        try lower.run()
      }
    }
    try writeJobCounts(db)
    try phases.write(db)
    let acknowledgement = try HotStatement(
      db,
      """
      INSERT INTO outbox_ack (worker_id, sequence) VALUES (?, ?)
      ON CONFLICT DO UPDATE SET sequence = excluded.sequence
      """)
    for (worker, sequence) in acknowledged {
      acknowledgement.bind(worker.rawValue)
      acknowledgement.bind(sequence)
      try acknowledgement.run()
    }
    for (user, key, first, count) in keys {
      try db.execute(
        sql: "INSERT INTO idempotency (user_id, key, first_id, count, created_at) VALUES (?, ?, ?, ?, ?)",
        arguments: [user.rawValue, key, first, count, now])
    }
  }

  private func writeJobCounts(_ db: Database) throws {
    guard !jobCounts.isEmpty else { return }
    // What goes down had gone up before: no count passes below zero on the way.
    let change = try HotStatement(
      db,
      """
      INSERT INTO job_count (job_id, status, count) VALUES (?, ?, max(?3, 0))
      ON CONFLICT DO UPDATE SET count = count + ?3
      """)
    for (key, by) in jobCounts where by != 0 {
      change.bind(key.job.rawValue)
      change.bind(key.status.rawValue)
      change.bind(by)
      try change.run()
    }
  }
}
