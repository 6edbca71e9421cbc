import ScitqProtocol

/// Decides which workers change their step, which hosts are bought, and which are returned.
///
/// One snapshot makes one plan for all recruiters together, so that no two buy for the same need; nothing here passes
/// a maximum of a recruiter or workflow, or a bound of a region. The same snapshot always gives the same plan.
/// O(workers + steps × their workers + purchases × offers). It buys a hundred hosts at most, so that no plan takes long;
/// another follows within the second.
package struct Recruitment {
  private let snapshot: FleetSnapshot
  private var plan = FleetPlan()
  private var needs: [StepID: Remaining] = [:]
  private var regions: [Region: RegionBounds]
  /// How many workers count for each maximum.
  private var perRecruiter: [Recruiter.Key: Int] = [:]
  private var perWorkflow: [WorkflowID: Int] = [:]
  private var recruiters: [Recruiter]
  /// Workers on their way whose slots are of no use to their step.
  private var surplus: Set<WorkerID> = []
  private let defaultRegions: Set<Region>
  private var explained: Recruiter.Key?

  private static let mostPurchases = 100

  /// - Parameter explained: a recruiter of which also is said what would keep it from buying once it may.
  package static func plan(_ snapshot: FleetSnapshot, explaining explained: Recruiter.Key? = nil) -> FleetPlan
  {
    var recruitment = Recruitment(snapshot)
    recruitment.explained = explained
    recruitment.recycle()
    recruitment.buy()
    recruitment.letGo()
    return recruitment.plan
  }

  private init(_ snapshot: FleetSnapshot) {
    self.snapshot = snapshot
    regions = snapshot.regions
    defaultRegions = Set(snapshot.offers.filter(\.isDefaultRegion).map(\.region))
    recruiters = snapshot.recruiters.sorted { $0.key < $1.key }
    let workers = Dictionary(grouping: snapshot.workers.filter { $0.step != nil }) { $0.step! }
    for (step, own) in workers {
      for worker in own where !worker.isLeaving {
        if let rank = worker.rank { perRecruiter[.init(step: step, rank: rank), default: 0] += 1 }
        if let workflow = snapshot.steps[step]?.workflow { perWorkflow[workflow, default: 0] += 1 }
      }
    }
    for recruiter in recruiters {
      let step = recruiter.key.step
      if needs[step] == nil, let need = snapshot.steps[step], !need.isHeld {
        needs[step] = Remaining(
          need, rounds: recruiter.rounds, workers: workers[step] ?? [], surplus: &surplus)
      }
      if let wanted = needs[step]?.slots, wanted > 0 { plan.wanted[recruiter.key] = wanted }
    }
  }

  /// What a step still wants: of each shape so many slots, in thousandths.
  private struct Remaining {
    var demands: [(needs: Needs, weightMilli: Int64, milli: Int64)] = []

    var milli: Int64 { demands.reduce(0) { $0 + $1.milli } }
    var slots: Int { Int((milli + 999) / 1000) }

    init(_ need: StepNeed, rounds: Int, workers: [FleetWorker], surplus: inout Set<WorkerID>) {
      let rounds = Int64(max(1, rounds))
      // What asks for most is seen to first: the rest finds room in more places.
      demands = need.demands.filter { $0.tasks > 0 }.sorted { Self.size($0.needs) > Self.size($1.needs) }
        .map { demand in
          let all = Int64(demand.tasks) * demand.weightMilli
          return (demand.needs, demand.weightMilli, max(demand.weightMilli, (all + rounds - 1) / rounds))
        }
      // Small ones first, and last those that nobody was asked for yet.
      let workers = workers.sorted { a, b in
        if a.isOrdered != b.isOrdered { return b.isOrdered }
        let (x, y) = (Self.size(a.capacity), Self.size(b.capacity))
        return x == y ? a.id < b.id : x < y
      }
      for worker in workers
      where worker.isDeploying || worker.isAvailable {
        let taken = take(
          worker.capacity, slots: worker.concurrency,
          milli: Int64(worker.concurrency) * 1000 - worker.loadMilli)
        if taken == 0, worker.isDeploying { surplus.insert(worker.id) }
      }
    }

    private static func size(_ needs: Needs) -> (Int32, Int32, Int32, Int32) {
      (needs.gpu, needs.memoryMiB, needs.cpuMilli, needs.diskMiB)
    }

    /// Whether a worker with that host could run any of it.
    func fits(_ capacity: Needs, slots: Int) -> Bool {
      demands.contains { $0.milli > 0 && $0.needs.fit(capacity) && $0.weightMilli <= Int64(slots) * 1000 }
    }

    /// How many of the slots of such a host would be used, in thousandths.
    func use(of capacity: Needs, slots: Int) -> Int64 {
      var use: Int64 = 0
      for demand in demands
      where demand.milli > 0 && demand.needs.fit(capacity) && demand.weightMilli <= Int64(slots) * 1000 {
        use += demand.milli
        if use >= Int64(slots) * 1000 { return Int64(slots) * 1000 }
      }
      return use
    }

    @discardableResult
    mutating func take(_ capacity: Needs, slots: Int, milli: Int64) -> Int64 {
      var left = milli
      for index in demands.indices
      where left > 0 && demands[index].needs.fit(capacity)
        && demands[index].weightMilli <= Int64(slots) * 1000
      {
        let taken = min(left, demands[index].milli)
        demands[index].milli -= taken
        left -= taken
      }
      return milli - left
    }
  }

  // MARK: Recycling

  /// An idle worker whose own step has nothing for it goes where it is wanted, at once.
  private mutating func recycle() {
    var idle = snapshot.workers.filter { worker in
      guard worker.flavor != nil, worker.isAvailable, !worker.isDeploying, !worker.isLeaving,
        worker.idleSince != nil, worker.scope == .workflow || worker.scope == .everything
      else { return false }
      return !isWanted(worker)
    }.sorted { $0.id < $1.id }
    guard !idle.isEmpty else { return }
    for recruiter in recruiters {
      let key = recruiter.key
      guard let workflow = snapshot.steps[key.step]?.workflow else { continue }
      while !idle.isEmpty, (needs[key.step]?.milli ?? 0) > 0 {
        if let most = recruiter.maximumWorkers, perRecruiter[key, default: 0] >= most { break }
        guard
          let place = idle.firstIndex(where: { may($0, serve: recruiter, of: workflow) }),
          let flavor = idle[place].flavor
        else { break }
        let worker = idle.remove(at: place)
        let old = worker.step.flatMap { snapshot.steps[$0]?.workflow }
        if let step = worker.step, let rank = worker.rank {
          perRecruiter[.init(step: step, rank: rank), default: 1] -= 1
        }
        if let old { perWorkflow[old, default: 1] -= 1 }
        perRecruiter[key, default: 0] += 1
        perWorkflow[workflow, default: 0] += 1
        let concurrency = recruiter.concurrency(on: flavor)
        plan.recycled.append(
          FleetPlan.Recycled(
            worker: worker.id, to: key, concurrency: concurrency,
            prefetch: recruiter.prefetch(with: concurrency)))
        needs[key.step]?.take(worker.capacity, slots: concurrency, milli: Int64(concurrency) * 1000)
      }
    }
  }

  /// Whether its own step has a task for it that is about to come.
  private func isWanted(_ worker: FleetWorker) -> Bool {
    guard let step = worker.step, let need = snapshot.steps[step], !need.isHeld else { return false }
    return need.demands.contains {
      $0.tasks > 0 && $0.needs.fit(worker.capacity) && $0.weightMilli <= Int64(worker.concurrency) * 1000
    }
  }

  private func may(_ worker: FleetWorker, serve recruiter: Recruiter, of workflow: WorkflowID) -> Bool {
    guard let flavor = worker.flavor, worker.step != recruiter.key.step else { return false }
    let own = worker.step.flatMap { snapshot.steps[$0]?.workflow }
    guard worker.scope == .everything || own == workflow else { return false }
    if own != workflow, let most = snapshot.workflows[workflow]?.maximumWorkers,
      perWorkflow[workflow, default: 0] >= most
    {
      return false
    }
    guard recruiter.filter.matches(flavor, isDefaultRegion: isDefault(flavor)) else { return false }
    return needs[recruiter.key.step]?.fits(worker.capacity, slots: recruiter.concurrency(on: flavor)) == true
  }

  private func isDefault(_ flavor: Flavor) -> Bool {
    defaultRegions.contains(Region(provider: flavor.provider, name: flavor.region))
  }

  // MARK: Buying

  /// A recruiter that may buy now, with what passes its filter.
  private struct Buyer {
    var recruiter: Recruiter
    var workflow: WorkflowID
    var offers: [(offer: Offer, slots: Int)]
  }

  /// Rank by rank; within a rank every step buys one host in turn, so that none takes all of a small quota.
  private mutating func buy() {
    /// Steps of which a lower rank may still get what it wants: higher ones wait.
    var settled: Set<StepID> = []
    for rank in Set(recruiters.map(\.key.rank)).sorted() {
      var buyers: [Buyer] = []
      for recruiter in recruiters where recruiter.key.rank == rank {
        let key = recruiter.key
        guard let need = snapshot.steps[key.step], let remaining = needs[key.step], remaining.milli > 0
        else { continue }
        guard !settled.contains(key.step) else {
          let hindrances = key == explained ? hindrances(to: recruiter, need, remaining) : []
          for hindrance in hindrances.isEmpty ? ["lower ranks come first"] : hindrances {
            remark(key, hindrance)
          }
          continue
        }
        let since = recruiter.needSince ?? snapshot.now
        plan.needSince[key] = since
        let ready = max(since, recruiter.boughtAt ?? .min) + Int64(recruiter.timeout) * 1_000_000
        if ready > snapshot.now {
          let hindrances = key == explained ? hindrances(to: recruiter, need, remaining) : []
          for hindrance in hindrances { remark(key, hindrance) }
          if hindrances.isEmpty {
            let seconds = (ready - snapshot.now + 999_999) / 1_000_000
            let slots = remaining.slots
            remark(
              key, "buys in \(seconds) s if the need of \(slots) \(slots == 1 ? "slot" : "slots") lasts")
          }
          settled.insert(key.step)
          continue
        }
        if snapshot.workflows[need.workflow]?.isSpent == true {
          remark(key, Self.isSpent)
          settled.insert(key.step)
          continue
        }
        let buyer = buyer(recruiter, need)
        if buyer.offers.isEmpty {
          remark(key, noOffer(recruiter))
          continue
        }
        buyers.append(buyer)
      }
      while !buyers.isEmpty { buyers = buyers.filter { buyOne($0, &settled) } }
    }
  }

  private func buyer(_ recruiter: Recruiter, _ need: StepNeed) -> Buyer {
    let offers = snapshot.offers.filter {
      recruiter.filter.matches($0.flavor, isDefaultRegion: $0.isDefaultRegion)
    }
    return Buyer(
      recruiter: recruiter, workflow: need.workflow,
      offers: offers.map { ($0, recruiter.concurrency(on: $0.flavor)) })
  }

  /// What would keep it from buying if it might now: for `explaining` alone, as it looks at every offer.
  private func hindrances(to recruiter: Recruiter, _ need: StepNeed, _ remaining: Remaining) -> [String] {
    if snapshot.workflows[need.workflow]?.isSpent == true { return [Self.isSpent] }
    if let full = fullRecruiter(recruiter) ?? fullWorkflow(need.workflow) { return [full] }
    let buyer = buyer(recruiter, need)
    if buyer.offers.isEmpty { return [noOffer(recruiter)] }
    return best(for: buyer, remaining).hindrances
  }

  private static let isSpent = "its workflow has spent what it may (--maximum-cost)"

  private func noOffer(_ recruiter: Recruiter) -> String {
    snapshot.offers.isEmpty
      ? "no flavor is known" : "no flavor passes its filter \(recruiter.filter.shown)"
  }

  private func fullRecruiter(_ recruiter: Recruiter) -> String? {
    let own = perRecruiter[recruiter.key, default: 0]
    guard let most = recruiter.maximumWorkers, own >= most else { return nil }
    return "has \(own) of at most \(most) \(most == 1 ? "worker" : "workers")"
  }

  private func fullWorkflow(_ workflow: WorkflowID) -> String? {
    let own = perWorkflow[workflow, default: 0]
    guard let most = snapshot.workflows[workflow]?.maximumWorkers, own >= most else { return nil }
    return "its workflow has \(own) of at most \(most) \(most == 1 ? "worker" : "workers")"
  }

  /// The cheapest for the slots that would be used, and where there is none, why.
  private func best(
    for buyer: Buyer, _ remaining: Remaining
  ) -> (found: (offer: Offer, slots: Int)?, hindrances: [String]) {
    var best: (offer: Offer, slots: Int, use: Int64, cost: Double)?
    var obstacles: [String] = []
    for (offer, slots) in buyer.offers {
      let use = remaining.use(of: offer.capacity, slots: slots)
      guard use > 0 else { continue }
      if let obstacle = obstacle(to: offer) {
        if obstacles.count < 5, !obstacles.contains(obstacle) { obstacles.append(obstacle) }
        continue
      }
      let cost = offer.expectedPrice / Double(use)
      if let known = best, (known.cost, -known.use) <= (cost, -use) { continue }
      best = (offer, slots, use, cost)
    }
    if let best { return ((best.offer, best.slots), []) }
    return (
      nil, obstacles.isEmpty ? ["no flavor that passes its filter is large enough for what waits"] : obstacles
    )
  }

  /// False when it will buy no more in this pass.
  private mutating func buyOne(_ buyer: Buyer, _ settled: inout Set<StepID>) -> Bool {
    let key = buyer.recruiter.key
    if plan.bought.count >= Self.mostPurchases {
      remark(key, "more are bought in the next pass")
      settled.insert(key.step)
      return false
    }
    guard let remaining = needs[key.step], remaining.milli > 0 else {
      settled.insert(key.step)
      return false
    }
    if let full = fullRecruiter(buyer.recruiter) {
      remark(key, full)
      return false
    }
    if let full = fullWorkflow(buyer.workflow) {
      remark(key, full)
      settled.insert(key.step)
      return false
    }
    let (found, hindrances) = best(for: buyer, remaining)
    guard let best = found else {
      for hindrance in hindrances { remark(key, hindrance) }
      return false
    }
    perRecruiter[key, default: 0] += 1
    perWorkflow[buyer.workflow, default: 0] += 1
    regions[best.offer.region, default: RegionBounds()].used.add(best.offer.flavor)
    needs[key.step]?.take(best.offer.capacity, slots: best.slots, milli: Int64(best.slots) * 1000)
    plan.bought.append(
      FleetPlan.Bought(
        by: key, flavor: best.offer.flavor, concurrency: best.slots,
        prefetch: buyer.recruiter.prefetch(with: best.slots)))
    return true
  }

  private func obstacle(to offer: Offer) -> String? {
    let bounds = regions[offer.region]
    if let obstacle = bounds?.obstacle { return "\(offer.region): \(obstacle)" }
    if let obstacle = offer.obstacle { return "\(offer.flavor.name) in \(offer.region): \(obstacle)" }
    if let bound = bounds?.bound(against: offer.flavor) {
      return "\(offer.region): its quota is used, \(bound)"
    }
    return nil
  }

  private mutating func remark(_ key: Recruiter.Key, _ text: String) {
    plan.remarks[key, default: []].append(text)
  }

  // MARK: Letting go

  private mutating func letGo() {
    let recycled = Set(plan.recycled.map(\.worker))
    for worker in snapshot.workers.sorted(by: { $0.id < $1.id })
    where worker.flavor != nil && !worker.isPermanent && !worker.isLeaving && !recycled.contains(worker.id) {
      if worker.isDeploying {
        if worker.rank != nil, let why = whyNotAwaited(worker) {
          plan.returned.append(.init(worker: worker.id, why: why))
        }
        continue
      }
      guard worker.isAvailable else { continue }
      guard let since = worker.idleSince, !isWanted(worker) else { continue }
      let idle = snapshot.now - since
      if worker.hasWorked, idle >= snapshot.patience.idle {
        plan.returned.append(.init(worker: worker.id, why: "idle for \(idle / 1_000_000) s"))
      } else if !worker.hasWorked, idle >= snapshot.patience.newcomer {
        plan.returned.append(.init(worker: worker.id, why: "without a task since it came"))
      } else if idle >= snapshot.patience.short, worker.rank != nil, !worker.hasWorked, isUnfit(worker) {
        plan.returned.append(.init(worker: worker.id, why: "it can run nothing of what its step has"))
      } else if idle >= snapshot.patience.short, worker.rank != nil || worker.hasWorked, !mayGetMore(worker) {
        plan.returned.append(.init(worker: worker.id, why: "nothing more can come for it"))
      }
    }
  }

  /// Why a recruited worker that is on its way is given up; nil: it is awaited. One that was asked for is paid for as it
  /// is, so that only the end of all work takes it back; an order that nobody knows of is good for as long as it is
  /// needed.
  private func whyNotAwaited(_ worker: FleetWorker) -> String? {
    guard worker.isOrdered else { return mayGetMore(worker) ? nil : "nothing more can come for it" }
    guard let step = worker.step, let rank = worker.rank, let need = snapshot.steps[step],
      recruiters.contains(where: { $0.key == .init(step: step, rank: rank) })
    else { return "its step has no such recruiter any more" }
    if need.isHeld { return "its step or workflow does not run" }
    if snapshot.workflows[need.workflow]?.isSpent == true {
      return Self.isSpent
    }
    if let flavor = worker.flavor,
      let obstacle = snapshot.regions[Region(provider: flavor.provider, name: flavor.region)]?.obstacle
    {
      return obstacle
    }
    return surplus.contains(worker.id) ? "it is not needed any more" : nil
  }

  /// Whether its step has tasks, and none that its host could run: the host is not what it was bought for.
  private func isUnfit(_ worker: FleetWorker) -> Bool {
    guard let step = worker.step, let need = snapshot.steps[step], !need.isHeld, !need.isCut else {
      return false
    }
    return need.demands.contains { $0.tasks > 0 } && !isWanted(worker)
  }

  /// Whether tasks exist that it may be given later, here or where it could be recycled to.
  private func mayGetMore(_ worker: FleetWorker) -> Bool {
    guard let flavor = worker.flavor else { return true }
    // One that was ordered by hand serves the tasks without a step; a recruited one has lost its step.
    if worker.step == nil, worker.rank == nil { return true }
    let own = worker.step.flatMap { snapshot.steps[$0] }
    if let own, own.coming > 0 { return true }
    guard worker.scope == .workflow || worker.scope == .everything else { return false }
    return recruiters.contains { recruiter in
      guard let need = snapshot.steps[recruiter.key.step], need.coming > 0 else { return false }
      return (worker.scope == .everything || need.workflow == own?.workflow)
        && recruiter.filter.matches(flavor, isDefaultRegion: isDefault(flavor))
    }
  }
}
