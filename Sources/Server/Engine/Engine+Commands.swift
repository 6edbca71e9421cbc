import Scheduling
import ScitqProtocol

extension Engine {
  func apply(_ command: Command, _ known: Known) {
    switch command {
    case .submit(let submission, let reply): submit(submission, known, reply)
    case .retry(let request, let user, let reply): retry(request, by: user, known, reply)
    case .act(let request, let user, let reply): act(request, by: user, known, reply)
    case .edit(let request, let user, let reply): edit(request, by: user, known, reply)
    case .flow(let flow, let user, let reply): change(flow, by: user, known, reply)
    case .connect(let identity, let software, let credential, let ticket, let reply):
      connect(identity, software: software, credential: credential, ticket: ticket, reply)
    case .reconcile(let id, let epoch, let held, let reply): reconcile(id, epoch, held, known, reply)
    case .ready(let id, let epoch): makeReady(id, epoch)
    case .disconnected(let id, let epoch): disconnected(id, epoch)
    case .report(let id, let epoch, let reports, let reply): report(id, epoch, reports, known, reply)
    case .leave(let id, let epoch, let reply): leave(id, epoch, reply)
    case .deleteWorkers(let ids, let undeployed, let user, let reply):
      deleteWorkers(ids, undeployed: undeployed, by: user, known, reply)
    case .updateWorkers(let request, let user, let reply): updateWorkers(request, by: user, reply)
    case .actOnWorkers(let request, let user, let reply): actOnWorkers(request, by: user, reply)
    case .changeFleet(let command, let user, let reply): change(command, by: user, known, reply)
    case .fleet(let report, let reply): take(report, known, reply)
    case .write(let body, let events, let reply):
      batch.writes.append(body)
      batch.events.append(contentsOf: events)
      answer(reply, ())
    case .prune(let tasks, let reply): prune(tasks, reply)
    case .user(let user): cluster.set(user)
    case .checked(let id, let existing): checked(id, existing: existing)
    case .tick:
      tick(known)
      runTimers()
      tellTime()
      recruit()
    }
  }

  // MARK: Timers

  /// Notes when a task is to be looked at again.
  func setTimers(of row: TaskRow, _ facts: SpecFacts) {
    if let time = row.notBefore, time > batch.now { timers.set(.release, of: row.id, at: time) }
    guard facts.queueLimit > 0 else { return }
    queueLimits[row.id] = QueueLimit(limit: facts.queueLimit)
    if row.status == .pending { startQueueing(row.id, at: max(row.readyAt ?? 0, row.notBefore ?? 0)) }
  }

  /// A task has become ready: from now on it is in the queue.
  func becameReady(_ id: TaskID) { startQueueing(id, at: batch.now) }

  private func startQueueing(_ id: TaskID, at time: Int64) {
    guard let limit = queueLimits[id]?.limit else { return }
    queueLimits[id]?.deadline = time + limit
    timers.set(.queueLimit, of: id, at: time + limit)
  }

  private func runTimers() {
    for timer in timers.due(at: batch.now) {
      guard let entry = cluster.task(timer.task) else {
        queueLimits[timer.task] = nil
        continue
      }
      switch timer.kind {
      case .release:
        if workflow(of: entry.step)?.strategy != .debug { cluster.hold(timer.task, false) }
      case .queueLimit:
        // One that was given to a worker and taken back has a later deadline.
        guard entry.status == .pending, let queue = queueLimits[timer.task], queue.deadline <= timer.at
        else { continue }
        end(
          timer.task, .failed, .timeout,
          "it was ready for longer than its limit of \(Duration.microseconds(queue.limit)) in the queue",
          by: .server, user: nil)
      }
    }
  }
}

/// How long a task may be ready without being run, in microseconds, and when that is over.
struct QueueLimit: Sendable {
  var limit: Int64
  var deadline = Int64.max
}
