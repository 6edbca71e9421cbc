import Scheduling
import ScitqProtocol

/// Suspending and resuming. What no worker has stands still at once; what runs, when its worker has paused it.
extension Engine {
  func suspend(_ id: TaskID, _ entry: TaskEntry, release: Bool, by user: User) -> CallError? {
    switch entry.status {
    case .inactive:
      return CallError(.conflict, "task \(id) is inactive: its workflow is a draft", field: "id")
    case .uploading, .uploadingFailed:
      return CallError(
        .conflict,
        "task \(id) is \(entry.status.word): its command has ended, and nothing is left to suspend",
        field: "id")
    case .waiting, .pending: setAside(id, user)
    case .assigned, .accepted, .downloading, .onHold:
      takeBack(id, "suspended by \(user.username)", user)
      setAside(id, user)
    case .running, .suspended:
      if entry.worker != nil { wishSuspended(id, release ? [.task, .release] : .task, user) }
    case .succeeded, .failed, .canceled: break
    }
    return nil
  }

  func resume(_ id: TaskID, _ entry: TaskEntry, _ row: TaskRow, by user: User) -> CallError? {
    if entry.worker != nil {
      guard let row = active[id], !row.suspendWish.isEmpty else {
        return CallError(.conflict, "task \(id) is \(entry.status.word): nothing to resume", field: "id")
      }
      let others = row.suspendWish.subtracting([.task, .release])
      if !others.isEmpty, !row.suspendWish.contains(.task) {
        let who = others.contains(.workflow) ? "workflow" : others.contains(.step) ? "step" : "worker"
        return CallError(
          .conflict, "task \(id) is suspended with its \(who): resume that", field: "id")
      }
      withdrawWish(id, [.task, .release], user)
      return nil
    }
    guard entry.status == .suspended, let status = cluster.resumption(of: id) else {
      return CallError(.conflict, "task \(id) is \(entry.status.word): nothing to resume", field: "id")
    }
    move(id, to: status, by: .person, user: user.id)
    if cluster.unmetPrerequisites(of: id).contains(Self.check(of: id)) { announcement.checks.append(id) }
    return nil
  }

  /// From waiting or ready to suspended.
  private func setAside(_ id: TaskID, _ user: User?) { move(id, to: .suspended, by: .person, user: user?.id) }

  /// Moves a task that no worker has, and notes it.
  func move(_ id: TaskID, to status: TaskStatus, by actor: Actor, user: UserID? = nil) {
    guard let old = cluster.task(id)?.status, shift(id, to: status, by: actor), let entry = cluster.task(id)
    else { return }
    if var row = batch.requeued[id] {
      // Taken back by this very batch.
      count(row, -1)
      row.status = status
      row.suspendWish = status == .suspended ? .task : []
      count(row, +1)
      batch.requeued[id] = row
      batch.event(id, from: old, to: status, user: user)
      if status == .pending { becameReady(id) }
    } else {
      stand(id, entry, was: old, user: user)
    }
  }

  // MARK: What a worker has

  /// Notes the wish and tells the worker; the task is suspended when the worker has paused its command.
  func wishSuspended(_ id: TaskID, _ wish: SuspendWish, _ user: User?) {
    guard var row = active[id], let worker = row.worker, !row.cancelRequested else { return }
    let isNew = row.suspendWish.isEmpty
    let releases = wish.contains(.release) && !row.suspendWish.contains(.release)
    row.suspendWish.formUnion(wish)
    active[id] = row
    batch.updated[id] = row
    if releases {
      cluster.wishCancel(id)
      announceCancel(row, to: worker)
    } else if isNew {
      cluster.wishSuspend(id, true)
      announce(.suspend, row, to: worker)
    } else {
      return
    }
    batch.event(
      "task", id.rawValue, releases ? "release-requested" : "suspend-requested", from: row.status,
      worker: worker, user: user?.id)
  }

  /// Takes a wish back; when nobody has one any more, the command goes on.
  func withdrawWish(_ id: TaskID, _ wish: SuspendWish, _ user: User?) {
    guard var row = active[id], let worker = row.worker else { return }
    // What is being given up is on its way out.
    if row.suspendWish.contains(.release) { return }
    let had = row.suspendWish
    row.suspendWish.subtract(wish)
    guard row.suspendWish != had else { return }
    active[id] = row
    batch.updated[id] = row
    guard row.suspendWish.isEmpty else { return }
    cluster.wishSuspend(id, false)
    announce(.resume, row, to: worker)
    batch.event(
      "task", id.rawValue, "resume-requested", from: row.status, worker: worker, user: user?.id)
  }

  /// Takes a task that has not started back from its worker: to the queue.
  func takeBack(_ id: TaskID, _ why: String, _ user: User?) {
    guard let row = active[id], let worker = row.worker else { return }
    lose(id, because: why, reason: nil, user: user?.id, Known())
    announce(.kill, row, to: worker)
  }

  /// What runs of a step, workflow or worker stands still, and what has not started goes back to the queue.
  func hold(_ tasks: [TaskID], _ wish: SuspendWish, _ why: String, _ user: User?) {
    for id in tasks {
      guard let row = active[id], !row.cancelRequested else { continue }
      if row.status.isBeforeStart {
        takeBack(id, why, user)
      } else if row.status == .running || row.status == .suspended {
        wishSuspended(id, wish, user)
      }
    }
  }

  func release(_ tasks: [TaskID], _ wish: SuspendWish, _ user: User?) {
    for id in tasks { withdrawWish(id, wish, user) }
  }
}
