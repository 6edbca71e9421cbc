import GRDB
import Scheduling
import ScitqProtocol

/// The comings and goings of workers.
extension Engine {
  // MARK: Coming

  func connect(
    _ identity: WireWorkerIdentity, software: String, credential: String?, ticket: InstanceID?,
    _ reply: @escaping Command.Reply<WireWorkerWelcome>
  ) {
    var welcome = WireWorkerWelcome()
    var row: WorkerRow
    let known = workers.values.first { $0.storeID == identity.storeID }
    if let credential {
      let hash = Secret.hash(credential)
      guard let known, let kept = known.credentialHash, Secret.equal(kept, hash) else {
        return reply(
          .failure(
            CallError(
              .unauthenticated,
              "the worker's credential is not known here: it was deleted, or belongs to another server; join again"
            )))
      }
      row = known
    } else {
      if let refusal = Self.refusal(of: identity) { return reply(.failure(refusal)) }
      if let ticket {
        guard var own = worker(ofTicket: ticket) else {
          return reply(
            .failure(
              CallError(
                .unauthenticated,
                "the host's ticket is not good any more: its worker has joined, or is not wanted")))
        }
        if let known, known.id != own.id {
          return reply(
            .failure(
              CallError(
                .unauthenticated,
                "the store of this worker is that of worker \(known.name); an image for hosts must not hold the folder of one"
              )))
        }
        // A job that begins again has a new store, which counts its reports from one.
        if own.storeID != identity.storeID, acknowledged[own.id] != nil {
          acknowledged[own.id] = 0
          batch.acknowledged[own.id] = 0
        }
        own.storeID = identity.storeID
        row = own
        batch.event(worker: row.id, "joined")
      } else if let known {
        row = known
      } else {
        row = WorkerRow(
          id: WorkerID(nextWorker), name: freeName(identity.name), identity: identity, now: batch.now)
        nextWorker += 1
        batch.event(worker: row.id, "joined")
      }
      let secret = Secret.make(.worker)
      row.credentialHash = Secret.hash(secret)
      welcome.credential = secret
    }
    row.epoch += 1
    if !row.isConfigured {
      row.concurrency = Int32(clamping: identity.concurrency)
      row.prefetch = Int32(clamping: identity.prefetch)
    }
    if row.instance == nil { row.permanent = identity.permanent }
    row.endsAt = identity.endsAt == 0 ? fleet.instance(of: row)?.endsAt : identity.endsAt
    row.host = identity.host
    row.hostname = identity.hostname
    row.software = software
    row.status = .running
    row.lastBeatAt = batch.now
    save(row)
    ready[row.id] = nil
    fleet.leaving.remove(row.id)
    cluster.set(entry(row, isConnected: false))
    batch.event(worker: row.id, "connected")
    welcome.workerID = row.id.rawValue
    welcome.epoch = row.epoch
    welcome.name = row.name
    welcome.settings = settings(row)
    answer(reply, welcome)
  }

  private static func refusal(of identity: WireWorkerIdentity) -> CallError? {
    if identity.name.isEmpty || identity.storeID.isEmpty {
      return CallError(.invalid, "a worker names itself and its store when it joins", field: "name")
    }
    if identity.concurrency == 0 || identity.concurrency > 10_000 {
      return CallError(
        .invalid, "concurrency is \(identity.concurrency); it is from 1 to 10000", field: "concurrency")
    }
    return nil
  }

  private func freeName(_ wanted: String) -> String {
    let taken = Set(workers.values.map(\.name))
    guard taken.contains(wanted) else { return wanted }
    var number = 2
    while taken.contains("\(wanted)-\(number)") { number += 1 }
    return "\(wanted)-\(number)"
  }

  func settings(_ row: WorkerRow) -> WireWorkerSettings {
    var settings = WireWorkerSettings()
    settings.concurrency = UInt32(clamping: row.concurrency)
    settings.prefetch = UInt32(clamping: row.prefetch)
    settings.beatIntervalMs = UInt32(clamping: configuration.workers.beatInterval.milliseconds)
    settings.leaseMs = UInt32(clamping: configuration.workers.offlineTimeout.milliseconds)
    settings.killGraceMs = UInt32(clamping: configuration.workers.killGrace.milliseconds)
    settings.maxLogBytes = configuration.logs.maxLogBytes
    settings.draining = row.status == .draining || row.wish == .drain
    settings.allowedContainerOptions = configuration.workers.allowedContainerOptions
    return settings
  }

  /// As the scheduler sees it.
  func entry(_ row: WorkerRow, isConnected: Bool) -> WorkerEntry {
    let instance = fleet.instance(of: row)
    let isSuspended = instance?.isSuspended == true
    var row = row
    row.endsAt = [row.endsAt, instance?.endsAt].compactMap(\.self).min()
    return row.entry(
      isConnected: isConnected && !isSuspended, workflow: workflow(of: row.step)?.id, at: batch.now)
  }

  func save(_ row: WorkerRow) {
    workers[row.id] = row
    batch.writes.append { db in try row.save(db) }
  }

  /// Says for each attempt that the worker has whether it is to go on, and takes away what it should have and has not.
  func reconcile(
    _ id: WorkerID, _ epoch: Int64, _ held: [WireHeldAttempt], _ known: Known,
    _ reply: @escaping Command.Reply<WireReconciled>
  ) {
    guard workers[id]?.epoch == epoch else { return reply(.failure(Self.superseded)) }
    var reconciled = WireReconciled()
    var kept: Set<TaskID> = []
    for attempt in held {
      let task = TaskID(attempt.taskID)
      var reference = WireAttemptRef()
      reference.taskID = attempt.taskID
      reference.assignment = attempt.assignment
      if let row = active[task], row.worker == id, row.assignment == attempt.assignment {
        kept.insert(task)
        reconciled.keep.append(reference)
      } else if TaskStatus(rawValue: attempt.status)?.isFinal == true {
        reconciled.forget.append(reference)
      } else {
        reconciled.kill.append(reference)
      }
    }
    for task in cluster.tasks(on: id) where !kept.contains(task) {
      lose(task, because: "worker \(workers[id]?.name ?? "\(id)") came back without it", known)
    }
    answer(reply, reconciled)
  }

  func makeReady(_ id: WorkerID, _ epoch: Int64) {
    guard let row = workers[id], row.epoch == epoch else { return }
    ready[id] = epoch
    joined(row)
    cluster.set(entry(row, isConnected: true))
    // Wishes that were made while it was away.
    for task in cluster.tasks(on: id) {
      guard let row = active[task] else { continue }
      if row.cancelRequested || row.suspendWish.contains(.release) {
        announceCancel(row, to: id)
      } else if row.status == .running, !row.suspendWish.isEmpty {
        announce(.suspend, row, to: id)
      } else if row.status == .suspended, row.suspendWish.isEmpty {
        announce(.resume, row, to: id)
      }
    }
  }

  // MARK: Going

  /// Its connection has ended. Its lease goes on: its tasks may be running and well.
  func disconnected(_ id: WorkerID, _ epoch: Int64) {
    guard var row = workers[id], row.epoch == epoch else { return }
    ready[id] = nil
    if row.status != .lost {
      row.status = .offline
      row.lastBeatAt = batch.now
      save(row)
      batch.event(worker: id, "offline")
    }
    cluster.set(entry(row, isConnected: false))
  }

  /// It takes nothing more; what it had not started goes to others.
  func leave(_ id: WorkerID, _ epoch: Int64, _ reply: @escaping Command.Reply<Void>) {
    guard var row = workers[id], row.epoch == epoch else { return reply(.failure(Self.superseded)) }
    row.status = .draining
    save(row)
    cluster.set(entry(row, isConnected: true))
    batch.event(worker: id, "draining")
    if row.instance != nil { fleet.leaving.insert(id) }
    for task in cluster.tasks(on: id) where cluster.task(task)?.status.isBeforeStart == true {
      lose(task, because: "worker \(row.name) drained", Known())
    }
    answer(reply, ())
  }

  func deleteWorkers(
    _ ids: [WorkerID], undeployed: Bool, by user: User, _ known: Known, _ reply: @escaping Command.Reply<Void>
  ) {
    // Those whose hosts are on their way back are no workers any more, and may still be forgotten.
    let returning = Dictionary(
      fleet.instances.values.filter(\.isUnwanted).map { ($0.worker, $0) }, uniquingKeysWith: { a, _ in a })
    for id in ids where workers[id] == nil && returning[id] == nil {
      return reply(
        .failure(
          CallError(
            .notFound, "worker \(id) does not exist; `scitq worker list` shows those that do",
            field: "worker-id")))
    }
    for id in Set(ids).sorted() {
      guard var row = workers[id] else {
        if undeployed, var instance = returning[id] {
          end(&instance)
          save(instance)
          batch.event(worker: id, "forgotten", user: user.id)
        }
        continue
      }
      for task in cluster.tasks(on: id) { lose(task, because: "worker \(row.name) was deleted", known) }
      if undeployed, var instance = fleet.instance(of: row) {
        end(&instance)
        save(instance)
      }
      if fleet.instance(of: row) != nil {
        returnHost(of: id, because: "deleted by \(user.username)", by: user.id)
      } else {
        forget(&row, "deleted", because: nil, by: user.id)
      }
    }
    answer(reply, ())
  }

  /// How long the hosts will be there of which that is known.
  func tellTime() {
    for row in workers.values
    where row.status == .running && (row.endsAt ?? fleet.instance(of: row)?.endsAt) != nil {
      cluster.set(entry(row, isConnected: ready[row.id] == row.epoch))
    }
  }

  /// Workers that were silent for longer than their lease are lost, and all they had with them. Those that missed
  /// a beat or two are remarked upon.
  func tick(_ known: Known) {
    let now = registry.quiet(for: configuration.workers.beatInterval * 2.5 + .seconds(1))
    for id in now.subtracting(quiet).sorted() where workers[id] != nil { batch.event(worker: id, "silent") }
    for id in quiet.subtracting(now).sorted() where registry.isHeard(id) {
      batch.event(worker: id, "heard")
    }
    quiet = now
    for id in registry.silent(for: configuration.workers.offlineTimeout) {
      guard var row = workers[id] else {
        registry.endLease(id)
        continue
      }
      // One whose provider lets it stand still is not lost, and whether it does is asked every third of a lease.
      if let instance = fleet.instance(of: row), instance.isSuspended || mayBeSuspended(instance, id) {
        continue
      }
      registry.endLease(id)
      // Its job is back in its queue.
      if row.status == .deploying { continue }
      for task in cluster.tasks(on: id) {
        lose(
          task, because: "worker \(row.name) was not heard of for \(configuration.workers.offlineTimeout)",
          known)
      }
      row.status = .lost
      // From now on it is counted how long it stays away.
      row.lastBeatAt = batch.now
      save(row)
      ready[id] = nil
      cluster.set(entry(row, isConnected: false))
      // Should its connection have outlived the silence, it is to begin anew: what it holds is others' now.
      announcement.closed.append(
        (id, CallError(.unavailable, "the server has not heard of this worker for too long; connect again")))
      batch.event(worker: id, "lost")
    }
  }
}
