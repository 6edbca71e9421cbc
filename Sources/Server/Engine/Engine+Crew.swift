import Scheduling
import ScitqProtocol

/// What people want of workers.
extension Engine {
  func updateWorkers(
    _ request: WireUpdateWorker, by user: User, _ reply: @escaping Command.Reply<Void>
  ) {
    do throws(CallError) {
      let ids = try known(request.ids)
      var scope: WorkerScope?
      if request.hasScope {
        scope = WorkerScope(rawValue: request.scope)
        if scope == nil {
          throw CallError(
            .invalid, "\"\(request.scope.prefix(40))\" is no scope; they are N, T, W and G", field: "scope")
        }
      }
      if request.hasConcurrency, request.concurrency > 10_000 {
        throw CallError(
          .invalid, "concurrency is \(request.concurrency); it is from 0 to 10000", field: "concurrency")
      }
      if request.hasStepID, request.stepID != 0 { try checkRoom(for: ids, in: StepID(request.stepID)) }
      var rows: [WorkerRow] = []
      for id in ids {
        guard var row = workers[id] else { continue }
        if request.hasStepID { row.step = request.stepID == 0 ? nil : StepID(request.stepID) }
        if let scope { row.scope = scope }
        if request.hasConcurrency { row.concurrency = Int32(clamping: request.concurrency) }
        if request.hasPrefetch { row.prefetch = Int32(clamping: request.prefetch) }
        if request.hasConcurrency || request.hasPrefetch { row.isConfigured = true }
        if request.hasPermanent { row.permanent = request.permanent }
        if row.scope == .workflow, row.step == nil {
          throw CallError(
            .invalid,
            "worker \(row.name) has no step, so scope W means nothing to it; give --step-id as well",
            field: "scope")
        }
        rows.append(row)
      }
      for row in rows {
        let isElsewhere = workers[row.id]?.step != row.step
        set(row)
        if isElsewhere { recharge(row) }
        announcement.settings[row.id] = settings(row)
        batch.event(worker: row.id, "updated", user: user.id)
      }
      answer(reply, ())
    } catch {
      reply(.failure(error))
    }
  }

  func actOnWorkers(
    _ request: WireActOnWorkers, by user: User, _ reply: @escaping Command.Reply<Void>
  ) {
    do throws(CallError) {
      for id in try known(request.ids) {
        guard var row = workers[id] else { continue }
        switch request.verb {
        case .drain:
          row.wish = .drain
          row.wishReason = "drained by \(user.username)"
          set(row)
          for task in cluster.tasks(on: id) where cluster.task(task)?.status.isBeforeStart == true {
            takeBack(task, "worker \(row.name) is draining", user)
          }
        case .pause:
          row.wish = .pause
          row.wishReason = "paused by \(user.username)"
          set(row)
          if request.running { hold(cluster.tasks(on: id), .worker, "worker \(row.name) was paused", user) }
        case .resume:
          row.wish = nil
          row.wishReason = nil
          if row.status == .draining { row.status = .running }
          set(row)
          release(cluster.tasks(on: id), .worker, user)
        case .unspecified, .UNRECOGNIZED:
          throw CallError(.invalid, "this server does not know that verb")
        }
        announcement.settings[id] = settings(row)
        batch.event(worker: id, request.verb.participle, user: user.id)
      }
      answer(reply, ())
    } catch {
      reply(.failure(error))
    }
  }

  private func known(_ ids: [Int64]) throws(CallError) -> [WorkerID] {
    let ids = Set(ids.map { WorkerID($0) }).sorted()
    if ids.isEmpty { throw CallError(.invalid, "no worker was named; give --worker-id", field: "worker-id") }
    for id in ids where workers[id] == nil {
      throw CallError(
        .notFound, "worker \(id) does not exist; `scitq worker list` shows those that do", field: "worker-id")
    }
    return ids
  }

  /// A workflow has no more workers of its own than its maximum.
  private func checkRoom(for ids: [WorkerID], in step: StepID) throws(CallError) {
    guard let workflow = workflow(of: step) else { throw Self.noStep(step.rawValue) }
    guard workflow.maximumWorkers > 0 else { return }
    let others = workers.values.filter {
      !ids.contains($0.id) && self.workflow(of: $0.step)?.id == workflow.id
    }
    if others.count + ids.count > workflow.maximumWorkers {
      throw CallError(
        .exhausted,
        "workflow \(workflow.name) may have \(workflow.maximumWorkers) workers and has \(others.count); raise its --maximum-workers, or take one away",
        field: "step-id")
    }
  }

  func set(_ row: WorkerRow) {
    save(row)
    cluster.set(entry(row, isConnected: ready[row.id] == row.epoch))
  }
}

extension WireWorkerVerb {
  var participle: String {
    switch self {
    case .drain: "draining"
    case .pause: "paused"
    case .resume: "resumed"
    case .unspecified, .UNRECOGNIZED: "changed"
    }
  }
}
