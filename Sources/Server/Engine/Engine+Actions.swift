import GRDB
import Scheduling
import ScitqProtocol

/// What people ask of tasks that are there: one of them, or all of a job.
extension Engine {
  func act(
    _ request: WireActOnTask, by user: User, _ known: Known,
    _ reply: @escaping Command.Reply<WireActedOnTasks>
  ) {
    let id = TaskID(request.id)
    var done = WireActedOnTasks()
    if request.verb == .delete {
      return delete(id, by: user, known, reply)
    }
    if let job = jobs[id] ?? known.jobs[id] {
      guard job.owner == user.id || user.isAdmin || workflow(of: job.step)?.owner == user.id else {
        return reply(
          .failure(
            CallError(.forbidden, "job \(id) is another user's: only its owner or an admin may change it")))
      }
      for task in known.jobTasks[id] ?? [] where act(request, on: task, by: user, known) == nil {
        done.count += 1
      }
      if done.count == 0 {
        return reply(
          .failure(
            CallError(.conflict, "no task of job \(id) can be \(request.verb.participle) now", field: "id")))
      }
      return answer(reply, done)
    }
    if let refusal = act(request, on: id, by: user, known) { return reply(.failure(refusal)) }
    done.count = 1
    answer(reply, done)
  }

  /// Nil when it is done, or on its way.
  private func act(
    _ request: WireActOnTask, on id: TaskID, by user: User, _ known: Known
  ) -> CallError? {
    guard let row = active[id] ?? batch.inserted(id) ?? batch.updated[id] ?? known.rows[id] else {
      return Self.noTask(id)
    }
    if let refusal = forbidden(row, user) { return refusal }
    guard let entry = cluster.task(id) else {
      let next = batch.updated[id]?.next ?? row.next
      let ended = (batch.updated[id] ?? row).status.word
      return CallError(
        .conflict,
        next.map { "task \(id) was retried as task \($0): name that one" }
          ?? "task \(id) has ended already: it is \(ended)", field: "id")
    }
    switch request.verb {
    case .cancel: cancel(id, by: user, atOnce: false)
    case .kill: cancel(id, by: user, atOnce: true)
    case .suspend: return suspend(id, entry, release: request.release, by: user)
    case .resume: return resume(id, entry, row, by: user)
    case .runNow: return runNow(id, entry, by: user)
    case .delete, .unspecified, .UNRECOGNIZED:
      return CallError(.invalid, "this server does not know that verb")
    }
    return nil
  }

  // MARK: Cancel

  /// Ends a task: at once where no worker has it, else when its worker has confirmed the kill.
  func cancel(_ id: TaskID, by user: User, atOnce: Bool = false) {
    if cluster.task(id)?.worker != nil {
      wishCancel(id, user, atOnce: atOnce)
    } else {
      end(id, .canceled, .canceled, "canceled by \(user.username)", by: .person, user: user.id)
    }
  }

  private func wishCancel(_ id: TaskID, _ user: User, atOnce: Bool) {
    guard var row = active[id], let worker = row.worker else { return }
    if row.cancelRequested {
      if atOnce { announceCancel(row, to: worker, atOnce: true) }
      return
    }
    row.cancelRequested = true
    row.suspendWish.remove(.release)
    row.message = "canceled by \(user.username)"
    active[id] = row
    batch.updated[id] = row
    cluster.wishCancel(id)
    batch.event("task", id.rawValue, "cancel-requested", from: row.status, worker: worker, user: user.id)
    announceCancel(row, to: worker, atOnce: atOnce)
  }

  func announceCancel(_ row: TaskRow, to worker: WorkerID, atOnce: Bool = false) {
    announce(.cancel, row, to: worker, atOnce: atOnce)
  }

  func announce(_ action: WireRevokeAction, _ row: TaskRow, to worker: WorkerID, atOnce: Bool = false) {
    var revocation = WireRevocation()
    revocation.attempt.taskID = row.id.rawValue
    revocation.attempt.assignment = row.assignment
    revocation.action = action
    revocation.atOnce = atOnce
    announcement.revocations[worker, default: WireRevocations()].revocations.append(revocation)
  }

  // MARK: One at a time

  /// Lets a task of a workflow that is being debugged run.
  private func runNow(_ id: TaskID, _ entry: TaskEntry, by user: User) -> CallError? {
    guard let workflow = workflow(of: entry.step), workflow.strategy == .debug else {
      return CallError(
        .conflict, "task \(id) is in no workflow of the strategy D, where tasks wait for such a word",
        field: "id")
    }
    guard entry.status == .pending else {
      return CallError(
        .conflict, "task \(id) is \(entry.status.word): only a pending task can be run now", field: "id")
    }
    for task in cluster.taskIDs where task != id {
      guard let other = cluster.task(task), self.workflow(of: other.step)?.id == workflow.id,
        other.worker != nil || other.status == .pending && !other.isHeld
      else { continue }
      return CallError(
        .conflict, "task \(task) of this workflow is \(other.status.word): under D one task runs at a time",
        field: "id")
    }
    cluster.hold(id, false)
    batch.lastWrites.append { db in
      try db.execute(sql: "UPDATE task SET released = 1 WHERE id = ?", arguments: [id.rawValue])
    }
    batch.event("task", id.rawValue, "released", from: .pending, user: user.id)
    return nil
  }

  // MARK: Delete

  private func delete(
    _ id: TaskID, by user: User, _ known: Known, _ reply: @escaping Command.Reply<WireActedOnTasks>
  ) {
    let job = jobs[id] ?? known.jobs[id]
    guard let doomed = known.doomed["task \(id)"], job != nil || known.rows[id] != nil else {
      return reply(.failure(Self.noTask(id)))
    }
    for task in known.jobTasks[id] ?? [id] {
      guard let row = known.rows[task] else { continue }
      if let refusal = forbidden(row, user) { return reply(.failure(refusal)) }
      if let next = batch.updated[task]?.next ?? row.next {
        return reply(
          .failure(
            CallError(.conflict, "task \(task) was retried as task \(next): delete that one", field: "id")))
      }
      if let entry = cluster.task(task) {
        return reply(
          .failure(
            CallError(.conflict, "task \(task) is \(entry.status.word): cancel it first", field: "id")))
      }
    }
    if let refusal = Self.refusal(of: doomed) { return reply(.failure(refusal)) }
    jobs[id] = nil
    erase(doomed.tasks, job: job?.id)
    batch.event(job == nil ? "task" : "job", id.rawValue, "deleted", user: user.id)
    var done = WireActedOnTasks()
    done.count = Int64(doomed.tasks.count)
    answer(reply, done)
  }

  static func refusal(of doomed: Known.Doomed) -> CallError? {
    doomed.outsider.map {
      CallError(.conflict, "task \($0), which would stay, waits for what is to be deleted: cancel it first")
    }
  }

  /// Removes tasks that have ended, or were taken out of the cluster, with all that is kept of them.
  func erase(_ tasks: [TaskID], job: TaskID? = nil) {
    let last = nextTask - 1
    announcement.deleted.append(contentsOf: tasks)
    batch.lastWrites.append { db in
      try db.erase(tasks)
      if let job {
        try db.execute(sql: "DELETE FROM job_count WHERE job_id = ?", arguments: [job.rawValue])
        try db.execute(sql: "DELETE FROM job WHERE id = ?", arguments: [job.rawValue])
      }
      try db.execute(
        sql:
          "INSERT INTO given (kind, last) VALUES ('task', ?) ON CONFLICT DO UPDATE SET last = excluded.last",
        arguments: [last])
    }
  }

  /// Forgets tasks that have ended, if they still have.
  nonisolated func prune(_ tasks: [TaskID]) async throws(CallError) {
    try await ask { .prune(tasks, $0) }
  }

  func prune(_ tasks: [TaskID], _ reply: @escaping Command.Reply<Void>) {
    // One that is being retried, or named as a prerequisite, by this very batch stays.
    let over = tasks.filter {
      cluster.task($0) == nil && batch.updated[$0] == nil && cluster.dependents(of: $0).isEmpty
    }
    erase(over)
    batch.lastWrites.append { db in
      try db.execute(
        sql: """
          DELETE FROM job WHERE step_id IS NULL AND NOT EXISTS (SELECT 1 FROM task WHERE task.job_id = job.id)
          """)
      try db.execute(sql: "DELETE FROM job_count WHERE job_id NOT IN (SELECT id FROM job)")
    }
    answer(reply, ())
  }
}

extension WireTaskVerb {
  var participle: String {
    switch self {
    case .cancel: "canceled"
    case .kill: "killed"
    case .suspend: "suspended"
    case .resume: "resumed"
    case .runNow: "run"
    case .delete: "deleted"
    case .unspecified, .UNRECOGNIZED: "changed"
    }
  }
}
