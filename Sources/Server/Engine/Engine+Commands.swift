import GRDB
import Scheduling
import ScitqProtocol

/// What commands need to know that is not in memory: tasks that have ended or wait, read before the batch begins.
struct Known: Sendable {
  /// As asked for by id.
  var rows: [TaskID: TaskRow] = [:]
  /// The newest attempt of each task named as a prerequisite, or of a retried task's prerequisites.
  var newest: [TaskID: TaskRow] = [:]
  var prerequisites: [TaskID: [TaskID]] = [:]
  /// Submissions that were made before.
  var made: [String: WireTasksCreated] = [:]
  /// What a task that may be cloned needs of its host.
  var needs: [TaskID: Needs] = [:]

  static func key(_ user: UserID, _ key: String) -> String { "\(user):\(key)" }
}

extension Engine {
  func look(up commands: [Command]) async throws -> Known {
    var wanted: Set<TaskID> = []
    var prerequisites: Set<TaskID> = []
    var retried: Set<TaskID> = []
    var keys: [(UserID, String)] = []
    for command in commands {
      switch command {
      case .submit(let submission, _):
        for task in submission.tasks {
          prerequisites.formUnion(task.dependencies.map(TaskID.init(rawValue:)))
        }
        if !submission.key.isEmpty { keys.append((submission.owner.id, submission.key)) }
      case .retry(let request, _, _): retried.insert(TaskID(request.id))
      case .cancel(let id, _, _): wanted.insert(id)
      case .report(_, _, let reports, _):
        // A failure may be retried: its clone needs what the task needed.
        for report in reports where report.status == "F" { retried.insert(TaskID(report.taskID)) }
      case .deleteWorkers(let ids, _, _):
        for id in ids { retried.formUnion(cluster.tasks(on: id)) }
      case .reconcile(let id, _, _, _): retried.formUnion(cluster.tasks(on: id))
      case .tick:
        for id in registry.silent(for: configuration.workers.offlineTimeout) {
          retried.formUnion(cluster.tasks(on: id))
        }
      default: break
      }
    }
    if wanted.isEmpty && prerequisites.isEmpty && retried.isEmpty && keys.isEmpty { return Known() }
    return try await store.read { [wanted, prerequisites, retried, keys] db in
      var known = Known()
      for id in wanted.union(retried) { known.rows[id] = try db.task(id) }
      for id in retried {
        guard let row = known.rows[id] else { continue }
        known.needs[id] = try db.needs(row.specID)
        known.prerequisites[id] = try db.prerequisites(of: id)
        for prerequisite in known.prerequisites[id] ?? [] {
          known.newest[prerequisite] = try db.newestAttempt(prerequisite)
        }
      }
      for id in prerequisites where known.newest[id] == nil { known.newest[id] = try db.newestAttempt(id) }
      for (user, key) in keys {
        let row = try Row.fetchOne(
          db, sql: "SELECT first_id, count FROM idempotency WHERE user_id = ? AND key = ?",
          arguments: [user.rawValue, key])
        if let row {
          var made = WireTasksCreated()
          made.firstID = row["first_id"]
          made.count = row["count"]
          known.made[Known.key(user, key)] = made
        }
      }
      return known
    }
  }

  func apply(_ command: Command, _ known: Known) {
    switch command {
    case .submit(let submission, let reply): submit(submission, known, reply)
    case .retry(let request, let user, let reply): retry(request, by: user, known, reply)
    case .cancel(let id, let user, let reply): cancel(id, by: user, known, reply)
    case .connect(let identity, let software, let credential, let reply):
      connect(identity, software: software, credential: credential, reply)
    case .reconcile(let id, let epoch, let held, let reply): reconcile(id, epoch, held, known, reply)
    case .ready(let id, let epoch): makeReady(id, epoch)
    case .disconnected(let id, let epoch): disconnected(id, epoch)
    case .report(let id, let epoch, let reports, let reply): report(id, epoch, reports, known, reply)
    case .leave(let id, let epoch, let reply): leave(id, epoch, reply)
    case .deleteWorkers(let ids, let user, let reply): deleteWorkers(ids, by: user, known, reply)
    case .write(let body, let reply):
      batch.writes.append(body)
      answer(reply, ())
    case .checked(let id, let existing): checked(id, existing: existing)
    case .tick: tick(known)
    }
  }
}

extension Database {
  func needs(_ spec: Int64) throws -> Needs {
    let row = try Row.fetchOne(
      self, sql: "SELECT cpu, memory_bytes, disk_bytes, gpu, container FROM task_spec WHERE id = ?",
      arguments: [spec])
    var needs = WireNeeds()
    if let row {
      needs.cpu = row["cpu"]
      needs.memoryBytes = row["memory_bytes"]
      needs.diskBytes = row["disk_bytes"]
      needs.gpu = UInt32(clamping: row["gpu"] as Int64)
    }
    return Needs(needs, container: row?["container"] ?? "")
  }
}
