import Logging
import Scheduling
import ScitqProtocol

/// What workers say of tasks, and what becomes of tasks whose worker says nothing any more.
extension Engine {
  /// Whether the attempt is this worker's: it may write its log.
  func holds(_ attempt: AttemptID, _ worker: WorkerID) -> Bool {
    active[attempt.task].map { $0.worker == worker && $0.assignment == attempt.assignment } ?? false
  }

  func report(
    _ worker: WorkerID, _ epoch: Int64, _ reports: [WireReport], _ known: Known,
    _ reply: @escaping Command.Reply<WireReportsAccepted>
  ) {
    guard workers[worker]?.epoch == epoch else { return reply(.failure(Self.superseded)) }
    var accepted = WireReportsAccepted()
    var sequence = acknowledged[worker] ?? 0
    for report in reports where report.sequence > sequence {
      // What is missing was taken in by the server of which this one is an older copy.
      if report.sequence > sequence + 1, sequence > 0 { behind.formUnion(cluster.tasks(on: worker)) }
      sequence = report.sequence
      refusal = nil
      if !take(report, from: worker, known) {
        accepted.refusals.append(
          refusal
            ?? "task \(report.taskID) is not this worker's any more: assignment \(report.assignment) is superseded"
        )
        var attempt = WireAttemptRef()
        attempt.taskID = report.taskID
        attempt.assignment = report.assignment
        accepted.superseded.append(attempt)
      }
    }
    // What was taken in before is still answered by what is true now: the answer may have been lost on its way.
    for report in reports
    where report.sequence <= sequence && TaskStatus(rawValue: report.status)?.isFinal == false {
      if active[TaskID(report.taskID)].map({ $0.worker == worker && $0.assignment == report.assignment })
        != true
      {
        var attempt = WireAttemptRef()
        attempt.taskID = report.taskID
        attempt.assignment = report.assignment
        if !accepted.superseded.contains(attempt), !endedNow(attempt) { accepted.superseded.append(attempt) }
      }
    }
    if sequence != acknowledged[worker] {
      acknowledged[worker] = sequence
      batch.acknowledged[worker] = sequence
    }
    accepted.sequence = sequence
    answer(reply, accepted)
  }

  /// The attempt ended by a report of this very batch.
  private func endedNow(_ attempt: WireAttemptRef) -> Bool {
    batch.updated[TaskID(attempt.taskID)].map { $0.assignment == attempt.assignment && $0.status.isFinal }
      ?? false
  }

  static let superseded = CallError(.superseded, "the worker has connected again, or was deleted")

  /// False when the attempt is no longer this worker's.
  private func take(_ report: WireReport, from worker: WorkerID, _ known: Known) -> Bool {
    let id = TaskID(report.taskID)
    guard var row = active[id], row.worker == worker, row.assignment == report.assignment,
      var status = TaskStatus(rawValue: report.status)
    else { return false }
    if status == row.status { return true }
    if behind.remove(id) != nil {
      catchUp(row, with: report, known)
      guard let now = active[id] else { return false }
      row = now
      if status == row.status { return true }
    }
    // Never anything but canceled after an accepted cancel; and canceled only by a person's wish.
    if status == .succeeded || status == .failed, row.cancelRequested { status = .canceled }
    // It was paused before it heard that nobody wants that any more.
    let isLate = status == .suspended && row.suspendWish.isEmpty
    if isLate { cluster.wishSuspend(id, true) }
    do throws(IllegalMove) {
      try cluster.move(id, to: status, by: .worker)
    } catch {
      logger.warning(
        "a worker reported what cannot be",
        metadata: ["worker": "\(worker)", "task": "\(id)", "error": "\(error)"])
      refusal = "\(error)"
      return false
    }
    let from = row.status
    count(row, -1)
    row.status = status
    count(row, +1)
    if isLate {
      cluster.wishSuspend(id, false)
      announce(.resume, row, to: worker)
    }
    let at = min(max(report.at, row.assignedAt ?? row.createdAt), batch.now)
    if let since = row.suspendedAt {
      row.suspendedFor += max(0, at - since)
      row.suspendedAt = nil
    }
    switch status {
    case .downloading: row.downloadStartedAt = at
    case .running: row.runStartedAt = row.runStartedAt ?? at
    case .suspended: row.suspendedAt = at
    case .uploading, .uploadingFailed: row.runEndedAt = at
    default: break
    }
    if report.hasExitCode_p { row.exitCode = report.exitCode }
    if !report.reason.isEmpty { row.reason = report.reason }
    if !report.message.isEmpty { row.message = report.message }
    if !report.inputs.isEmpty { row.inputs = FilesColumn.encode(report.inputs) }
    if !report.outputs.isEmpty { row.outputs = FilesColumn.encode(report.outputs) }
    if status.isFinal {
      row.endedAt = at
      row.outBytes = report.outBytes
      row.errBytes = report.errBytes
      if report.outBytes == 0, report.errBytes == 0 { announcement.silent.insert(id) }
      if status == .canceled { row.reason = FailureReason.canceled.rawValue }
    }
    row.measure(leaving: from, at: at, in: &batch.phases)
    batch.event(id, from: from, to: status, worker: worker, reason: status == .succeeded ? nil : row.reason)
    if status.isFinal {
      active[id] = nil
      conclude(row, known)
    } else {
      active[id] = row
      batch.updated[id] = row
    }
    return true
  }

  /// Makes the moves that the worker has told already, to a server that was restored from a backup since.
  private func catchUp(_ row: TaskRow, with report: WireReport, _ known: Known) {
    let road: [TaskStatus] =
      switch TaskStatus(rawValue: report.status) {
      case .downloading, .onHold, .running: [.accepted]
      case .uploading, .uploadingFailed, .suspended: [.accepted, .running]
      case .succeeded: [.accepted, .running, .uploading]
      case .failed: [.accepted, .running, .uploadingFailed]
      default: []
      }
    // Where it is on that road already, or on a side of it, it goes on from there.
    let passed: Int =
      switch row.status {
      case .assigned: 0
      case .accepted, .downloading, .onHold, .suspended: 1
      case .running: 2
      default: 3
      }
    for status in road.dropFirst(passed) {
      var missing = WireReport()
      missing.taskID = report.taskID
      missing.assignment = report.assignment
      missing.status = status.rawValue
      missing.at = report.at
      _ = take(missing, from: WorkerID(row.worker?.rawValue ?? 0), known)
    }
    refusal = nil
  }

  /// A task has ended on a worker: it is retried, or settled for good.
  private func conclude(_ row: TaskRow, _ known: Known) {
    var row = row
    announcement.ended.append(row.id)
    observe(row)
    if row.status == .canceled, row.suspendWish.contains(.release), !row.cancelRequested {
      row.message = "its slot was given up while it was suspended"
      return replace(suspended: row, known)
    }
    if row.status == .failed, !row.cancelRequested {
      let failure = RetryPolicy.Failure(
        reason: row.reason ?? "", exitCode: row.exitCode, budget: row.retry,
        earlier: row.attempt - 1 - row.losses, losses: row.losses)
      let facts = known.facts[row.specID] ?? SpecFacts()
      let most = Int32(clamping: configuration.workers.maxLosses)
      switch facts.policy.decide(failure, mostLosses: most) {
      case .end(let remark):
        if let remark { row.message = [row.message, remark].compactMap(\.self).joined(separator: "; ") }
      case .retry(let spendsBudget, let memoryMilli, let delay):
        var clone = row.clone(id: TaskID(nextTask), at: batch.now)
        nextTask += 1
        clone.losses = spendsBudget ? 0 : row.losses + 1
        if spendsBudget { clone.retry -= 1 }
        clone.memoryMilli = min(TaskRow.scaled(row.memoryMilli, memoryMilli), 1_000_000)
        if delay > 0 { clone.notBefore = batch.now + delay }
        replace(row, with: clone, facts, waitingFor: [], moveDependents: true)
        batch.event(clone.id, from: nil, to: .pending, reason: "retry of task \(row.id)")
        // A task that stood still with its worker goes on standing still.
        if row.suspendWish.contains(.task) { move(clone.id, to: .suspended, by: .person) }
        return
      }
    }
    batch.updated[row.id] = row
    settle(row.id, row.status, job: row.job, on: row.worker)
  }

  /// Puts a suspended clone in the place of an attempt that was given up.
  private func replace(suspended row: TaskRow, _ known: Known) {
    var clone = row.clone(id: TaskID(nextTask), at: batch.now)
    nextTask += 1
    clone.avoid = nil
    replace(
      row, with: clone, known.facts[row.specID] ?? SpecFacts(), waitingFor: [], moveDependents: true)
    batch.event(clone.id, from: nil, to: .pending, reason: "released from task \(row.id)")
    move(clone.id, to: .suspended, by: .person)
  }

  /// The worker is gone for this task: back to the queue if nothing has happened yet, failed and cloned if it ran.
  ///
  /// - Parameter reason: of the event; nil: `message` says why.
  func lose(
    _ id: TaskID, because message: String, reason: FailureReason? = .workerLost, user: UserID? = nil,
    _ known: Known
  ) {
    guard var row = active[id] else { return }
    let from = row.status
    let gaveUp = row.suspendWish.contains(.release)
    let to: TaskStatus = row.cancelRequested || gaveUp ? .canceled : from.isBeforeStart ? .pending : .failed
    guard shift(id, to: to, by: to == .canceled ? .person : .server) else { return }
    active[id] = nil
    count(row, -1)
    row.status = to
    count(row, +1)
    row.measure(leaving: from, at: batch.now, in: &batch.phases)
    batch.event(
      id, from: from, to: to, worker: row.worker, user: user,
      reason: to == .canceled ? FailureReason.canceled.rawValue : reason?.rawValue ?? message)
    guard to.isFinal else {
      row.worker = nil
      row.assignedAt = nil
      row.downloadStartedAt = nil
      row.suspendWish = []
      // Reports earlier in this batch are no longer true; the requeue is written after them.
      batch.updated[id] = nil
      batch.requeued[id] = row
      becameReady(id)
      return
    }
    row.endedAt = batch.now
    row.reason = to == .canceled ? FailureReason.canceled.rawValue : FailureReason.workerLost.rawValue
    if to == .failed { row.message = message }
    conclude(row, known)
  }

  /// A worker on which alone a step fails is given nothing more until somebody has looked at it.
  private func observe(_ row: TaskRow) {
    guard let worker = row.worker, row.status == .succeeded || row.status == .failed else { return }
    switch row.reason.flatMap(FailureReason.init) {
    // The task's own, or nobody's.
    case .inputMissing?, .input?, .denied?, .refused?, .workerLost?, .timeout?, .outOfMemory?: return
    default: break
    }
    guard
      let quarantine = failures.record(step: row.step, worker: worker, succeeded: row.status == .succeeded),
      var worker = workers[quarantine.worker], worker.wish == nil
    else { return }
    worker.wish = .quarantine
    worker.wishReason = quarantine.description
    set(worker)
    batch.event(worker: worker.id, "quarantined", reason: quarantine.description)
    logger.warning("worker \(worker.name) is quarantined: \(quarantine)")
  }
}
