import GRDB
import Scheduling
import ScitqProtocol

/// What commands need to know that is not in memory: tasks that have ended or wait, read before the batch begins.
struct Known: Sendable {
  /// As asked for by id, and the newest attempts of the tasks of jobs that were asked for.
  var rows: [TaskID: TaskRow] = [:]
  /// The newest attempt of each task named as a prerequisite, or of a retried task's prerequisites.
  var newest: [TaskID: TaskRow] = [:]
  var prerequisites: [TaskID: [TaskID]] = [:]
  /// Jobs that were named, also those that have ended.
  var jobs: [TaskID: JobRow] = [:]
  /// The newest attempts of a job's tasks, by index.
  var jobTasks: [TaskID: [TaskID]] = [:]
  /// By the id of a spec, of each task that may be cloned.
  var facts: [Int64: SpecFacts] = [:]
  /// Whole, of tasks that are to be changed.
  var specs: [Int64: WireTaskSpec] = [:]
  /// Submissions that were made before, and workflows and steps.
  var made: [String: WireTasksCreated] = [:]
  /// What is to be deleted: all tasks of a workflow, step, job or task with its earlier attempts.
  var doomed: [String: Doomed] = [:]

  struct Doomed: Sendable {
    var tasks: [TaskID] = []
    /// A task that would stay and waits for one of them.
    var outsider: TaskID?
  }

  static func key(_ user: UserID, _ key: String) -> String { "\(user):\(key)" }
}

/// What some commands want to know.
private struct Wanted: Sendable {
  var tasks: Set<TaskID> = []
  /// Tasks or jobs.
  var either: Set<TaskID> = []
  var prerequisites: Set<TaskID> = []
  /// Jobs whose tasks are waited for index by index.
  var eachOf: Set<TaskID> = []
  var cloned: Set<TaskID> = []
  var changed: Set<TaskID> = []
  var keys: [(user: UserID, key: String)] = []
  var doomed: [String: (condition: String, id: Int64)] = [:]

  var isEmpty: Bool {
    tasks.isEmpty && either.isEmpty && prerequisites.isEmpty && eachOf.isEmpty && cloned.isEmpty
      && changed.isEmpty && keys.isEmpty && doomed.isEmpty
  }
}

extension Engine {
  func look(up commands: [Command]) async throws -> Known {
    var wanted = Wanted()
    for command in commands { add(what: command, to: &wanted) }
    if wanted.isEmpty { return Known() }
    return try await store.read { [wanted] db in try Known(wanted, db) }
  }

  private func add(what command: Command, to wanted: inout Wanted) {
    switch command {
    case .submit(let submission, _):
      for task in submission.tasks {
        wanted.prerequisites.formUnion(task.dependencies.map { TaskID($0) })
      }
      if let job = submission.job {
        wanted.prerequisites.formUnion(job.header.task.dependencies.map { TaskID($0) })
        wanted.eachOf.formUnion(job.header.task.eachOf.map { TaskID($0) })
      }
      if !submission.key.isEmpty { wanted.keys.append((submission.owner.id, submission.key)) }
    case .retry(let request, _, _):
      wanted.cloned.insert(TaskID(request.id))
      if !request.command.isEmpty { wanted.changed.insert(TaskID(request.id)) }
    case .edit(let request, _, _): wanted.changed.insert(TaskID(request.id))
    case .act(let request, _, _):
      wanted.either.insert(TaskID(request.id))
      if request.verb == .delete {
        wanted.doomed["task \(request.id)"] = ("", request.id)
      }
    case .changeFleet(.deploy(let request), let user, _) where !request.idempotencyKey.isEmpty:
      wanted.keys.append((user.id, Self.key(of: request)))
    case .flow(let flow, let user, _):
      switch flow {
      case .createWorkflow(let request): wanted.keys.append((user.id, Self.key(of: request)))
      case .createStep(let request): wanted.keys.append((user.id, Self.key(of: request)))
      case .actOnWorkflow(let request) where request.verb == .delete:
        wanted.doomed["workflow \(request.id)"] = (
          "step_id IN (SELECT id FROM step WHERE workflow_id = ?)", request.id
        )
      case .actOnStep(let request) where request.verb == .delete:
        wanted.doomed["step \(request.id)"] = ("step_id = ?", request.id)
      default: break
      }
    case .report(_, _, let reports, _):
      // A failure may be retried: its clone needs what the task needed. So may one that is given up for a while.
      for report in reports where report.status == "F" || report.status == "X" {
        wanted.cloned.insert(TaskID(report.taskID))
      }
    case .fleet(.seen(_, let found, let time, let queues), _):
      // Of hosts that their provider did not know the last time: if it does not again, what they had is lost.
      for id in fleet.missing.keys {
        if let worker = fleet.instances[id]?.worker { wanted.cloned.formUnion(cluster.tasks(on: worker)) }
      }
      // And of jobs that were put back into their queue.
      let waiting = queues ? Set(found.filter { $0.state == .pending }.map(\.key)) : []
      for row in fleet.instances.values where waiting.contains(row.key) && wasPutBack(row, at: time) {
        wanted.cloned.formUnion(cluster.tasks(on: row.worker))
      }
    case .deleteWorkers(let ids, _, _, _):
      for id in ids { wanted.cloned.formUnion(cluster.tasks(on: id)) }
    case .reconcile(let id, _, _, _): wanted.cloned.formUnion(cluster.tasks(on: id))
    case .tick:
      for id in registry.silent(for: configuration.workers.offlineTimeout) {
        wanted.cloned.formUnion(cluster.tasks(on: id))
      }
    default: break
    }
  }
}

extension Known {
  fileprivate init(_ wanted: Wanted, _ db: Database) throws {
    for id in wanted.either.union(wanted.cloned) {
      if let row = try db.task(id) { rows[id] = row } else { try readJob(id, db) }
    }
    for id in wanted.eachOf {
      try readJob(id, db)
      for task in jobTasks[id] ?? [] { newest[task] = rows[task] }
    }
    let cloned = wanted.cloned.flatMap { jobTasks[$0] ?? [$0] }
    for id in cloned {
      guard let row = rows[id] else { continue }
      if let job = row.job, jobs[job] == nil { jobs[job] = try db.job(job) }
      if facts[row.specID] == nil { facts[row.specID] = try db.facts(ofSpec: row.specID) }
      let named = try db.prerequisites(of: id)
      prerequisites[id] = named
      for prerequisite in named { try readPrerequisite(prerequisite, db) }
    }
    for id in wanted.prerequisites { try readPrerequisite(id, db) }
    for id in wanted.changed {
      if rows[id] == nil { rows[id] = try db.task(id) }
      guard let row = rows[id] else { continue }
      specs[row.specID] = try db.spec(row.specID)
      facts[row.specID] = try db.facts(ofSpec: row.specID)
    }
    for (user, key) in wanted.keys { try readMade(user, key, db) }
    for (name, one) in wanted.doomed { doomed[name] = try readDoomed(one.condition, one.id, db) }
  }

  private mutating func readJob(_ id: TaskID, _ db: Database) throws {
    guard jobs[id] == nil, let job = try db.job(id) else { return }
    jobs[id] = job
    let tasks = try db.tasks(of: id)
    jobTasks[id] = tasks
    for task in tasks { rows[task] = try db.task(task) }
  }

  private mutating func readPrerequisite(_ id: TaskID, _ db: Database) throws {
    guard newest[id] == nil, jobs[id] == nil else { return }
    if let row = try db.newestAttempt(id) { newest[id] = row } else { jobs[id] = try db.job(id) }
  }

  private mutating func readMade(_ user: UserID, _ key: String, _ db: Database) throws {
    let row = try Row.fetchOne(
      db, sql: "SELECT first_id, count FROM idempotency WHERE user_id = ? AND key = ?",
      arguments: [user.rawValue, key])
    guard let row else { return }
    var made = WireTasksCreated()
    made.firstID = row["first_id"]
    made.count = row["count"]
    // A job's number is the one before its first task's.
    if try db.job(TaskID(made.firstID - 1)) != nil { made.jobID = made.firstID - 1 }
    self.made[Known.key(user, key)] = made
  }

  private func readDoomed(_ condition: String, _ id: Int64, _ db: Database) throws -> Doomed {
    var doomed = Doomed()
    if condition.isEmpty {
      var rows = try (jobTasks[TaskID(id)] ?? [TaskID(id)]).compactMap { try db.task($0) }
      while let row = rows.popLast() {
        doomed.tasks.append(row.id)
        if let previous = row.previous.flatMap({ try? db.task($0) }) { rows.append(previous) }
      }
    } else {
      doomed.tasks = try Int64.fetchAll(db, sql: "SELECT id FROM task WHERE \(condition)", arguments: [id])
        .map { TaskID($0) }
    }
    let all = Set(doomed.tasks)
    let waiting = try HotStatement(
      db, "SELECT task_id FROM dependency WHERE prerequisite_id = ? AND met = 0")
    for task in doomed.tasks + (jobs[TaskID(id)] != nil && condition.isEmpty ? [TaskID(id)] : []) {
      waiting.bind(task.rawValue)
      try waiting.each { row in
        var row = row
        let dependent = TaskID(row.integer())
        guard doomed.outsider == nil, !all.contains(dependent),
          let status = try db.task(dependent)?.status, !status.isFinal
        else { return }
        doomed.outsider = dependent
      }
    }
    return doomed
  }
}
