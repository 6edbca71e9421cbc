import GRDB
import Logging
import Scheduling
import ScitqProtocol

/// What providers answer, and what follows from it.
extension Engine {
  /// What is to be asked of providers now, returns first. Of one that has not shown yet that it does what it is asked, or
  /// has just not done it, one host at a time; and where no host has come to be a worker of late, no second one before
  /// the first has.
  func errands(besides underWay: Set<InstanceID>) -> [FleetErrand] {
    let now = microsecondsNow()
    var errands: [FleetErrand] = []
    var probed: Set<Region> = []
    for row in fleet.instances.values where !row.isUnwanted {
      guard let region = fleet.flavor(of: row)?.region else { continue }
      let isAwaited = row.state == .deployed && row.joinedAt == nil && !isQueued(row)
      if underWay.contains(row.id) || isAwaited && !fleet.proven.contains(region) { probed.insert(region) }
    }
    let rows = fleet.instances.values.sorted {
      ($0.isUnwanted ? 0 : 1, $0.id) < ($1.isUnwanted ? 0 : 1, $1.id)
    }
    for row in rows {
      guard !underWay.contains(row.id), (row.nextAttemptAt ?? 0) <= now, let flavor = fleet.flavor(of: row)
      else { continue }
      if row.state == .deployed {
        if row.isUnwanted { errands.append(.terminate(row, flavor.region)) }
        continue
      }
      // One that may exist is looked for, also when nobody wants it any more.
      let region = fleet.regions[flavor.region]
      if !row.isUnwanted, (region?.blockedUntil ?? 0) > now { continue }
      let isKnown =
        fleet.trusted.contains(flavor.region) && (fleet.proven.contains(flavor.region) || isQueued(row))
      // One that is looked for is made where it is not found.
      if !row.isUnwanted, !isKnown, !probed.insert(flavor.region).inserted { continue }
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
      guard var row = fleet.instances[id], row.state == .ordered, !row.isUnwanted else {
        return reply(.failure(CallError(.conflict, "the order was taken back")))
      }
      row.attempts += 1
      save(row)
    case .deployed(let id, let instance, let isFree): deployed(id, instance, isFree: isFree)
    case .refused(let id, let error): refused(id, error)
    case .unclear(let id, let error):
      if var row = fleet.instances[id] {
        row.attempts += 1
        fleet.instances[id] = row
      }
      unclear(id, error)
    case .returned(let id):
      guard var row = fleet.instances[id] else { break }
      // Those that were gone before are counted already.
      if fleet.uses[id] != nil { count(row, takenBack: false) }
      end(&row)
      save(row)
    case .kept(let id, let error):
      guard var row = fleet.instances[id] else { break }
      row.attempts += 1
      later(&row, error)
      batch.event(worker: row.worker, "not returned", reason: error.message)
    case .seen(let region, let instances, let time, let queues):
      strangers = seen(region, instances, at: time, queues: queues, known)
    case .flavors(let region, let flavors): refresh(region, flavors)
    case .troubled(let region, let error):
      var row = fleet.regions[region] ?? RegionRow(region)
      // Nothing is asked for there meanwhile anyway: that it is still silent says nothing new.
      guard (row.blockedUntil ?? 0) <= batch.now else { break }
      trouble(&row, error)
      fleet.silent.insert(region)
    case .progress(let id, let phase, let words):
      guard let row = fleet.instances[id] else { break }
      batch.event(worker: row.worker, phase, reason: words)
    case .swept(let region, let key):
      batch.event("instance", 0, "swept", reason: "\(key) in \(region): no order knows it")
    }
    answer(reply, strangers)
  }

  private func deployed(_ id: InstanceID, _ instance: Instance, isFree: Bool) {
    // Its worker may have come before its provider was heard.
    guard var row = fleet.instances[id], row.state == .ordered || row.reference.isEmpty else { return }
    row.reference = instance.id
    row.address = instance.address
    row.endsAt = instance.endsAt ?? row.endsAt
    if row.state == .ordered { row.deployedAt = batch.now }
    row.state = .deployed
    row.problem = nil
    row.nextAttemptAt = nil
    row.attempts = 0
    save(row)
    if !isFree, fleet.uses[id] == nil { charge(id, to: workers[row.worker]?.step) }
    if let flavor = fleet.flavor(of: row) {
      fleet.trusted.insert(flavor.region)
      relieve(flavor.region, byHost: true)
    }
    batch.event(worker: row.worker, "deployed", reason: instance.id)
  }

  /// The order did not become a host. Each class of failure has its own answer; what was learned spares the orders that
  /// nobody was asked for yet the same.
  private func refused(_ id: InstanceID, _ error: ProviderError) {
    guard let row = fleet.instances[id], row.state == .ordered, var flavor = fleet.flavor(of: row) else {
      return
    }
    let now = batch.now
    fleet.trusted.remove(flavor.region)
    fleet.silent.remove(flavor.region)
    var region = fleet.regions[flavor.region] ?? RegionRow(flavor.region)
    func waiting(_ matches: (FlavorRow) -> Bool) -> [InstanceRow] {
      fleet.instances.values.filter {
        $0.id != id && $0.isUnasked && fleet.flavor(of: $0).map(matches) == true
      }.sorted { $0.id < $1.id }
    }
    var others: [InstanceRow] = []
    switch error.kind {
    case .capacity, .unsupported:
      block(
        &flavor, for: error.kind == .capacity ? 300 : 86_400, "\(error.kind.rawValue), \(error.message)")
      others = waiting { $0.id == flavor.id }
    case .quota:
      // Those that are being made may count already, and those that have just ended may still.
      let standing = fleet.instances.values.filter {
        $0.id != id && ($0.state == .deployed || $0.attempts > 0)
          && fleet.flavor(of: $0)?.region == flavor.region
      }.count
      let ended = (fleet.ends[flavor.region] ?? []).count { $0 > now - 600_000_000 }
      region.learnedInstances = error.limit ?? standing + ended
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
      return unclear(id, error)
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

  /// It may exist for all one knows. It is looked for, and asked for again, until its time is over; from then on it is
  /// looked for to be returned.
  private func unclear(_ id: InstanceID, _ error: ProviderError) {
    guard var row = fleet.instances[id], row.state == .ordered else { return }
    if !row.isUnwanted, batch.now - row.createdAt >= configuration.fleet.deployTimeout.microseconds {
      returnHost(of: row.worker, because: error.message, by: nil)
      guard let now = fleet.instances[id] else { return }
      row = now
    }
    later(&row, error)
  }

  /// It is tried again later. One that nobody wants is given up after a week in which nobody could tell of it.
  private func later(_ row: inout InstanceRow, _ error: ProviderError) {
    if row.problem?.message != error.message, !row.isUnwanted {
      batch.event(worker: row.worker, "not deployed yet", reason: "\(error.kind.rawValue): \(error.message)")
    }
    row.problem = error
    row.nextAttemptAt = batch.now + Self.pause(row.attempts, row.id)
    if row.isUnwanted, batch.now - row.createdAt > Self.memory, row.attempts > Self.manyAttempts {
      end(&row)
      batch.event(
        worker: row.worker, "given up",
        reason:
          "its provider could not return it for days; see there whether \(row.key) exists: \(error.message)")
    }
    save(row)
  }

  private static let memory: Int64 = 7 * 86_400_000_000
  /// At four an hour, these take a week.
  private static let manyAttempts = 600

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
  /// holds for its time. What was learned from its silence is over with it.
  private func relieve(_ region: Region, byHost: Bool = false) {
    let isOver = fleet.silent.remove(region) != nil || byHost
    guard var row = fleet.regions[region], row.failures > 0 || row.problem != nil else { return }
    let blocked = row.blockedUntil ?? 0
    guard isOver || blocked <= batch.now && row.problem != nil else { return }
    if isOver || blocked + 3_600_000_000 <= batch.now { row.failures = 0 }
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

  /// Regions that hosts are in, or may be.
  func regionsWithHosts() -> Set<Region> {
    Set(fleet.instances.values.compactMap { fleet.flavor(of: $0)?.region })
  }

  /// Compares a provider's list with the rows, both ways. Answers the hosts with our tag that no row stands for.
  private func seen(
    _ region: Region, _ found: [Instance], at time: Int64, queues: Bool, _ known: Known
  ) -> [Instance] {
    relieve(region)
    let byKey = Dictionary(grouping: found, by: \.key)
    // A key that any row has is no stranger's, whatever region lists it: two may tell of the same hosts.
    let keys = Set(fleet.instances.values.map(\.key))
    for var row in fleet.instances.values.sorted(by: { $0.id < $1.id }) {
      guard fleet.flavor(of: row)?.region == region else { continue }
      let hosts = byKey[row.key] ?? []
      if row.state == .ordered {
        if row.attempts > 0, let host = hosts.first {
          deployed(row.id, host, isFree: queues && host.state == .pending)
        }
        continue
      }
      // Should there be two of one key, both end when one is returned: that goes by the key.
      guard let host = hosts.first(where: { $0.id == row.reference }) ?? hosts.first else {
        // A list that was asked for before it was made cannot know it, and some lists are late.
        guard let deployedAt = row.deployedAt, deployedAt < time else { continue }
        missed(row, known)
        continue
      }
      fleet.missing[row.id] = nil
      if queues, host.state == .pending, wasPutBack(row, at: time) { putBack(&row, known) }
      update(&row, with: host, queues: queues)
    }
    return found.filter { !keys.contains($0.key) }
  }

  /// Its provider does not list it.
  private func missed(_ row: InstanceRow, _ known: Known) {
    if row.isUnwanted {
      // It is being returned, which also tidies up; where that fails, there is nothing left to return.
      if row.problem != nil { gone(row, known) }
      return
    }
    // A list may be of another account, or not be whole: who answers is there. Once it does not, two lists decide.
    guard !registry.isHeard(row.worker) else {
      if fleet.missing.updateValue(0, forKey: row.id) == nil {
        batch.event(
          worker: row.worker, "not listed", reason: "its provider does not list its host, but it answers")
      }
      return
    }
    let times = fleet.missing[row.id, default: 0] + 1
    fleet.missing[row.id] = times
    if times >= 2 { gone(row, known) }
  }

  /// Whether a host that waits in its queue had come already. Of a worker that was heard of since the list
  /// was asked for, or is there, the list is too old to tell.
  func wasPutBack(_ row: InstanceRow, at time: Int64) -> Bool {
    guard row.joinedAt != nil, !row.isUnwanted, let worker = workers[row.worker] else { return false }
    return ready[worker.id] == nil && worker.lastBeatAt < time
  }

  /// The cluster has ended the job and will start it anew: what it ran is lost, and it is once more a host on
  /// its way, so that nobody buys another in its place.
  private func putBack(_ row: inout InstanceRow, _ known: Known) {
    guard var worker = workers[row.worker] else { return }
    for task in cluster.tasks(on: worker.id) {
      lose(task, because: "the job of worker \(worker.name) was put back into its queue", known)
    }
    guard cluster.tasks(on: worker.id).isEmpty else { return }
    closeUse(of: row)
    row.joinedAt = nil
    row.deployedAt = batch.now
    row.endsAt = nil
    save(row)
    registry.endLease(worker.id)
    fleet.leaving.remove(worker.id)
    fleet.idleSince[worker.id] = nil
    worker.status = .deploying
    worker.endsAt = nil
    set(worker)
    batch.event(worker: worker.id, "put back", reason: "its job waits in its queue again")
  }

  private func update(_ row: inout InstanceRow, with host: Instance, queues: Bool) {
    let before = row
    let worker = workers[row.worker]
    if queues, host.state == .pending, row.joinedAt == nil {
      // It has not begun, or will begin anew: its deadline and its costs have not begun either.
      closeUse(of: row)
      if batch.now - (row.deployedAt ?? 0) > 60_000_000 { row.deployedAt = batch.now }
    } else if fleet.uses[row.id] == nil, !row.isUnwanted {
      charge(row.id, to: worker?.step)
      row.deployedAt = batch.now
    }
    row.reference = host.id
    if !host.address.isEmpty { row.address = host.address }
    row.endsAt = host.endsAt ?? row.endsAt
    row.isSuspended = host.state == .suspended
    if row.reference != before.reference || row.address != before.address || row.endsAt != before.endsAt
      || row.isSuspended != before.isSuspended
      || row.deployedAt != before.deployedAt
    {
      save(row)
    }
    if row.endsAt != before.endsAt, let worker { set(worker) }
    guard row.isSuspended != before.isSuspended, let worker = workers[row.worker] else { return }
    batch.event(worker: worker.id, row.isSuspended ? "suspended by its provider" : "resumed by its provider")
    // One that was put back into its queue meanwhile has no lease.
    if !row.isSuspended, worker.status != .deploying { registry.grantLease(worker.id) }
    set(worker)
  }

  /// Its provider does not know it any more: what it had is lost at once. What it may have left is tidied up.
  private func gone(_ row: InstanceRow, _ known: Known) {
    var row = row
    if var worker = workers[row.worker] {
      for task in cluster.tasks(on: worker.id) {
        lose(task, because: "the host of worker \(worker.name) is gone", known)
      }
      guard cluster.tasks(on: worker.id).isEmpty else { return }
      logger.warning("a host is gone", metadata: ["order": "\(row.key)", "host": "\(row.reference)"])
      forget(&worker, "gone", because: "its provider does not know its host any more", by: nil)
    }
    if row.isUnwanted {
      end(&row)
    } else {
      let isEarly = row.endsAt.map { $0 > batch.now + 60_000_000 } ?? true
      count(row, takenBack: fleet.flavor(of: row)?.flavor.isSpot == true && isEarly)
      closeUse(of: row)
      row.isUnwanted = true
      row.nextAttemptAt = nil
      row.attempts = 0
      if row.joinedAt == nil, !isQueued(row) { disappointed(by: row, "was gone before it reported") }
    }
    save(row)
  }

  // MARK: Flavors

  private func refresh(_ region: Region, _ flavors: [Flavor]) {
    relieve(region)
    var row = fleet.regions[region] ?? RegionRow(region)
    row.refreshedAt = batch.now
    save(row)
    var missing = Set(fleet.flavors.values.filter { $0.region == region && !$0.isGone }.map(\.key))
    for flavor in flavors where flavor.isSane {
      let key = FlavorRow.Key(flavor)
      missing.remove(key)
      if var known = fleet.flavors[key] {
        guard known.flavor != flavor || known.isGone else { continue }
        // What the old sizes turned out to be says nothing of the new ones.
        if Needs(of: known.flavor) != Needs(of: flavor) { (known.seen, known.seenAt) = (nil, nil) }
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

  func isQueued(_ instance: InstanceRow) -> Bool {
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
    guard var instance = fleet.instance(of: row), instance.joinedAt == nil else { return }
    fleet.idleSince[row.id] = batch.now
    instance.joinedAt = batch.now
    if instance.state == .ordered {
      // Its provider was not heard to say so, but here it is.
      instance.state = .deployed
      instance.deployedAt = batch.now
      instance.problem = nil
      instance.nextAttemptAt = nil
      instance.attempts = 0
    }
    save(instance)
    if fleet.uses[instance.id] == nil { charge(instance.id, to: row.step) }
    guard var flavor = fleet.flavor(of: instance) else { return }
    fleet.proven.insert(flavor.region)
    flavor.blockCount = 0
    if flavor.blockReason?.hasPrefix(Self.disappointment) == true {
      (flavor.blockedUntil, flavor.blockReason) = (nil, nil)
    }
    flavor.seen = row.capacity(at: batch.now)
    flavor.seenAt = batch.now
    save(flavor)
  }
}
