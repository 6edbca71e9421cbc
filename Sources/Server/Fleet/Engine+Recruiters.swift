import GRDB
import Scheduling
import ScitqProtocol
import SwiftProtobuf

/// What people want of the fleet.
enum FleetCommand: Sendable {
  case createRecruiter(WireRecruiter)
  case updateRecruiter(WireUpdateRecruiter)
  case deleteRecruiter(WireRecruiterRef)
  case enable(WireEnableFlavor)
  case deploy(WireDeployWorkers)

  /// What came of it.
  enum Outcome: Sendable {
    case recruiter(WireRecruiter)
    case deleted
    case enabled(WireFlavorsEnabled)
    case deployed(WireWorkersDeployed)
  }
}

extension Engine {
  func change(
    _ command: FleetCommand, by user: User, _ known: Known,
    _ reply: @escaping Command.Reply<FleetCommand.Outcome>
  ) {
    do throws(CallError) {
      let outcome: FleetCommand.Outcome =
        switch command {
        case .createRecruiter(let request): .recruiter(try create(request, by: user))
        case .updateRecruiter(let request): .recruiter(try update(request, by: user))
        case .deleteRecruiter(let request): try delete(request, by: user)
        case .enable(let request): .enabled(try enable(request, by: user))
        case .deploy(let request): .deployed(try deploy(request, by: user, known))
        }
      answer(reply, outcome)
    } catch {
      reply(.failure(error))
    }
  }

  // MARK: Recruiters

  private func create(_ request: WireRecruiter, by user: User) throws(CallError) -> WireRecruiter {
    _ = try step(request.stepID, for: user)
    let key = Recruiter.Key(step: StepID(request.stepID), rank: request.rank == 0 ? 1 : Int(request.rank))
    if fleet.recruiters[key] != nil {
      throw CallError(
        .conflict,
        "step \(key.step) has a recruiter of rank \(key.rank) already; change it by "
          + "`scitq recruiter update`, or give another --rank", field: "rank")
    }
    let recruiter = try Self.recruiter(key, request)
    save(recruiter)
    batch.event("recruiter", key.step.rawValue, "created", user: user.id, reason: "rank \(key.rank)")
    return view(recruiter)
  }

  private func update(_ request: WireUpdateRecruiter, by user: User) throws(CallError) -> WireRecruiter {
    _ = try step(request.stepID, for: user)
    let old = try recruiter(request.stepID, request.rank)
    var wire = view(old)
    let adapts =
      request.hasCpuPerTask || request.hasMemoryPerTask || request.hasDiskPerTask || request.hasConcurrencyMin
      || request.hasConcurrencyMax
    if request.hasConcurrency, request.concurrency > 0, adapts { throw Self.bothConcurrencies }
    if request.hasConcurrency, request.concurrency > 0 {
      (wire.cpuPerTask, wire.memoryPerTask, wire.diskPerTask) = (0, 0, 0)
      (wire.concurrencyMin, wire.concurrencyMax) = (0, 0)
      wire.concurrency = request.concurrency
    } else if adapts {
      wire.concurrency = 0
    }
    if request.hasFilter { wire.filter = request.filter }
    if request.hasCpuPerTask { wire.cpuPerTask = request.cpuPerTask }
    if request.hasMemoryPerTask { wire.memoryPerTask = request.memoryPerTask }
    if request.hasDiskPerTask { wire.diskPerTask = request.diskPerTask }
    if request.hasConcurrencyMin { wire.concurrencyMin = request.concurrencyMin }
    if request.hasConcurrencyMax { wire.concurrencyMax = request.concurrencyMax }
    if request.hasPrefetch { (wire.prefetch, wire.prefetchPercent) = (request.prefetch, 0) }
    if request.hasPrefetchPercent, request.prefetchPercent > 0 || !request.hasPrefetch {
      (wire.prefetch, wire.prefetchPercent) = (0, request.prefetchPercent)
    }
    if request.hasMaximumWorkers { wire.maximumWorkers = request.maximumWorkers }
    if request.hasRounds { wire.rounds = request.rounds }
    if request.hasTimeout { wire.timeout = request.timeout }
    var new = try Self.recruiter(old.key, wire)
    new.needSince = old.needSince
    new.boughtAt = old.boughtAt
    save(new)
    batch.event("recruiter", old.key.step.rawValue, "updated", user: user.id, reason: "rank \(old.key.rank)")
    return view(new)
  }

  private func delete(_ request: WireRecruiterRef, by user: User) throws(CallError) -> FleetCommand.Outcome {
    _ = try step(request.stepID, for: user)
    let key = try recruiter(request.stepID, request.rank).key
    fleet.recruiters[key] = nil
    batch.writes.append { db in
      try db.execute(
        sql: "DELETE FROM recruiter WHERE step_id = ? AND rank = ?", arguments: [key.step.rawValue, key.rank])
    }
    batch.event("recruiter", key.step.rawValue, "deleted", user: user.id, reason: "rank \(key.rank)")
    return .deleted
  }

  private func recruiter(_ step: Int64, _ rank: UInt32) throws(CallError) -> Recruiter {
    let key = Recruiter.Key(step: StepID(step), rank: rank == 0 ? 1 : Int(rank))
    guard let recruiter = fleet.recruiters[key] else {
      throw CallError(
        .notFound,
        "step \(step) has no recruiter of rank \(key.rank); `scitq recruiter list` shows those that exist",
        field: "rank")
    }
    return recruiter
  }

  private static let bothConcurrencies = CallError(
    .invalid,
    "a fixed --concurrency and what a task needs (--cpu-per-task, --memory-per-task, --disk-per-task, "
      + "--concurrency-min, --concurrency-max) exclude each other; give one or the other",
    field: "concurrency")

  private static func recruiter(_ key: Recruiter.Key, _ wire: WireRecruiter) throws(CallError) -> Recruiter {
    let filter: FlavorFilter
    do { filter = try FlavorFilter(wire.filter) } catch {
      throw CallError(.invalid, error.description, field: "filter")
    }
    let adapts =
      wire.cpuPerTask != 0 || wire.memoryPerTask != 0 || wire.diskPerTask != 0 || wire.concurrencyMin != 0
      || wire.concurrencyMax != 0
    if adapts, wire.concurrency > 0 { throw bothConcurrencies }
    if adapts, wire.cpuPerTask == 0, wire.memoryPerTask == 0, wire.diskPerTask == 0 {
      throw CallError(
        .invalid,
        "--concurrency-min and --concurrency-max bound an adaptive concurrency; say what a task needs too, "
          + "such as --cpu-per-task 2", field: "concurrency-min")
    }
    for (value, field) in [
      (wire.cpuPerTask, "cpu-per-task"), (wire.memoryPerTask, "memory-per-task"),
      (wire.diskPerTask, "disk-per-task"),
    ] where value != 0 && !(0.001...1_000_000).contains(value) {
      throw CallError(.invalid, "--\(field) is \(value); it is from 0.001 to 1000000", field: field)
    }
    if wire.concurrencyMax > 0, wire.concurrencyMin > wire.concurrencyMax {
      throw CallError(
        .invalid,
        "--concurrency-min \(wire.concurrencyMin) is more than --concurrency-max \(wire.concurrencyMax)",
        field: "concurrency-min")
    }
    if wire.prefetch > 0, wire.prefetchPercent > 0 {
      throw CallError(
        .invalid, "--prefetch and --prefetch-percent exclude each other; give one of them", field: "prefetch")
    }
    for (value, field) in [
      (wire.concurrency, "concurrency"), (wire.concurrencyMin, "concurrency-min"),
      (wire.concurrencyMax, "concurrency-max"), (wire.prefetch, "prefetch"),
      (wire.prefetchPercent, "prefetch-percent"), (wire.rounds, "rounds"),
      (wire.maximumWorkers, "max-workers"),
    ] where value > 10_000 {
      throw CallError(.invalid, "--\(field) is \(value); it is at most 10000", field: field)
    }
    func given(_ value: Double) -> Double? { value > 0 ? value : nil }
    func given(_ value: UInt32) -> Int? { value > 0 ? Int(value) : nil }
    return Recruiter(
      key: key, filter: filter,
      concurrency: adapts
        ? .adaptive(
          cpu: given(wire.cpuPerTask), memory: given(wire.memoryPerTask), disk: given(wire.diskPerTask),
          least: given(wire.concurrencyMin), most: given(wire.concurrencyMax))
        : .fixed(max(1, Int(wire.concurrency))),
      prefetch: wire.prefetchPercent > 0 ? .percent(Int(wire.prefetchPercent)) : .tasks(Int(wire.prefetch)),
      maximumWorkers: given(wire.maximumWorkers), rounds: max(1, Int(wire.rounds)), timeout: Int(wire.timeout)
    )
  }

  func view(_ recruiter: Recruiter) -> WireRecruiter {
    var wire = WireRecruiter()
    wire.stepID = recruiter.key.step.rawValue
    wire.rank = UInt32(clamping: recruiter.key.rank)
    wire.filter = recruiter.filter.description
    switch recruiter.concurrency {
    case .fixed(let count): wire.concurrency = UInt32(clamping: count)
    case .adaptive(let cpu, let memory, let disk, let least, let most):
      wire.cpuPerTask = cpu ?? 0
      wire.memoryPerTask = memory ?? 0
      wire.diskPerTask = disk ?? 0
      wire.concurrencyMin = UInt32(clamping: least ?? 0)
      wire.concurrencyMax = UInt32(clamping: most ?? 0)
    }
    switch recruiter.prefetch {
    case .tasks(let count): wire.prefetch = UInt32(clamping: count)
    case .percent(let percent): wire.prefetchPercent = UInt32(clamping: percent)
    }
    wire.maximumWorkers = UInt32(clamping: recruiter.maximumWorkers ?? 0)
    wire.rounds = UInt32(clamping: recruiter.rounds)
    wire.timeout = UInt32(clamping: recruiter.timeout)
    wire.stepName = steps[recruiter.key.step]?.name ?? ""
    wire.workflowID = steps[recruiter.key.step]?.workflow.rawValue ?? 0
    wire.workers = UInt32(
      clamping: workers.values.filter {
        $0.step == recruiter.key.step && $0.rank == recruiter.key.rank
      }.count)
    return wire
  }

  /// Those of a step, or all where it is zero.
  func recruiters(of step: Int64) throws(CallError) -> [WireRecruiter] {
    if step != 0, steps[StepID(step)] == nil { throw Self.noStep(step) }
    return fleet.recruiters.values.filter { step == 0 || $0.key.step.rawValue == step }
      .sorted { $0.key < $1.key }.map(view)
  }

  /// What it would do now, and why not more.
  func explain(recruiter step: Int64, _ rank: UInt32) throws(CallError) -> String {
    if steps[StepID(step)] == nil { throw Self.noStep(step) }
    let recruiter = try recruiter(step, rank)
    let key = recruiter.key
    let snapshot = snapshot(at: microsecondsNow())
    let plan = Recruitment.plan(snapshot, explaining: key)
    guard let need = snapshot.steps[key.step] else { return "its step is gone" }
    let pending = need.demands.reduce(0) { $0 + $1.tasks }
    var sentences: [String] = []
    if need.isHeld { sentences.append("its step or workflow does not run, so nothing is needed") }
    let workers = view(recruiter).workers
    sentences.append(
      "\(pending) \(pending == 1 ? "task is" : "tasks are") ready, \(need.coming - pending) more may come, and "
        + "\(workers) of \(recruiter.maximumWorkers.map(String.init) ?? "any number of") workers are here or on their way"
    )
    if let wanted = plan.wanted[key] {
      sentences.append("\(wanted) \(wanted == 1 ? "slot is" : "slots are") wanted beside those that are free")
    } else if !need.isHeld, pending > 0 {
      sentences.append("the slots that are free or on their way suffice")
    }
    let recycled = plan.recycled.filter { $0.to == key }
    if !recycled.isEmpty {
      sentences.append("it takes over \(recycled.count) idle \(recycled.count == 1 ? "worker" : "workers")")
    }
    for (flavor, orders) in Dictionary(grouping: plan.bought.filter { $0.by == key }, by: \.flavor)
      .sorted(by: { $0.key.name < $1.key.name })
    {
      let region = Region(provider: flavor.provider, name: flavor.region)
      sentences.append(
        "it buys \(orders.count) of \(flavor.name) in \(region), "
          + "\(orders[0].concurrency) \(orders[0].concurrency == 1 ? "slot" : "slots") each"
      )
    }
    sentences += plan.remarks[key] ?? []
    if configuration.providers.isEmpty { sentences.append("no provider is configured") }
    // Orders that wait for their provider, and where there is trouble of which nothing was said yet.
    var waiting: Set<String> = []
    for worker in self.workers.values where worker.step == key.step && worker.rank == key.rank {
      guard let instance = fleet.instance(of: worker), instance.state == .ordered,
        let region = fleet.flavor(of: instance)?.region
      else { continue }
      if let obstacle = fleet.regions[region]?.obstacle(snapshot.now) {
        waiting.insert("\(region): \(obstacle)")
      } else if let problem = instance.problem {
        waiting.insert("\(region): \(problem.kind.rawValue), \(problem.message)")
      }
    }
    let named = sentences + waiting
    let unnamed = troubles(now: snapshot.now).filter { trouble in
      recruiter.filter.admits(trouble.region, isDefault: trouble.isDefault)
        && !named.contains { $0.hasPrefix("\(trouble.region): ") }
    }
    sentences += waiting.sorted() + Trouble.sentences(unnamed).prefix(5)
    return sentences.joined(separator: "; ")
  }

  // MARK: Regions

  /// A region of the configuration that does not do what it is asked, or of which nothing is known yet.
  struct Trouble: Sendable {
    var region: Region
    var isDefault: Bool
    var problem: ProviderError?
    /// Why, and for how long.
    var obstacle: String
    var hasFlavors: Bool

    /// A sentence for each provider and problem: `aws.primary eu-west-1, us-east-1: credentials, …`.
    static func sentences(_ troubles: [Trouble]) -> [String] {
      var groups: [(first: Trouble, others: [String])] = []
      for trouble in troubles {
        let place = groups.firstIndex {
          $0.first.region.provider == trouble.region.provider && $0.first.problem == trouble.problem
            && $0.first.hasFlavors == trouble.hasFlavors
        }
        if let place {
          groups[place].others.append(trouble.region.name)
        } else {
          groups.append((trouble, []))
        }
      }
      return groups.map { first, others in
        let places = (["\(first.region)"] + others).joined(separator: ", ")
        let unknown = others.isEmpty ? "; its flavors are not known" : "; their flavors are not known"
        return "\(places): \(first.obstacle)" + (first.hasFlavors ? "" : unknown)
      }
    }
  }

  /// In the order of the configuration.
  func troubles(now: Int64 = microsecondsNow()) -> [Trouble] {
    let withFlavors = Set(fleet.flavors.values.filter { !$0.isGone }.map(\.region))
    return configuration.providers.flatMap { provider in
      provider.regions.compactMap { name in
        let region = Region(provider: provider.name, name: name)
        guard let row = fleet.regions[region], let obstacle = row.trouble(now) else { return nil }
        return Trouble(
          region: region, isDefault: name == provider.regions.first, problem: row.problem,
          obstacle: obstacle, hasFlavors: withFlavors.contains(region))
      }
    }
  }

  // MARK: Flavors and workers

  private func enable(_ request: WireEnableFlavor, by user: User) throws(CallError) -> WireFlavorsEnabled {
    let meant = fleet.flavors.values.filter {
      $0.flavor.provider == request.provider && $0.flavor.name == request.name
        && (request.region.isEmpty || $0.flavor.region == request.region)
    }
    if meant.isEmpty { throw noFlavor(request.provider, request.name, request.region) }
    var answer = WireFlavorsEnabled()
    for var row in meant.sorted(by: { ($0.region, $0.id) < ($1.region, $1.id) }) {
      if request.enabled {
        if let reason = row.blockReason, row.blockedUntil ?? 0 > batch.now {
          answer.forgotten.append("\(row.region): \(reason)")
        }
        (row.blockedUntil, row.blockReason, row.blockCount) = (nil, nil, 0)
        (row.seen, row.seenAt) = (nil, nil)
        answer.forgotten += forgetTrouble(of: row.region)
      }
      if row.isDisabled == request.enabled { answer.changed += 1 }
      row.isDisabled = !request.enabled
      save(row)
      if !request.enabled { withdrawOrders(of: row, because: "its flavor was disabled", by: user.id) }
    }
    batch.event(
      "flavor", meant[0].id, request.enabled ? "enabled" : "disabled", user: user.id, reason: request.name)
    // Orders may have waited for this.
    announcement.hasErrands = true
    return answer
  }

  /// Lets a region be asked again at once, as if nothing had gone wrong there. Answers what did.
  private func forgetTrouble(of region: Region) -> [String] {
    guard var row = fleet.regions[region] else { return [] }
    var forgotten: [String] = []
    if let problem = row.problem {
      forgotten.append("\(region): \(problem.kind.rawValue), \(problem.message)")
    }
    if let learned = row.learnedInstances, row.learnedUntil ?? 0 > batch.now {
      forgotten.append(
        "\(region): at most \(learned) \(learned == 1 ? "instance" : "instances"), as was found out")
    }
    guard !forgotten.isEmpty || row.blockedUntil != nil || row.failures > 0 || row.learnedInstances != nil
    else {
      return []
    }
    (row.problem, row.blockedUntil, row.failures) = (nil, nil, 0)
    (row.learnedInstances, row.learnedUntil) = (nil, nil)
    save(row)
    return forgotten
  }

  private func noFlavor(_ provider: String, _ name: String, _ region: String) -> CallError {
    let known = configuration.providers.map(\.name)
    if !known.contains(provider) {
      let names = known.isEmpty ? "none is configured" : "known: \(known.joined(separator: ", "))"
      return CallError(.notFound, "there is no provider \(provider.prefix(60)); \(names)", field: "provider")
    }
    let regions = configuration.providers.first { $0.name == provider }?.regions ?? []
    if !region.isEmpty, !regions.contains(region) {
      return CallError(
        .notFound,
        "\(provider) has no region \(region.prefix(60)); it has: \(regions.joined(separator: ", "))",
        field: "region")
    }
    let asked = region.isEmpty ? regions : [region]
    let own = fleet.flavors.values.filter {
      $0.flavor.provider == provider && asked.contains($0.flavor.region)
    }
    if own.allSatisfy(\.isGone) {
      let troubles = troubles(now: batch.now).filter {
        $0.region.provider == provider && asked.contains($0.region.name)
      }
      let why = Trouble.sentences(troubles).joined(separator: "; ")
      return CallError(
        .unavailable,
        why.isEmpty
          ? "the flavors of \(provider) are not known yet; try again in a minute"
          : "\(name.prefix(60)) cannot be had: \(why)",
        field: "flavor")
    }
    let place = region.isEmpty ? provider : "\(Region(provider: provider, name: region))"
    return CallError(
      .notFound,
      "\(place) has no flavor \(name.prefix(60)); `scitq flavor list --filter provider=\(provider)` shows those "
        + "that it has", field: "flavor")
  }

  static func key(of request: WireDeployWorkers) -> String { "deploy:" + request.idempotencyKey }

  private func deploy(_ request: WireDeployWorkers, by user: User, _ known: Known) throws(CallError)
    -> WireWorkersDeployed
  {
    var answer = WireWorkersDeployed()
    let key = Self.key(of: request)
    if !request.idempotencyKey.isEmpty, let made = known.made[Known.key(user.id, key)] {
      for id in made.firstID..<made.firstID + made.count {
        answer.workers.append(
          .with {
            $0.id = id
            $0.name = workers[WorkerID(id)]?.name ?? ""
          })
      }
      return answer
    }
    let count = request.count == 0 ? 1 : Int(request.count)
    if count > 1000 {
      throw CallError(.invalid, "--count is \(count); it is at most 1000 a call", field: "count")
    }
    if request.concurrency > 10_000 {
      throw CallError(
        .invalid, "concurrency is \(request.concurrency); it is from 1 to 10000", field: "concurrency")
    }
    var step: StepID?
    if request.stepID != 0 { step = try self.step(request.stepID, for: user).id }
    let provider = configuration.providers.first { $0.name == request.provider }
    let region = request.region.isEmpty ? provider?.regions.first ?? "" : request.region
    let candidates = fleet.flavors.values.filter {
      $0.flavor.provider == request.provider && $0.flavor.region == region && $0.flavor.name == request.flavor
        && !$0.isGone && provider?.regions.contains(region) == true
    }.sorted { ($0.flavor.price, $0.id) < ($1.flavor.price, $1.id) }
    guard let flavor = candidates.first(where: { $0.obstacle(batch.now) == nil }) else {
      if let blocked = candidates.first {
        throw CallError(
          .unavailable,
          "\(request.flavor) in \(blocked.region) cannot be had: \(blocked.obstacle(batch.now) ?? "")",
          field: "flavor")
      }
      throw noFlavor(request.provider, request.flavor, region)
    }
    var bounds = snapshot(at: batch.now).regions[flavor.region] ?? RegionBounds()
    for _ in 0..<count {
      if let bound = bounds.bound(against: flavor.flavor) {
        throw CallError(.exhausted, "\(flavor.region): its quota is used, \(bound)", field: "count")
      }
      bounds.used.add(flavor.flavor)
    }
    if let workflow = workflow(of: step), workflow.maximumWorkers > 0 {
      let own = workers.values.filter { self.workflow(of: $0.step)?.id == workflow.id }.count
      if own + count > workflow.maximumWorkers {
        throw CallError(
          .exhausted,
          "workflow \(workflow.name) may have \(workflow.maximumWorkers) workers and has \(own); raise its "
            + "--maximum-workers, or deploy fewer", field: "count")
      }
    }
    let first = nextWorker
    for _ in 0..<count {
      let row = order(
        flavor, step: step, rank: nil, scope: .none, concurrency: max(1, Int(request.concurrency)),
        prefetch: Int(request.prefetch), by: user)
      answer.workers.append(
        .with {
          $0.id = row.id.rawValue
          $0.name = row.name
        })
    }
    if !request.idempotencyKey.isEmpty { batch.keys.append((user.id, key, first, Int64(count))) }
    return answer
  }
}

extension RegionRow {
  /// Why it does not do what it is asked, also while that is tried again; nil: nothing is known against it.
  func trouble(_ now: Int64) -> String? {
    (obstacle(now) ?? problem.map { "\($0.kind.rawValue), \($0.message)" })?.replacing(".;", with: ";")
  }
}
