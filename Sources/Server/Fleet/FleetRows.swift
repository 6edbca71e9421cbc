import GRDB
import Scheduling
import ScitqProtocol

/// One row of `instance`: what was asked of a provider, and what became of it. The engine holds those that have not
/// ended.
struct InstanceRow: Sendable {
  enum State: String, Sendable {
    /// Its provider may know of it, or not yet.
    case ordered
    /// Its provider knows it.
    case deployed
    case ended
  }

  var id: InstanceID
  var key: String
  var flavorID: Int64
  var worker: WorkerID
  var user: UserID
  var state: State
  var reference = ""
  var address = ""
  var price: Double
  /// It is to be returned, or not to be made.
  var isUnwanted = false
  var isSuspended = false
  var attempts = 0
  var nextAttemptAt: Int64?
  var problem: ProviderError?
  var createdAt: Int64
  var deployedAt: Int64?
  var joinedAt: Int64?
  var hasWorked = false
  /// Since when its worker has had nothing to do, where that is for long enough to be worth keeping.
  var idleSince: Int64?
  var endsAt: Int64?
  var endedAt: Int64?

  /// Nobody was asked for it yet: to give it up costs nothing.
  var isUnasked: Bool { state == .ordered && attempts == 0 }

  init(
    id: InstanceID, key: String, flavorID: Int64, worker: WorkerID, user: UserID, price: Double, now: Int64
  ) {
    self.id = id
    self.key = key
    self.flavorID = flavorID
    self.worker = worker
    self.user = user
    self.price = price
    state = .ordered
    createdAt = now
  }

  init(_ row: Row) {
    id = InstanceID(row["id"])
    key = row["key"]
    flavorID = row["flavor_id"]
    worker = WorkerID(row["worker_id"])
    user = UserID(row["user_id"])
    state = State(rawValue: row["state"]) ?? .ordered
    reference = row["reference"]
    address = row["address"]
    price = row["price"]
    isUnwanted = row["unwanted"]
    isSuspended = row["suspended"]
    attempts = row["attempts"]
    nextAttemptAt = row["next_attempt_at"]
    if let kind = (row["problem_class"] as String?).flatMap(ProviderError.Class.init) {
      problem = ProviderError(kind, row["problem"] ?? "")
    }
    createdAt = row["created_at"]
    deployedAt = row["deployed_at"]
    joinedAt = row["joined_at"]
    hasWorked = row["worked"]
    idleSince = row["idle_since"]
    endsAt = row["ends_at"]
    endedAt = row["ended_at"]
  }

  func save(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT INTO instance (id, key, flavor_id, worker_id, user_id, state, reference, address, price, unwanted,
          suspended, attempts, next_attempt_at, problem_class, problem, created_at, deployed_at, joined_at,
          worked, idle_since, ends_at, ended_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET state = excluded.state, reference = excluded.reference,
          address = excluded.address, unwanted = excluded.unwanted,
          suspended = excluded.suspended, attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at,
          problem_class = excluded.problem_class, problem = excluded.problem, deployed_at = excluded.deployed_at,
          joined_at = excluded.joined_at, worked = excluded.worked, idle_since = excluded.idle_since,
          ends_at = excluded.ends_at,
          ended_at = excluded.ended_at
        """,
      arguments: [
        id.rawValue, key, flavorID, worker.rawValue, user.rawValue, state.rawValue, reference, address, price,
        isUnwanted, isSuspended, attempts, nextAttemptAt, problem?.kind.rawValue, problem?.message,
        createdAt, deployedAt, joinedAt, hasWorked, idleSince, endsAt, endedAt,
      ])
  }
}

/// One row of `flavor`. The engine holds all of them.
struct FlavorRow: Sendable {
  struct Key: Hashable, Sendable {
    var provider: String
    var region: String
    var name: String
    var isSpot: Bool

    init(_ flavor: Flavor) {
      provider = flavor.provider
      region = flavor.region
      name = flavor.name
      isSpot = flavor.isSpot
    }
  }

  var id: Int64
  var flavor: Flavor
  var isGone = false
  var isDisabled = false
  var blockedUntil: Int64?
  var blockReason: String?
  var blockCount = 0
  /// What the last host had that joined, and when that was.
  var seen: Needs?
  var seenAt: Int64?
  var ended = 0
  var takenBack = 0

  var key: Key { Key(flavor) }
  var region: Region { Region(provider: flavor.provider, name: flavor.region) }

  init(id: Int64, _ flavor: Flavor) {
    self.id = id
    self.flavor = flavor
  }

  init(_ row: Row) {
    id = row["id"]
    flavor = Flavor(
      provider: row["provider"], region: row["region"], name: row["name"], cpu: row["cpu"],
      memory: row["memory"], disk: row["disk"], bandwidth: row["bandwidth"], gpu: row["gpu"],
      gpuCount: row["gpu_count"], gpuMemory: row["gpu_memory"], hasQuickDisks: row["quick_disks"],
      isSpot: row["spot"], eviction: row["eviction"], price: row["price"])
    isGone = row["gone"]
    isDisabled = row["disabled"]
    blockedUntil = row["blocked_until"]
    blockReason = row["block_reason"]
    blockCount = row["block_count"]
    seenAt = row["seen_at"]
    if seenAt != nil, let memory = row["seen_memory_mib"] as Int32?,
      let disk = row["seen_disk_mib"] as Int32?
    {
      var found = Needs(of: flavor)
      (found.memoryMiB, found.diskMiB) = (memory, disk)
      found.cpuMilli = row["seen_cpu_milli"] ?? found.cpuMilli
      found.gpu = row["seen_gpu"] ?? found.gpu
      found.seconds = row["seen_seconds"] ?? found.seconds
      if let names = row["seen_engines"] as String? {
        found.engines = EngineSet(names.split(separator: " ").map(String.init))
      }
      seen = found
    }
    ended = row["ended"]
    takenBack = row["taken_back"]
  }

  func save(_ db: Database) throws {
    let statement = try db.cachedStatement(
      sql: """
        INSERT INTO flavor (id, provider, region, name, spot, cpu, memory, disk, bandwidth, gpu, gpu_count, gpu_memory,
          quick_disks, eviction, price, gone, disabled, blocked_until, block_reason, block_count, seen_memory_mib,
          seen_disk_mib, seen_cpu_milli, seen_gpu, seen_engines, seen_seconds, seen_at, ended, taken_back)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET cpu = excluded.cpu, memory = excluded.memory, disk = excluded.disk,
          bandwidth = excluded.bandwidth, gpu = excluded.gpu, gpu_count = excluded.gpu_count,
          gpu_memory = excluded.gpu_memory, quick_disks = excluded.quick_disks, eviction = excluded.eviction,
          price = excluded.price, gone = excluded.gone, disabled = excluded.disabled,
          blocked_until = excluded.blocked_until, block_reason = excluded.block_reason,
          block_count = excluded.block_count, seen_memory_mib = excluded.seen_memory_mib,
          seen_disk_mib = excluded.seen_disk_mib, seen_cpu_milli = excluded.seen_cpu_milli,
          seen_gpu = excluded.seen_gpu, seen_engines = excluded.seen_engines,
          seen_seconds = excluded.seen_seconds, seen_at = excluded.seen_at, ended = excluded.ended, taken_back = excluded.taken_back
        """)
    let f = flavor
    try statement.execute(arguments: [
      id, f.provider, f.region, f.name, f.isSpot, f.cpu, f.memory, f.disk, f.bandwidth, f.gpu, f.gpuCount,
      f.gpuMemory, f.hasQuickDisks, f.eviction, f.price, isGone, isDisabled, blockedUntil, blockReason,
      blockCount, seen?.memoryMiB, seen?.diskMiB, seen?.cpuMilli, seen?.gpu, seen?.engines.names,
      seen?.seconds,
      seenAt, ended, takenBack,
    ])
  }

  /// What it looks like to whoever buys.
  func offer(isDefaultRegion: Bool, now: Int64) -> Offer {
    var capacity = Needs(of: flavor)
    // What a host should have had and had not may have been its own bad luck: after a while it is tried again.
    if let seen, let seenAt, now - seenAt < Self.memory { capacity = seen }
    // Fewer than ten tell nothing.
    let seen = ended >= 10 ? Double(takenBack) * 100 / Double(ended) : nil
    return Offer(
      flavor: flavor, isDefaultRegion: isDefaultRegion, capacity: capacity, seenEviction: seen,
      obstacle: obstacle(now))
  }

  /// How long what its last host had is believed of the next one.
  private static let memory: Int64 = 3_600_000_000

  /// Why it is not bought; nil: nothing stands in the way.
  func obstacle(_ now: Int64) -> String? {
    if isGone { return "its provider does not offer it any more" }
    if isDisabled { return "it was disabled" }
    if let blockedUntil, blockedUntil > now {
      return "\(blockReason ?? "blocked"); tried again in \(Self.time(blockedUntil - now))"
    }
    return nil
  }

  static func time(_ microseconds: Int64) -> String {
    let seconds = (microseconds + 999_999) / 1_000_000
    return seconds < 120 ? "\(seconds) s" : seconds < 7200 ? "\(seconds / 60) min" : "\(seconds / 3600) h"
  }
}

/// One row of `region`: what was learned of a region of a provider.
struct RegionRow: Sendable {
  var region: Region
  var refreshedAt: Int64?
  var problem: ProviderError?
  var blockedUntil: Int64?
  var failures = 0
  var learnedInstances: Int?
  var learnedUntil: Int64?

  init(_ region: Region) { self.region = region }

  init(_ row: Row) {
    region = Region(provider: row["provider"], name: row["name"])
    refreshedAt = row["refreshed_at"]
    if let kind = (row["problem_class"] as String?).flatMap(ProviderError.Class.init) {
      problem = ProviderError(kind, row["problem"] ?? "")
    }
    blockedUntil = row["blocked_until"]
    failures = row["failures"]
    learnedInstances = row["learned_instances"]
    learnedUntil = row["learned_until"]
  }

  func save(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT OR REPLACE INTO region (provider, name, refreshed_at, problem_class, problem, blocked_until, failures,
          learned_instances, learned_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
      arguments: [
        region.provider, region.name, refreshedAt, problem?.kind.rawValue, problem?.message, blockedUntil,
        failures, learnedInstances, learnedUntil,
      ])
  }

  func obstacle(_ now: Int64) -> String? {
    guard let blockedUntil, blockedUntil > now else { return nil }
    let why = problem.map { "\($0.kind.rawValue), \($0.message)" } ?? "blocked"
    return "\(why); tried again in \(FlavorRow.time(blockedUntil - now))"
  }
}

extension Recruiter {
  /// From a row of `recruiter`; nil: its filter cannot be read any more.
  init?(_ row: Row) {
    guard let filter = try? FlavorFilter(row["filter"]) else { return nil }
    let concurrency: Concurrency =
      if let fixed = row["concurrency"] as Int? {
        .fixed(fixed)
      } else {
        .adaptive(
          cpu: row["cpu_per_task"], memory: row["memory_per_task"], disk: row["disk_per_task"],
          least: row["concurrency_min"], most: row["concurrency_max"])
      }
    let percent: Int? = row["prefetch_percent"]
    self.init(
      key: Key(step: StepID(row["step_id"]), rank: row["rank"]), filter: filter, concurrency: concurrency,
      prefetch: percent.map(Prefetch.percent) ?? .tasks(row["prefetch"]),
      maximumWorkers: row["maximum_workers"],
      rounds: row["rounds"], timeout: row["timeout"], needSince: row["need_since"], boughtAt: row["bought_at"]
    )
  }

  func save(_ db: Database) throws {
    var fixed: Int?
    var adaptive: (cpu: Double?, memory: Double?, disk: Double?, least: Int?, most: Int?)
    switch concurrency {
    case .fixed(let count): fixed = count
    case .adaptive(let cpu, let memory, let disk, let least, let most):
      adaptive = (cpu, memory, disk, least, most)
    }
    var tasks = 0
    var percent: Int?
    switch prefetch {
    case .tasks(let count): tasks = count
    case .percent(let share): percent = share
    }
    try db.execute(
      sql: """
        INSERT OR REPLACE INTO recruiter (step_id, rank, filter, concurrency, cpu_per_task, memory_per_task,
          disk_per_task, concurrency_min, concurrency_max, prefetch, prefetch_percent, maximum_workers, rounds,
          timeout, need_since, bought_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
      arguments: [
        key.step.rawValue, key.rank, filter.description, fixed, adaptive.cpu, adaptive.memory, adaptive.disk,
        adaptive.least, adaptive.most, tasks, percent, maximumWorkers, rounds, timeout, needSince, boughtAt,
      ])
  }
}

extension FleetState {
  /// What the database says of it.
  init(_ db: Database) throws {
    func lastEver(_ table: String) throws -> Int64 {
      try Int64.fetchOne(db, sql: "SELECT seq FROM sqlite_sequence WHERE name = ?", arguments: [table]) ?? 0
    }
    server = try String.fetchOne(db, sql: "SELECT id FROM server") ?? ""
    nextInstance = try lastEver("instance") + 1
    nextFlavor = try lastEver("flavor") + 1
    for row in try Row.fetchAll(db, sql: "SELECT * FROM recruiter") {
      if let recruiter = Recruiter(row) { recruiters[recruiter.key] = recruiter }
    }
    for row in try Row.fetchAll(db, sql: "SELECT * FROM flavor").map(FlavorRow.init) {
      flavors[row.key] = row
      flavorKeys[row.id] = row.key
    }
    for row in try Row.fetchAll(db, sql: "SELECT * FROM region").map(RegionRow.init) {
      regions[row.region] = row
    }
    for row in try Row.fetchAll(db, sql: "SELECT * FROM instance WHERE state <> 'ended'").map(
      InstanceRow.init)
    {
      instances[row.id] = row
    }
    for row in try Row.fetchAll(
      db, sql: "SELECT instance_id, workflow_id, started_at FROM instance_use WHERE ended_at IS NULL")
    {
      let workflow: Int64 = row["workflow_id"]
      uses[InstanceID(row["instance_id"])] = Use(
        workflow: workflow == 0 ? nil : WorkflowID(workflow), since: row["started_at"])
    }
    for row in try Row.fetchAll(
      db,
      sql: """
        SELECT workflow_id, sum((instance_use.ended_at - instance_use.started_at) * instance.price / 3.6e9) AS cost
        FROM instance_use JOIN instance ON instance.id = instance_use.instance_id
        WHERE instance_use.ended_at IS NOT NULL AND workflow_id <> 0 GROUP BY workflow_id
        """)
    {
      paid[WorkflowID(row["workflow_id"])] = row["cost"]
    }
    for row in try Row.fetchAll(
      db,
      sql: """
        SELECT flavor.provider, flavor.region, joined_at, max(instance.id)
        FROM instance JOIN flavor ON flavor.id = instance.flavor_id
        WHERE joined_at IS NOT NULL OR state = 'ended' AND deployed_at IS NOT NULL
        GROUP BY flavor.provider, flavor.region HAVING joined_at > ?
        """, arguments: [microsecondsNow() - 7 * 86_400_000_000])
    {
      proven.insert(Region(provider: row["provider"], name: row["region"]))
    }
  }
}

extension Store {
  /// This server's own word in the tags of its hosts.
  func serverID() async throws -> String {
    try await read { db in try String.fetchOne(db, sql: "SELECT id FROM server") } ?? ""
  }
}
