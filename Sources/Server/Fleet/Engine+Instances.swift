import GRDB
import Scheduling
import ScitqProtocol

/// What providers answer, and what follows from it.
extension Engine {
  /// What is to be asked of providers now. Of one that has not shown yet that it does what it is asked, or has just not
  /// done it, one host at a time.
  func errands(besides underWay: Set<InstanceID>) -> [FleetErrand] {
    let now = microsecondsNow()
    var errands: [FleetErrand] = []
    var probed: Set<Region> = []
    for id in underWay {
      if let flavor = fleet.instances[id].flatMap({ fleet.flavor(of: $0) }) { probed.insert(flavor.region) }
    }
    for row in fleet.instances.values.sorted(by: { $0.id < $1.id }) {
      guard !underWay.contains(row.id), (row.nextAttemptAt ?? 0) <= now, let flavor = fleet.flavor(of: row)
      else { continue }
      if row.state == .deployed {
        if row.isUnwanted { errands.append(.terminate(row, flavor.region)) }
        continue
      }
      // One that may exist is looked for, also when nobody wants it any more.
      let region = fleet.regions[flavor.region]
      if !row.isUnwanted, (region?.blockedUntil ?? 0) > now { continue }
      if !fleet.trusted.contains(flavor.region), !probed.insert(flavor.region).inserted { continue }
      let worker = workers[row.worker]
      errands.append(
        .deploy(
          row, flavor.flavor, concurrency: Int(worker?.concurrency ?? 1),
          prefetch: Int(worker?.prefetch ?? 0), lookFirst: row.attempts > 0))
    }
    return errands
  }

  /// When errands are due next, beside those that are due now.
  func nextErrand() -> Int64? {
    let now = microsecondsNow()
    return fleet.instances.values.compactMap { row -> Int64? in
      guard row.state == .ordered || row.isUnwanted else { return nil }
      let region = row.isUnwanted ? nil : fleet.flavor(of: row).flatMap { fleet.regions[$0.region] }
      let blocked = region?.blockedUntil ?? 0
      let time: Int64 = max(row.nextAttemptAt ?? 0, blocked)
      return time > now ? time : nil
    }.min()
  }

  func take(_ report: FleetReport, _ known: Known, _ reply: @escaping Command.Reply<[Instance]>) {
    var strangers: [Instance] = []
    switch report {
    case .attempting(let id):
      guard var row = fleet.instances[id], row.state == .ordered, !row.isUnwanted || row.attempts > 0 else {
        return reply(.failure(CallError(.conflict, "the order was taken back")))
      }
      row.attempts += 1
      save(row)
    case .deployed(let id, let instance, let isFree): deployed(id, instance, isFree: isFree)
    case .refused(let id, let error): refused(id, error)
    case .returned(let id):
      guard var row = fleet.instances[id] else { break }
      end(&row)
      save(row)
      count(row, takenBack: false)
    case .kept(let id, let error):
      guard var row = fleet.instances[id] else { break }
      row.attempts += 1
      row.problem = error
      row.nextAttemptAt = batch.now + Self.pause(row.attempts, row.id)
      save(row)
      batch.event(worker: row.worker, "not returned", reason: error.message)
    case .seen(let region, let instances, let time, let queues):
      strangers = seen(region, instances, at: time, queues: queues, known)
    case .flavors(let region, let flavors): refresh(region, flavors)
    case .troubled(let region, let error):
      var row = fleet.regions[region] ?? RegionRow(region)
      trouble(&row, error)
    case .progress(let id, let phase, let words):
      guard let row = fleet.instances[id] else { break }
      batch.event(worker: row.worker, phase, reason: words)
    case .swept(let region, let key):
      batch.event("instance", 0, "swept", reason: "\(key) in \(region): no order knows it")
    }
    answer(reply, strangers)
  }

  private func deployed(_ id: InstanceID, _ instance: Instance, isFree: Bool) {
    guard var row = fleet.instances[id], row.state == .ordered else { return }
    row.state = .deployed
    row.reference = instance.id
    row.address = instance.address
    row.endsAt = instance.endsAt
    row.deployedAt = batch.now
    row.problem = nil
    row.nextAttemptAt = nil
    row.attempts = 0
    save(row)
    if !isFree { charge(id, to: workers[row.worker]?.step) }
    if let flavor = fleet.flavor(of: row) {
      fleet.trusted.insert(flavor.region)
      relieve(flavor.region, byHost: true)
      if flavor.blockCount > 0 {
        var flavor = flavor
        flavor.blockCount = 0
        save(flavor)
      }
    }
    batch.event(worker: row.worker, "deployed", reason: instance.id)
  }

  /// The order did not become a host. Each class of failure has its own answer; what was learned spares the orders that
  /// nobody was asked for yet the same.
  private func refused(_ id: InstanceID, _ error: ProviderError) {
    guard var row = fleet.instances[id], row.state == .ordered, var flavor = fleet.flavor(of: row) else {
      return
    }
    let now = batch.now
    fleet.trusted.remove(flavor.region)
    var region = fleet.regions[flavor.region] ?? RegionRow(flavor.region)
    func waiting(_ matches: (FlavorRow) -> Bool) -> [InstanceRow] {
      fleet.instances.values.filter {
        $0.id != id && $0.state == .ordered && $0.attempts == 0 && fleet.flavor(of: $0).map(matches) == true
      }.sorted { $0.id < $1.id }
    }
    var others: [InstanceRow] = []
    switch error.kind {
    case .capacity, .unsupported:
      flavor.blockCount += 1
      let base: Int64 = error.kind == .capacity ? 300 : 86_400
      let seconds = min(base << Int64(min(flavor.blockCount - 1, 4)), max(base, 3600))
      flavor.blockedUntil = now + seconds * 1_000_000
      flavor.blockReason = "\(error.kind.rawValue), \(error.message)"
      save(flavor)
      others = waiting { $0.id == flavor.id }
    case .quota:
      let standing = fleet.instances.values.filter {
        $0.state == .deployed && fleet.flavor(of: $0)?.region == flavor.region
      }.count
      region.learnedInstances = error.limit ?? standing
      region.learnedUntil = now + 600_000_000
      region.problem = error
      region.blockedUntil = now + 60_000_000
      save(region)
      others = waiting { $0.region == flavor.region }
    case .credentials, .misconfigured:
      trouble(&region, error)
      others = waiting { $0.flavor.provider == flavor.flavor.provider }
    case .transient:
      trouble(&region, error)
      if now - row.createdAt < configuration.fleet.deployTimeout.microseconds, !row.isUnwanted {
        row.problem = error
        row.nextAttemptAt = now + Self.pause(row.attempts, row.id)
        return save(row)
      }
      if !row.isUnwanted {
        // It may exist for all one knows: it is looked for until somebody can tell.
        returnHost(of: row.worker, because: error.message, by: nil)
        guard let now = fleet.instances[id] else { return }
        row = now
      }
      row.problem = error
      row.nextAttemptAt = now + Self.pause(row.attempts, row.id)
      return save(row)
    }
    for var order in [row] + others {
      order.problem = error
      end(&order)
      save(order)
      if var worker = workers[order.worker] {
        forget(&worker, "not deployed", because: "\(error.kind.rawValue): \(error.message)", by: nil)
      }
    }
  }

  /// A provider did not answer as it should: it is asked again later, and later still if that does not help.
  private func trouble(_ region: inout RegionRow, _ error: ProviderError) {
    region.failures += 1
    region.problem = error
    region.blockedUntil = batch.now + Self.pause(region.failures)
    save(region)
    if region.failures == 1 {
      batch.event(
        "region", 0, "troubled", reason: "\(region.region): \(error.kind.rawValue), \(error.message)")
    }
  }

  /// It answers. That it does what it is asked is known only when it has made a host: what was learned from a refusal
  /// holds for its time.
  private func relieve(_ region: Region, byHost: Bool = false) {
    guard var row = fleet.regions[region], row.failures > 0 || row.problem != nil else { return }
    let blocked = row.blockedUntil ?? 0
    guard byHost || blocked <= batch.now && row.problem != nil else { return }
    if byHost || blocked + 3_600_000_000 <= batch.now { row.failures = 0 }
    row.problem = nil
    row.blockedUntil = nil
    save(row)
    batch.event("region", 0, "relieved", reason: "\(region)")
  }

  /// Before the next try after so many in vain: a minute, twice as long each time, at most a quarter of an hour.
  private static func pause(_ failures: Int) -> Int64 {
    min(60 << Int64(min(max(failures - 1, 0), 4)), 900) * 1_000_000
  }

  /// The same, spread by a fifth, so that many do not come at once.
  private static func pause(_ attempts: Int, _ id: InstanceID) -> Int64 {
    let (base, spread) = (pause(attempts), id.rawValue &* 7919 % 100)
    return base + base / 500 * spread
  }

  private func count(_ row: InstanceRow, takenBack: Bool) {
    guard row.deployedAt != nil, var flavor = fleet.flavor(of: row) else { return }
    flavor.ended += 1
    if takenBack { flavor.takenBack += 1 }
    save(flavor)
  }

  // MARK: What there is

  /// Compares a provider's list with the rows, both ways. Answers the hosts with our tag that no row stands for.
  private func seen(
    _ region: Region, _ found: [Instance], at time: Int64, queues: Bool, _ known: Known
  ) -> [Instance] {
    relieve(region)
    let byKey = Dictionary(grouping: found, by: \.key)
    var strangers: [Instance] = []
    var keys: Set<String> = []
    for var row in fleet.instances.values.sorted(by: { $0.id < $1.id }) {
      guard fleet.flavor(of: row)?.region == region else { continue }
      keys.insert(row.key)
      let hosts = byKey[row.key] ?? []
      if row.state == .ordered {
        if row.attempts > 0, let host = hosts.first {
          deployed(row.id, host, isFree: queues && host.state == .pending)
        }
        continue
      }
      guard let host = hosts.first(where: { $0.id == row.reference }) else {
        strangers += hosts
        // A list that was asked for before it was made cannot know it, and some lists are late.
        guard let deployedAt = row.deployedAt, deployedAt < time else { continue }
        fleet.missing[row.id, default: 0] += 1
        if row.isUnwanted || fleet.missing[row.id, default: 0] >= 2 { gone(row, known) }
        continue
      }
      strangers += hosts.filter { $0.id != host.id }
      fleet.missing[row.id] = nil
      update(&row, with: host, queues: queues)
    }
    strangers += found.filter { !keys.contains($0.key) }
    return strangers
  }

  private func update(_ row: inout InstanceRow, with host: Instance, queues: Bool) {
    let before = row
    let worker = workers[row.worker]
    if queues, host.state == .pending, row.joinedAt == nil {
      // It has not begun: its deadline and its costs have not either.
      if batch.now - (row.deployedAt ?? 0) > 60_000_000 { row.deployedAt = batch.now }
    } else if fleet.uses[row.id] == nil {
      charge(row.id, to: worker?.step)
      row.deployedAt = batch.now
    }
    if !host.address.isEmpty { row.address = host.address }
    row.endsAt = host.endsAt ?? row.endsAt
    row.isSuspended = host.state == .suspended
    if row.address != before.address || row.endsAt != before.endsAt || row.isSuspended != before.isSuspended
      || row.deployedAt != before.deployedAt
    {
      save(row)
    }
    guard row.isSuspended != before.isSuspended, let worker else { return }
    batch.event(worker: worker.id, row.isSuspended ? "suspended by its provider" : "resumed by its provider")
    if !row.isSuspended { registry.grantLease(worker.id) }
    set(worker)
  }

  /// Its provider does not know it any more: what it had is lost at once.
  private func gone(_ row: InstanceRow, _ known: Known) {
    var row = row
    if var worker = workers[row.worker] {
      for task in cluster.tasks(on: worker.id) {
        lose(task, because: "the host of worker \(worker.name) is gone", known)
      }
      guard cluster.tasks(on: worker.id).isEmpty else { return }
      forget(&worker, "gone", because: "its provider does not know its host any more", by: nil)
    }
    let isEarly = row.endsAt.map { $0 > batch.now + 60_000_000 } ?? true
    let flavor = fleet.flavor(of: row)
    end(&row)
    save(row)
    count(row, takenBack: flavor?.flavor.isSpot == true && !row.isUnwanted && isEarly)
  }

  // MARK: Flavors

  private func refresh(_ region: Region, _ flavors: [Flavor]) {
    relieve(region)
    var row = fleet.regions[region] ?? RegionRow(region)
    row.refreshedAt = batch.now
    save(row)
    var missing = Set(fleet.flavors.values.filter { $0.region == region && !$0.isGone }.map(\.key))
    for flavor in flavors {
      let key = FlavorRow.Key(flavor)
      missing.remove(key)
      if var known = fleet.flavors[key] {
        guard known.flavor != flavor || known.isGone else { continue }
        known.flavor = flavor
        known.isGone = false
        save(known)
      } else {
        save(FlavorRow(id: fleet.nextFlavor, flavor))
        fleet.nextFlavor += 1
      }
    }
    // Never deleted: hosts may be of them.
    for key in missing {
      guard var known = fleet.flavors[key] else { continue }
      known.isGone = true
      save(known)
    }
  }

  // MARK: Joining

  /// The worker of a host that shows its ticket; nil: the ticket is not good any more.
  func worker(ofTicket id: InstanceID) -> WorkerRow? {
    guard let instance = fleet.instances[id], !instance.isUnwanted else { return nil }
    // The job of a cluster may begin again, on another node, and is the same host then.
    if instance.joinedAt != nil, !isQueued(instance) { return nil }
    return workers[instance.worker]
  }

  private func isQueued(_ instance: InstanceRow) -> Bool {
    guard let provider = fleet.flavor(of: instance)?.flavor.provider else { return false }
    return configuration.providers.first { $0.name == provider }?.kind.queues == true
  }

  /// Whether its provider may have suspended it since it was last asked.
  func mayBeSuspended(_ instance: InstanceRow, _ worker: WorkerID) -> Bool {
    isQueued(instance)
      && !registry.silent(for: configuration.workers.offlineTimeout * 2).contains(worker)
  }

  /// The worker of a rented host is there, and has said what it holds.
  func joined(_ row: WorkerRow) {
    guard var instance = fleet.instance(of: row) else { return }
    fleet.idleSince[row.id] = batch.now
    guard instance.joinedAt == nil else { return }
    instance.joinedAt = batch.now
    save(instance)
    if fleet.uses[instance.id] == nil { charge(instance.id, to: row.step) }
    guard var flavor = fleet.flavor(of: instance) else { return }
    let capacity = row.capacity(at: batch.now)
    if flavor.seenMemoryMiB != capacity.memoryMiB || flavor.seenDiskMiB != capacity.diskMiB {
      flavor.seenMemoryMiB = capacity.memoryMiB
      flavor.seenDiskMiB = capacity.diskMiB
      save(flavor)
    }
  }
}
