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
      sequence = report.sequence
      if !take(report, from: worker, known) {
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
    // Never anything but canceled after an accepted cancel; and canceled only by a person's wish.
    if status == .succeeded || status == .failed, row.cancelRequested { status = .canceled }
    do throws(IllegalMove) {
      try cluster.move(id, to: status, by: .worker)
    } catch {
      logger.warning(
        "a worker reported what cannot be",
        metadata: ["worker": "\(worker)", "task": "\(id)", "error": "\(error)"])
      return false
    }
    let from = row.status
    batch.count(row, -1)
    row.status = status
    batch.count(row, +1)
    let at = min(max(report.at, row.assignedAt ?? row.createdAt), batch.now)
    switch status {
    case .downloading: row.downloadStartedAt = at
    case .running: row.runStartedAt = at
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

  /// A task has ended on a worker: it is retried, or settled for good.
  private func conclude(_ row: TaskRow, _ known: Known) {
    var row = row
    announcement.ended.append(row.id)
    // Lost with its worker, or refused by it: that is nothing the task did, and spends nothing.
    let blameless =
      row.reason == FailureReason.workerLost.rawValue || row.reason == FailureReason.refused.rawValue
    if row.status == .failed, !row.cancelRequested {
      let mostLosses = Int32(clamping: configuration.workers.maxLosses)
      if blameless && row.losses + 1 >= mostLosses {
        row.message = (row.message ?? "") + "; given up after \(row.losses + 1) losses in a row"
      } else if blameless || row.retry > 0 {
        var clone = row.clone(id: TaskID(nextTask), at: batch.now)
        nextTask += 1
        if blameless {
          clone.losses += 1
        } else {
          clone.losses = 0
          clone.retry -= 1
        }
        replace(row, with: clone, known.needs[row.id] ?? Needs(), waitingFor: [], moveDependents: true)
        batch.event(clone.id, from: nil, to: .pending, reason: "retry of task \(row.id)")
        return
      }
    }
    batch.updated[row.id] = row
    settle(row.id, row.status)
  }

  /// The worker is gone for this task: back to the queue if nothing has happened yet, failed and cloned if it ran.
  func lose(_ id: TaskID, because message: String, _ known: Known) {
    guard var row = active[id] else { return }
    let from = row.status
    let to: TaskStatus = row.cancelRequested ? .canceled : from.isBeforeStart ? .pending : .failed
    do throws(IllegalMove) {
      try cluster.move(id, to: to, by: row.cancelRequested ? .person : .server)
    } catch {
      logger.error("an impossible move", metadata: ["error": "\(error)"])
      return
    }
    active[id] = nil
    batch.count(row, -1)
    row.status = to
    batch.count(row, +1)
    batch.event(
      id, from: from, to: to, worker: row.worker,
      reason: to == .canceled ? FailureReason.canceled.rawValue : FailureReason.workerLost.rawValue)
    guard to.isFinal else {
      row.worker = nil
      row.assignedAt = nil
      row.downloadStartedAt = nil
      // Reports earlier in this batch are no longer true; the requeue is written after them.
      batch.updated[id] = nil
      batch.requeued[id] = row
      return
    }
    row.endedAt = batch.now
    row.reason = to == .canceled ? FailureReason.canceled.rawValue : FailureReason.workerLost.rawValue
    if to == .failed { row.message = message }
    conclude(row, known)
  }
}
