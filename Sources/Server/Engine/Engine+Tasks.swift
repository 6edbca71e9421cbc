import GRDB
import Logging
import Scheduling
import ScitqProtocol

/// Retries, and the ends of tasks that no worker has.
extension Engine {
  // MARK: Retry

  func retry(
    _ request: WireRetryTask, by user: User, _ known: Known,
    _ reply: @escaping Command.Reply<WireTasksRetried>
  ) {
    let id = TaskID(request.id)
    var retried = WireTasksRetried()
    retried.firstID = nextTask
    if let tasks = known.jobTasks[id] {
      if !request.command.isEmpty {
        return reply(
          .failure(
            CallError(.invalid, "a job has one command for all its tasks; edit one of them", field: "id"))
        )
      }
      for task in tasks {
        guard let row = batch.updated[task] ?? known.rows[task] else { continue }
        let status = cluster.task(task)?.status ?? row.status
        if request.failedOnly, status != .failed { continue }
        if status == .succeeded, !request.force { continue }
        if refusal(toRetry: row, request, user) == nil { retry(row, request, user, known) }
      }
      retried.count = nextTask - retried.firstID
      if retried.count == 0 {
        let what = request.failedOnly ? "has failed" : "has failed or was canceled"
        return reply(
          .failure(CallError(.conflict, "no task of job \(id) \(what): nothing to retry", field: "id")))
      }
      return answer(reply, retried)
    }
    guard let row = batch.updated[id] ?? known.rows[id] else { return reply(.failure(Self.noTask(id))) }
    if let refusal = refusal(toRetry: row, request, user) { return reply(.failure(refusal)) }
    retry(row, request, user, known)
    retried.count = 1
    answer(reply, retried)
  }

  private func refusal(toRetry row: TaskRow, _ request: WireRetryTask, _ user: User) -> CallError? {
    let id = row.id
    let status = cluster.task(id)?.status ?? row.status
    if let refusal = forbidden(row, user) { return refusal }
    if let next = row.next {
      return CallError(.conflict, "task \(id) was retried already, as task \(next)", field: "id")
    }
    guard status.isFinal else {
      return CallError(
        .conflict, "task \(id) is \(status.word): only a task that has ended can be retried", field: "id")
    }
    guard status != .succeeded || request.force else {
      return CallError(.conflict, "task \(id) has succeeded; --force runs it again all the same", field: "id")
    }
    if row.step != nil, workflow(of: row.step) == nil {
      return CallError(.conflict, "the step of task \(id) was deleted: submit it anew", field: "id")
    }
    return nil
  }

  private func retry(_ row: TaskRow, _ request: WireRetryTask, _ user: User, _ known: Known) {
    let id = row.id
    let status = cluster.task(id)?.status ?? row.status
    var clone = row.clone(id: TaskID(nextTask), at: batch.now)
    nextTask += 1
    clone.losses = 0
    if request.hasRetry_p { clone.retry = Int32(clamping: request.retry) }
    if !request.command.isEmpty, var spec = known.specs[row.specID] {
      spec.command = request.command
      clone.specID = insert(spec)
    }
    var unmet: [TaskID] = []
    var edges: [(TaskID, Bool)] = []
    for prerequisite in known.prerequisites[id] ?? [] {
      guard let standing = standing(prerequisite, known) else { continue }
      let met = standing.status == .succeeded || standing.status == .failed && clone.acceptFailure
      edges.append((standing.id, met))
      if !met, !unmet.contains(standing.id) { unmet.append(standing.id) }
    }
    clone.status = unmet.isEmpty ? .pending : .waiting
    if !unmet.isEmpty { clone.readyAt = nil }
    clone.unmet = Int32(unmet.count)
    reopen(row, known)
    replace(
      row, with: clone, known.facts[row.specID] ?? SpecFacts(), waitingFor: unmet,
      moveDependents: status != .succeeded)
    for (prerequisite, met) in edges { batch.dependencies.append((clone.id, prerequisite, met)) }
    batch.event(clone.id, from: nil, to: clone.status, user: user.id, reason: "retry of task \(id)")
  }

  /// What the task is part of, and had ended with it, goes on.
  private func reopen(_ row: TaskRow, _ known: Known) {
    if let job = row.job {
      if jobs[job] == nil { jobs[job] = known.jobs[job] }
      cluster.unsettle(job)
    }
    if var workflow = workflow(of: row.step), workflow.state == .canceled {
      workflow.state = .running
      save(workflow)
      batch.event("workflow", workflow.id.rawValue, "reopened", reason: "retry of task \(row.id)")
    }
  }

  /// Hides a task that has ended behind its clone.
  func replace(
    _ old: TaskRow, with clone: TaskRow, _ facts: SpecFacts, waitingFor unmet: [TaskID], moveDependents: Bool
  ) {
    var old = old
    count(old, -1)
    old.next = clone.id
    old.hidden = true
    count(old, +1)
    batch.updated[old.id] = old
    insert(clone)
    let entry = entry(clone, facts.needs(clone.memoryMilli))
    if moveDependents {
      cluster.replace(old.id, with: entry, waitingFor: unmet)
      batch.replaced.append((old.id, clone.id))
    } else {
      cluster.add(entry, waitingFor: unmet)
    }
    setTimers(of: clone, facts)
  }

  // MARK: Change

  func edit(_ request: WireEditTask, by user: User, _ known: Known, _ reply: @escaping Command.Reply<Void>) {
    let id = TaskID(request.id)
    guard let row = batch.inserted(id) ?? known.rows[id] else { return reply(.failure(Self.noTask(id))) }
    if let refusal = forbidden(row, user) { return reply(.failure(refusal)) }
    guard let entry = cluster.task(id), entry.worker == nil else {
      let sentence =
        cluster.task(id).map {
          "task \(id) is \($0.status.word) on a worker and cannot be changed; cancel it first"
        }
        ?? "task \(id) has ended and never changes again; `scitq task edit --command` retries it with another command"
      return reply(.failure(CallError(.conflict, sentence, field: "id")))
    }
    var specID = row.specID
    if request.hasCommand {
      guard var spec = known.specs[row.specID] else { return reply(.failure(Self.noTask(id))) }
      spec.command = request.command
      specID = insert(spec)
    }
    let priority = request.hasPriority ? request.priority : row.priority
    let retry = request.hasRetry ? Int32(clamping: request.retry) : row.retry
    if request.hasPriority { cluster.setPriority(id, priority) }
    batch.lastWrites.append { [specID] db in
      try db.execute(
        sql: "UPDATE task SET spec_id = ?, priority = ?, retry = ? WHERE id = ?",
        arguments: [specID, priority, retry, id.rawValue])
    }
    batch.event("task", id.rawValue, "edited", from: entry.status, user: user.id)
    answer(reply, ())
  }

  // MARK: The end of a task that no worker has

  /// Ends a waiting or ready task.
  func end(
    _ id: TaskID, _ status: TaskStatus, _ reason: FailureReason?, _ message: String, by actor: Actor,
    user: UserID?
  ) {
    guard let entry = cluster.task(id), shift(id, to: status, by: actor) else { return }
    batch.event(id, from: entry.status, to: status, user: user, reason: reason?.rawValue)
    batch.standing[id] = nil
    let now = batch.now
    if batch.inserted(id) != nil {
      changeInserted(id) { row in
        row.status = status
        row.reason = reason?.rawValue
        row.message = message
        row.cancelRequested = status == .canceled
        row.endedAt = now
      }
    } else {
      count(step: entry.step, job: entry.job, entry.status, hidden: false, -1)
      count(step: entry.step, job: entry.job, status, hidden: false, +1)
      batch.ended[id] = Batch.Ended(status: status, reason: reason?.rawValue, message: message)
    }
    announcement.ended.append(id)
    settle(id, status, job: entry.job)
  }

  /// Moves a task in memory. False, and said in the log, where that cannot be: then somebody counted wrong.
  func shift(_ id: TaskID, to status: TaskStatus, by actor: Actor) -> Bool {
    do throws(IllegalMove) {
      try cluster.move(id, to: status, by: actor)
      return true
    } catch {
      logger.error("an impossible move", metadata: ["error": "\(error)"])
      return false
    }
  }

  func cancelDependents(_ ids: [TaskID]) {
    for id in ids where cluster.task(id) != nil {
      end(
        id, .canceled, .dependency, "a prerequisite failed, and it asked to be canceled then", by: .person,
        user: nil)
    }
  }

  /// What waited for the task goes on, or is canceled with it; and what waits for its job.
  func settle(_ id: TaskID, _ outcome: TaskStatus, job: TaskID? = nil, on worker: WorkerID? = nil) {
    let settlement = cluster.settle(id, outcome: outcome, on: worker)
    for task in settlement.changed {
      guard let entry = cluster.task(task) else { continue }
      if id.rawValue > 0 { batch.met.append((task, id)) }
      stand(task, entry, was: settlement.freed.contains(task) ? .waiting : entry.status)
    }
    cancelDependents(settlement.toCancel)
    guard let job, let row = jobs[job], row.status.isFinal else { return }
    settle(job, row.status)
    doneJobs.append(job)
  }

  /// Notes where a task that no worker has stands now.
  func stand(_ id: TaskID, _ entry: TaskEntry, was old: TaskStatus, user: UserID? = nil) {
    let (status, now) = (entry.status, batch.now)
    let isReady = status == .pending
    if batch.inserted(id) != nil {
      changeInserted(id) { row in
        row.status = status
        row.unmet = entry.unmet
        row.suspendWish = status == .suspended ? .task : []
        row.prefer = entry.prefer ?? row.prefer
        if isReady { row.readyAt = row.readyAt ?? now }
      }
    } else {
      batch.standing[id] = Batch.Standing(
        status: status, unmet: entry.unmet, isReady: isReady, prefer: entry.prefer)
      if status != old {
        count(step: entry.step, job: entry.job, old, hidden: false, -1)
        count(step: entry.step, job: entry.job, status, hidden: false, +1)
      }
    }
    if status != old { batch.event(id, from: old, to: status, user: user) }
    if isReady, old != .pending { becameReady(id) }
  }

  // MARK: Refusals

  static func noTask(_ id: TaskID) -> CallError {
    CallError(.notFound, "task \(id) does not exist; `scitq task list` shows those that do", field: "id")
  }

  /// A task may be changed by who submitted it, by the owner of its workflow, and by admins.
  func forbidden(_ row: TaskRow, _ user: User) -> CallError? {
    row.owner == user.id || user.isAdmin || workflow(of: row.step)?.owner == user.id
      ? nil
      : CallError(.forbidden, "task \(row.id) is another user's: only its owner or an admin may change it")
  }
}
