import Logging
import Scheduling
import ScitqProtocol

/// What people ask of tasks.
extension Engine {
  // MARK: Submission

  func submit(_ submission: Submission, _ known: Known, _ reply: @escaping Command.Reply<WireTasksCreated>) {
    let key = Known.key(submission.owner.id, submission.key)
    if !submission.key.isEmpty {
      if let made = known.made[key] { return reply(.success(made)) }
      // The same call twice in one batch: the second is told what the first made.
      if let twin = batch.keys.first(where: { $0.user == submission.owner.id && $0.key == submission.key }) {
        var made = WireTasksCreated()
        made.firstID = twin.first
        made.count = twin.count
        return answer(reply, made)
      }
    }
    for (index, task) in submission.tasks.enumerated() {
      for dependency in task.dependencies where standing(TaskID(dependency), known) == nil {
        let place = submission.tasks.count == 1 ? "" : " of task \(index + 1)"
        return reply(
          .failure(
            CallError(
              .notFound, "dependency \(dependency)\(place) does not exist; name the id of a task",
              field: "dependency"
            )))
      }
    }
    var made = WireTasksCreated()
    made.firstID = nextTask
    made.count = Int64(submission.tasks.count)
    var previous: (spec: WireTaskSpec, id: Int64, needs: Needs)?
    var runs: [(status: TaskStatus, first: Int64, last: Int64)] = []
    var doomed: [TaskID] = []
    for task in submission.tasks {
      if previous == nil || previous!.spec != task.spec {
        previous = (task.spec, nextSpec, Needs(task.spec.needs, container: task.spec.container))
        batch.specs.append((nextSpec, task.spec))
        nextSpec += 1
      }
      let (status, toCancel) = add(task, spec: previous!.id, previous!.needs, owner: submission.owner, known)
      doomed.append(contentsOf: toCancel)
      if let last = runs.last, last.status == status {
        runs[runs.count - 1].last += 1
      } else {
        runs.append((status, nextTask - 1, nextTask - 1))
      }
    }
    for run in runs {
      batch.events.append(
        Batch.Event(
          object: "task", first: run.first, last: run.last, from: nil, to: run.status.rawValue, worker: nil,
          user: submission.owner.id, reason: nil))
    }
    // Only now: the event of their creation comes before that of their end.
    cancelDependents(doomed)
    if !submission.key.isEmpty {
      batch.keys.append((submission.owner.id, submission.key, made.firstID, made.count))
    }
    answer(reply, made)
  }

  /// How a task named as a prerequisite stands: its newest attempt. Nil when there is none of that id.
  private func standing(_ id: TaskID, _ known: Known) -> (id: TaskID, status: TaskStatus)? {
    guard var row = known.newest[id] ?? batch.inserted(id) else { return nil }
    // This very batch may have put a clone in its place, or ended it.
    while let next = batch.updated[row.id]?.next ?? row.next, let clone = batch.inserted(next) { row = clone }
    let status =
      cluster.task(row.id)?.status ?? batch.updated[row.id]?.status ?? batch.inserted(row.id)?.status
    return (row.id, status ?? row.status)
  }

  private func add(
    _ task: WireNewTask, spec: Int64, _ needs: Needs, owner: User, _ known: Known
  ) -> (status: TaskStatus, toCancel: [TaskID]) {
    let id = TaskID(nextTask)
    nextTask += 1
    var row = TaskRow(
      id: id, specID: spec, owner: owner.id, status: .pending, place: id.rawValue, createdAt: batch.now)
    row.name = task.name
    row.step = task.stepID == 0 ? nil : StepID(task.stepID)
    row.priority = task.priority
    row.weightMilli = task.weight == 0 ? 1000 : max(1, Int32(clamping: Int64((task.weight * 1000).rounded())))
    row.retry = Int32(clamping: task.retry)
    row.acceptFailure = task.acceptFailure
    row.cancelWithPrerequisite = task.onDependencyFailure == .cancel
    var unmet: [TaskID] = []
    var failed: [(id: TaskID, status: TaskStatus)] = []
    for dependency in Set(task.dependencies).sorted() {
      guard let prerequisite = standing(TaskID(dependency), known) else { continue }
      let met =
        prerequisite.status == .succeeded || prerequisite.status == .failed && row.acceptFailure
      batch.dependencies.append((id, prerequisite.id, met))
      if met || unmet.contains(prerequisite.id) { continue }
      unmet.append(prerequisite.id)
      if prerequisite.status.isFinal { failed.append(prerequisite) }
    }
    if task.spec.skipIfExists {
      row.unchecked = true
      unmet.append(Self.check(of: id))
      announcement.checks.append(id)
    }
    if !unmet.isEmpty { row.status = TaskStatus.waiting }
    row.unmet = Int32(unmet.count)
    batch.insert(row)
    cluster.add(entry(row, needs), waitingFor: unmet)
    let toCancel = failed.flatMap { cluster.settle($0.id, outcome: $0.status).toCancel }
    return (row.status, toCancel)
  }

  /// What a task waits for that is to be skipped when its output exists: in the cluster, a prerequisite of a number
  /// that no task has.
  static func check(of id: TaskID) -> TaskID { TaskID(-id.rawValue) }

  func checked(_ id: TaskID, existing: String?) {
    // It may have been canceled meanwhile.
    guard cluster.task(id)?.status == .waiting else { return }
    batch.checked.append(id)
    if let existing {
      end(
        id, .succeeded, nil, "not run: there are files at \(existing) already", by: .server, user: nil,
        row: nil)
    }
    settle(Self.check(of: id), .succeeded)
  }

  // MARK: Retry

  func retry(
    _ request: WireRetryTask, by user: User, _ known: Known, _ reply: @escaping Command.Reply<TaskID>
  ) {
    let id = TaskID(request.id)
    guard let row = batch.updated[id] ?? known.rows[id] else { return reply(.failure(Self.noTask(id))) }
    let status = cluster.task(id)?.status ?? row.status
    if let refusal = Self.forbidden(row, user) { return reply(.failure(refusal)) }
    if let next = row.next {
      return reply(
        .failure(CallError(.conflict, "task \(id) was retried already, as task \(next)", field: "id")))
    }
    guard status.isFinal else {
      return reply(
        .failure(
          CallError(
            .conflict, "task \(id) is \(status.word): only a task that has ended can be retried", field: "id")
        ))
    }
    guard status != .succeeded || request.force else {
      return reply(
        .failure(
          CallError(.conflict, "task \(id) has succeeded; --force runs it again all the same", field: "id")))
    }
    var clone = row.clone(id: TaskID(nextTask), at: batch.now)
    nextTask += 1
    clone.losses = 0
    if request.hasRetry_p { clone.retry = Int32(clamping: request.retry) }
    var unmet: [TaskID] = []
    var edges: [(TaskID, Bool)] = []
    for prerequisite in known.prerequisites[id] ?? [] {
      guard let standing = standing(prerequisite, known) else { continue }
      let met = standing.status == .succeeded || standing.status == .failed && clone.acceptFailure
      edges.append((standing.id, met))
      if !met, !unmet.contains(standing.id) { unmet.append(standing.id) }
    }
    clone.status = unmet.isEmpty ? .pending : .waiting
    clone.unmet = Int32(unmet.count)
    replace(
      row, with: clone, known.needs[id] ?? Needs(), waitingFor: unmet, moveDependents: status != .succeeded)
    for (prerequisite, met) in edges { batch.dependencies.append((clone.id, prerequisite, met)) }
    batch.event(clone.id, from: nil, to: clone.status, user: user.id, reason: "retry of task \(id)")
    answer(reply, clone.id)
  }

  /// Hides a task that has ended behind its clone.
  func replace(
    _ old: TaskRow, with clone: TaskRow, _ needs: Needs, waitingFor unmet: [TaskID], moveDependents: Bool
  ) {
    var old = old
    batch.count(old, -1)
    old.next = clone.id
    old.hidden = true
    batch.count(old, +1)
    batch.updated[old.id] = old
    batch.insert(clone)
    if moveDependents {
      cluster.replace(old.id, with: entry(clone, needs), waitingFor: unmet)
      batch.replaced.append((old.id, clone.id))
    } else {
      cluster.add(entry(clone, needs), waitingFor: unmet)
    }
  }

  // MARK: Cancel

  func cancel(_ id: TaskID, by user: User, _ known: Known, _ reply: @escaping Command.Reply<Void>) {
    guard let row = active[id] ?? batch.inserted(id) ?? batch.updated[id] ?? known.rows[id] else {
      return reply(.failure(Self.noTask(id)))
    }
    if let refusal = Self.forbidden(row, user) { return reply(.failure(refusal)) }
    guard let status = cluster.task(id)?.status else {
      let next = batch.updated[id]?.next ?? row.next
      let ended = (batch.updated[id] ?? row).status.word
      let sentence =
        next.map { "task \(id) was retried as task \($0): cancel that one" }
        ?? "task \(id) has ended already: it is \(ended)"
      return reply(.failure(CallError(.conflict, sentence, field: "id")))
    }
    if status.isOnWorker {
      wishCancel(id, user)
    } else {
      end(id, .canceled, .canceled, "canceled by \(user.username)", by: .person, user: user.id, row: row)
    }
    answer(reply, ())
  }

  /// Notes the wish and tells the worker; the task ends when the worker has confirmed the kill.
  private func wishCancel(_ id: TaskID, _ user: User) {
    guard var row = active[id], let worker = row.worker, !row.cancelRequested else { return }
    row.cancelRequested = true
    row.message = "canceled by \(user.username)"
    active[id] = row
    batch.updated[id] = row
    cluster.wishCancel(id)
    batch.events.append(
      Batch.Event(
        object: "task", first: id.rawValue, last: id.rawValue, from: row.status, to: "cancel-requested",
        worker: worker, user: user.id, reason: nil))
    announceCancel(row, to: worker)
  }

  func announceCancel(_ row: TaskRow, to worker: WorkerID) {
    var revocation = WireRevocation()
    revocation.attempt.taskID = row.id.rawValue
    revocation.attempt.assignment = row.assignment
    revocation.action = .cancel
    announcement.revocations[worker, default: WireRevocations()].revocations.append(revocation)
  }

  func cancelDependents(_ ids: [TaskID]) {
    for id in ids where cluster.task(id) != nil {
      end(
        id, .canceled, .dependency, "a prerequisite failed, and it asked to be canceled then", by: .person,
        user: nil, row: nil)
    }
  }

  // MARK: The end of a task that no worker has

  /// Ends a waiting or ready task.
  private func end(
    _ id: TaskID, _ status: TaskStatus, _ reason: FailureReason?, _ message: String, by actor: Actor,
    user: UserID?, row known: TaskRow?
  ) {
    guard let entry = cluster.task(id) else { return }
    do throws(IllegalMove) { try cluster.move(id, to: status, by: actor) } catch {
      logger.error("an impossible move", metadata: ["error": "\(error)"])
      return
    }
    batch.event(id, from: entry.status, to: status, user: user, reason: reason?.rawValue)
    batch.waiting[id] = nil
    let now = batch.now
    if batch.inserted(id) != nil {
      batch.changeInserted(id) { row in
        row.status = status
        row.reason = reason?.rawValue
        row.message = message
        row.cancelRequested = status == .canceled
        row.endedAt = now
      }
    } else {
      batch.count(step: entry.step, entry.status, hidden: false, -1)
      batch.count(step: entry.step, status, hidden: false, +1)
      batch.ended.append((id, status, reason?.rawValue, message))
    }
    announcement.ended.append(id)
    settle(id, status)
  }

  /// What waited for the task goes on, or is canceled with it.
  func settle(_ id: TaskID, _ outcome: TaskStatus) {
    let settlement = cluster.settle(id, outcome: outcome)
    let freed = Set(settlement.freed)
    for task in settlement.changed {
      let unmet = cluster.task(task)?.unmet ?? 0
      let status: TaskStatus = freed.contains(task) ? .pending : .waiting
      if id.rawValue > 0 { batch.met.append((task, id)) }
      if batch.inserted(task) != nil {
        batch.changeInserted(task) { row in
          row.status = status
          row.unmet = unmet
        }
      } else {
        batch.waiting[task] = (status, unmet)
        if status == .pending {
          let step = cluster.task(task)?.step
          batch.count(step: step, .waiting, hidden: false, -1)
          batch.count(step: step, .pending, hidden: false, +1)
        }
      }
      if status == .pending { batch.event(task, from: .waiting, to: .pending) }
    }
    cancelDependents(settlement.toCancel)
  }

  // MARK: Refusals

  static func noTask(_ id: TaskID) -> CallError {
    CallError(.notFound, "task \(id) does not exist; `scitq task list` shows those that do", field: "id")
  }

  private static func forbidden(_ row: TaskRow, _ user: User) -> CallError? {
    row.owner == user.id || user.isAdmin
      ? nil
      : CallError(.forbidden, "task \(row.id) is another user's: only its owner or an admin may change it")
  }
}
