import GRDB
import Scheduling
import ScitqProtocol

/// Recruitment: one snapshot, one plan, and its rows.
extension Engine {
  /// Looks at what is needed and does what follows. With every tick; costs nothing where nothing is rented.
  func recruit() {
    if fleet.recruiters.isEmpty, fleet.instances.isEmpty { return }
    for key in fleet.recruiters.keys where steps[key.step] == nil { fleet.recruiters[key] = nil }
    noteIdle()
    returnTheUseless()
    let snapshot = snapshot(at: batch.now)
    let plan = Recruitment.plan(snapshot)
    for move in plan.recycled { recycle(move) }
    for order in plan.bought {
      guard let row = fleet.flavors[FlavorRow.Key(order.flavor)] else { continue }
      self.order(
        row, step: order.by.step, rank: order.by.rank, scope: .workflow, concurrency: order.concurrency,
        prefetch: order.prefetch, by: .server)
    }
    for going in plan.returned { returnHost(of: going.worker, because: going.why, by: nil) }
    let bought = Set(plan.bought.map(\.by))
    for (key, before) in fleet.recruiters {
      var after = before
      after.needSince = plan.needSince[key]
      if bought.contains(key) { after.boughtAt = batch.now }
      if after != before { save(after) }
    }
  }

  private func noteIdle() {
    for row in workers.values where row.instance != nil {
      let isBusy = !cluster.tasks(on: row.id).isEmpty
      if isBusy || fleet.busy.contains(row.id) {
        if var instance = fleet.instance(of: row), !instance.hasWorked {
          instance.hasWorked = true
          save(instance)
        }
      }
      if isBusy {
        fleet.idleSince[row.id] = nil
      } else if fleet.busy.contains(row.id) {
        fleet.idleSince[row.id] = batch.now
      } else if fleet.idleSince[row.id] == nil {
        fleet.idleSince[row.id] =
          fleet.instance(of: row)?.idleSince ?? (row.status == .deploying ? row.createdAt : batch.now)
      }
      keepIdleTime(of: row)
    }
    fleet.busy = []
  }

  /// A restart of the server makes no host less idle. Short times are not worth a write.
  private func keepIdleTime(of row: WorkerRow) {
    guard var instance = fleet.instance(of: row), !instance.isUnwanted else { return }
    let since = fleet.idleSince[row.id].flatMap { batch.now - $0 > Self.worthKeeping ? $0 : nil }
    guard row.status != .deploying, instance.idleSince != since else { return }
    instance.idleSince = since
    save(instance)
  }

  private static let worthKeeping: Int64 = 20_000_000

  /// Hosts of workers that are lost for long, have left, keep failing, are not to be given anything, or never came.
  private func returnTheUseless() {
    let patience = configuration.fleet
    for row in workers.values.sorted(by: { $0.id < $1.id }) where !row.permanent {
      guard let instance = fleet.instance(of: row), !instance.isUnwanted else { continue }
      // What this server could not hear because it was not there is held against nobody.
      func isOver(_ time: Int64, _ patience: Duration) -> Bool {
        batch.now - max(time, startedAt) > patience.microseconds
      }
      // As far as is known, it has not begun.
      let waits = isQueued(instance) && fleet.uses[instance.id] == nil
      if row.status == .lost, isOver(row.lastBeatAt, patience.idleTimeout) {
        returnHost(of: row.id, because: "it was lost and has not come back", by: nil)
      } else if fleet.leaving.contains(row.id), ready[row.id] == nil, cluster.tasks(on: row.id).isEmpty,
        // A job ends with its worker, unless it was put back into its queue and comes again.
        !isQueued(instance)
      {
        returnHost(of: row.id, because: "it has left", by: nil)
      } else if row.wish == .quarantine, cluster.tasks(on: row.id).isEmpty {
        returnHost(of: row.id, because: row.wishReason ?? "it is quarantined", by: nil)
      } else if let wish = row.wish, row.status != .deploying, let since = fleet.idleSince[row.id],
        isOver(since, patience.idleTimeout)
      {
        let why = row.wishReason ?? (wish == .drain ? "drained" : "paused")
        returnHost(of: row.id, because: "\(why), and without a task since", by: nil)
      } else if row.status == .deploying, !waits, let deployedAt = instance.deployedAt,
        isOver(deployedAt, patience.deployTimeout)
      {
        returnHost(of: row.id, because: "its host never reported", by: nil)
        disappointed(
          by: instance, "never reported; see whether hosts reach this server (fleet.server_address)")
      }
    }
  }

  /// With these words begins why a flavor is not bought whose hosts did not come to be workers.
  static let disappointment = "a host of it "

  /// Hosts of that flavor are made, and are no workers: more of them are not bought for a while, and then one, to see.
  func disappointed(by instance: InstanceRow, _ what: String) {
    guard var flavor = fleet.flavor(of: instance) else { return }
    let why = Self.disappointment + what
    fleet.proven.remove(flavor.region)
    block(&flavor, why)
    withdrawOrders(of: flavor, because: why, by: nil)
  }

  /// Takes back the orders of that flavor that nobody was asked for yet.
  func withdrawOrders(of flavor: FlavorRow, because why: String, by user: UserID?) {
    for row in fleet.instances.values.sorted(by: { $0.id < $1.id })
    where row.flavorID == flavor.id && row.isUnasked {
      returnHost(of: row.worker, because: why, by: user)
    }
  }

  /// It is not asked for again for five minutes, and twice as long each time until one does what it should.
  func block(_ flavor: inout FlavorRow, for base: Int64 = 300, _ why: String) {
    // What befalls many hosts at once is one failure.
    if (flavor.blockedUntil ?? 0) <= batch.now { flavor.blockCount += 1 }
    let seconds = min(base << Int64(min(max(flavor.blockCount - 1, 0), 4)), max(base, 3600))
    flavor.blockedUntil = batch.now + seconds * 1_000_000
    flavor.blockReason = why
    save(flavor)
  }

  /// What recruitment is decided by.
  func snapshot(at now: Int64) -> FleetSnapshot {
    var snapshot = FleetSnapshot(now: now)
    let providers = Dictionary(uniqueKeysWithValues: configuration.providers.map { ($0.name, $0) })
    snapshot.patience = Patience(
      idle: configuration.fleet.idleTimeout.microseconds,
      newcomer: configuration.fleet.newWorkerIdleTimeout.microseconds)
    snapshot.recruiters = Array(fleet.recruiters.values)
    for row in workers.values where row.status != .lost {
      let flavor = fleet.instance(of: row).flatMap { fleet.flavor(of: $0) }
      guard row.step != nil || flavor != nil else { continue }
      var capacity = row.capacity(at: now)
      let instance = fleet.instance(of: row)
      let isOrdered = instance?.isUnasked == true
      if row.status == .deploying, let flavor {
        let provider = providers[flavor.flavor.provider]
        if isOrdered {
          capacity = offer(flavor, of: provider, at: now).capacity
        } else {
          // What another one lacked does not make it worthless: it is paid for already, and may be whole.
          capacity = Needs(of: flavor.flavor)
          capacity.seconds = provider?.secondsForTasks ?? .max
        }
      }
      snapshot.workers.append(
        FleetWorker(
          id: row.id, step: row.step, scope: row.scope, concurrency: Int(row.concurrency),
          loadMilli: cluster.loadMilli(of: row.id), capacity: capacity, flavor: flavor?.flavor,
          rank: row.rank,
          isDeploying: row.status == .deploying,
          isOrdered: isOrdered,
          isAvailable: cluster.worker(row.id)?.isAssignable ?? false,
          isLeaving: instance?.isUnwanted == true || row.status == .draining || row.wish == .drain,
          isPermanent: row.permanent, hasWorked: instance?.hasWorked ?? true,
          idleSince: fleet.idleSince[row.id]))
    }
    let wanted = Set(fleet.recruiters.keys.map(\.step)).union(snapshot.workers.compactMap(\.step))
    var rooms: [UserID: Room] = [:]
    for id in wanted.sorted() {
      guard let workflow = workflow(of: id) else { continue }
      let counts = cluster.statusCounts(of: id)
      var room = rooms[workflow.owner] ?? Room(cluster.room(of: workflow.owner))
      let all = cluster.demands(of: id)
      let demands = all.compactMap { room.take($0) }
      rooms[workflow.owner] = room
      snapshot.steps[id] = StepNeed(
        workflow: workflow.id, demands: demands, isCut: demands != all,
        coming: counts[.pending] + counts[.waiting] + counts[.inactive] + counts[.suspended],
        isHeld: workflow.state != .running || steps[id]?.isSuspended == true)
      guard snapshot.workflows[workflow.id] == nil else { continue }
      snapshot.workflows[workflow.id] = WorkflowBounds(
        maximumWorkers: workflow.maximumWorkers > 0 ? Int(workflow.maximumWorkers) : nil,
        isSpent: workflow.maximumCost.map { cost(of: workflow.id, at: now) >= $0 } ?? false)
    }
    snapshot.offers = fleet.flavors.values.filter { row in
      !row.isGone && providers[row.flavor.provider]?.regions.contains(row.flavor.region) == true
    }.sorted { $0.id < $1.id }.map { offer($0, of: providers[$0.flavor.provider], at: now) }
    snapshot.regions = bounds(at: now)
    return snapshot
  }

  /// What a flavor looks like to whoever buys. A host whose time is known before it starts is not bought for
  /// tasks that take longer: it would stand idle, and another would be bought in its place.
  private func offer(_ row: FlavorRow, of provider: ProviderConfiguration?, at now: Int64) -> Offer {
    var offer = row.offer(isDefaultRegion: provider?.regions.first == row.flavor.region, now: now)
    if let seconds = provider?.secondsForTasks {
      offer.capacity.seconds = min(offer.capacity.seconds, seconds)
    }
    return offer
  }

  /// What a user's limits still let run: nothing is bought, and nothing kept, for tasks that may not begin.
  private struct Room {
    var tasks: Int?
    var cpuMilli: Int64?

    init(_ room: (tasks: Int?, cpuMilli: Int64?)) { (tasks, cpuMilli) = room }

    mutating func take(_ demand: StepNeed.Demand) -> StepNeed.Demand? {
      var demand = demand
      if let tasks { demand.tasks = min(demand.tasks, tasks) }
      let cpu = Int64(demand.needs.cpuMilli)
      if let cpuMilli, cpu > 0 { demand.tasks = min(demand.tasks, Int(clamping: cpuMilli / cpu)) }
      tasks? -= demand.tasks
      cpuMilli? -= Int64(demand.tasks) * cpu
      return demand.tasks > 0 ? demand : nil
    }
  }

  /// What may be had of each region, by the configuration and by what was learned.
  private func bounds(at now: Int64) -> [Region: RegionBounds] {
    var bounds: [Region: RegionBounds] = [:]
    for provider in configuration.providers {
      for name in provider.regions {
        let quota = provider.quotas[name] ?? .init()
        bounds[Region(provider: provider.name, name: name)] = RegionBounds(
          cpu: quota.cpu, memory: quota.memory, instances: quota.instances)
      }
    }
    for (region, used) in fleet.used() { bounds[region, default: RegionBounds()].used = used }
    for (region, row) in fleet.regions {
      bounds[region, default: RegionBounds()].obstacle = row.obstacle(now)
      if let learned = row.learnedInstances, let until = row.learnedUntil, until > now {
        let known = bounds[region]?.instances ?? .max
        bounds[region]?.instances = min(known, learned)
      }
    }
    return bounds
  }

  /// What rented hosts have cost a workflow until now.
  func cost(of workflow: WorkflowID, at now: Int64) -> Double {
    fleet.uses.reduce(fleet.paid[workflow] ?? 0) { sum, use in
      guard use.value.workflow == workflow, let instance = fleet.instances[use.key] else { return sum }
      return sum + FleetState.cost(instance.price, from: use.value.since, to: now)
    }
  }

  // MARK: What a plan says

  private func recycle(_ move: FleetPlan.Recycled) {
    guard var row = workers[move.worker] else { return }
    let old = row.step
    row.step = move.to.step
    row.rank = move.to.rank
    row.concurrency = Int32(clamping: move.concurrency)
    row.prefetch = Int32(clamping: move.prefetch)
    row.isConfigured = true
    set(row)
    announcement.settings[row.id] = settings(row)
    charge(row.instance, to: move.to.step)
    batch.event(
      worker: row.id, "recycled",
      reason: "from \(old.map { "step \($0)" } ?? "no step") to step \(move.to.step)")
  }

  /// Writes an order; its provider is called once it is durable.
  @discardableResult
  func order(
    _ flavor: FlavorRow, step: StepID?, rank: Int?, scope: WorkerScope, concurrency: Int, prefetch: Int,
    by user: User
  ) -> WorkerRow {
    let id = InstanceID(fleet.nextInstance)
    fleet.nextInstance += 1
    let worker = WorkerID(nextWorker)
    nextWorker += 1
    let instance = InstanceRow(
      id: id, key: "scitq-\(fleet.server)-\(id)", flavorID: flavor.id, worker: worker,
      user: (user == .server ? workflow(of: step)?.owner : nil) ?? user.id,
      price: flavor.flavor.price, now: batch.now)
    var row = WorkerRow(
      id: worker, name: instance.key, instance: instance, concurrency: concurrency, prefetch: prefetch,
      step: step)
    row.scope = scope
    row.rank = rank
    set(row)
    save(instance)
    batch.event(
      worker: worker, "ordered", user: user == .server ? nil : user.id,
      reason: "\(flavor.flavor.name) in \(flavor.region)")
    return row
  }

  /// Lets a rented worker go: what it has is given to others, and its host is returned once that is durable.
  func returnHost(of id: WorkerID, because why: String, by user: UserID?) {
    guard var row = workers[id] else { return }
    for task in cluster.tasks(on: id) { lose(task, because: "worker \(row.name) was returned", Known()) }
    guard cluster.tasks(on: id).isEmpty else { return }
    forget(&row, "returned", because: why, by: user)
    guard var instance = fleet.instance(of: row) else { return }
    instance.isUnwanted = true
    instance.nextAttemptAt = nil
    instance.problem = nil
    // One that nobody was asked for needs no returning.
    if instance.isUnasked { end(&instance) }
    save(instance)
  }

  /// Its row stays, for history.
  func forget(_ row: inout WorkerRow, _ what: String, because why: String?, by user: UserID?) {
    cluster.removeWorker(row.id)
    failures.forget(worker: row.id)
    row.status = .deleted
    row.credentialHash = nil
    workers[row.id] = nil
    ready[row.id] = nil
    fleet.idleSince[row.id] = nil
    fleet.leaving.remove(row.id)
    batch.writes.append { [row] db in try row.save(db) }
    batch.event(worker: row.id, what, user: user, reason: why)
    announcement.closed.append((row.id, CallError(.unauthenticated, "the worker was deleted")))
  }

  // MARK: Rows

  func save(_ recruiter: Recruiter) {
    fleet.recruiters[recruiter.key] = recruiter
    batch.writes.append { db in try recruiter.save(db) }
  }

  func save(_ flavor: FlavorRow) {
    fleet.flavors[flavor.key] = flavor
    fleet.flavorKeys[flavor.id] = flavor.key
    batch.writes.append { db in try flavor.save(db) }
  }

  func save(_ region: RegionRow) {
    fleet.regions[region.region] = region
    batch.writes.append { db in try region.save(db) }
  }

  func save(_ instance: InstanceRow) {
    fleet.instances[instance.id] = instance.state == .ended ? nil : instance
    batch.writes.append { db in try instance.save(db) }
    announcement.hasErrands = true
  }

  /// From now on it is paid for by that step.
  func charge(_ instance: InstanceID?, to step: StepID?) {
    guard let instance, let row = fleet.instances[instance] else { return }
    closeUse(of: row)
    let workflow = workflow(of: step)?.id
    fleet.uses[instance] = FleetState.Use(workflow: workflow, since: batch.now)
    batch.writes.append { [now = batch.now] db in
      try db.execute(
        sql: """
          INSERT INTO instance_use (instance_id, step_id, workflow_id, started_at) VALUES (?, ?, ?, ?)
          ON CONFLICT DO UPDATE SET step_id = excluded.step_id, workflow_id = excluded.workflow_id, ended_at = NULL
          """, arguments: [instance.rawValue, step?.rawValue ?? 0, workflow?.rawValue ?? 0, now])
    }
  }

  /// A rented worker serves another step from now on.
  func recharge(_ row: WorkerRow) {
    if let instance = row.instance, fleet.uses[instance] != nil { charge(instance, to: row.step) }
  }

  func closeUse(of instance: InstanceRow) {
    guard let use = fleet.uses.removeValue(forKey: instance.id) else { return }
    if let workflow = use.workflow {
      fleet.paid[workflow, default: 0] += FleetState.cost(instance.price, from: use.since, to: batch.now)
    }
    batch.writes.append { [now = batch.now] db in
      try db.execute(
        sql: "UPDATE instance_use SET ended_at = ? WHERE instance_id = ? AND ended_at IS NULL",
        arguments: [now, instance.id.rawValue])
    }
  }

  /// Nothing of it exists any more, or ever did.
  func end(_ instance: inout InstanceRow) {
    closeUse(of: instance)
    if instance.state == .deployed, let region = fleet.flavor(of: instance)?.region {
      fleet.ends[region, default: []].removeAll { $0 < batch.now - 600_000_000 }
      fleet.ends[region, default: []].append(batch.now)
    }
    instance.state = .ended
    instance.endedAt = batch.now
    fleet.missing[instance.id] = nil
  }
}
