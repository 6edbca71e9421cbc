import GRDB
import Scheduling
import ScitqProtocol

/// One row of `worker`. The engine holds those that are not deleted.
struct WorkerRow: Sendable {
  enum Status: String, Sendable { case deploying, running, offline, draining, lost, deleted }
  /// What a person, or its failures, want of it.
  enum Wish: String, Sendable { case drain, pause, quarantine }

  var id: WorkerID
  var name: String
  var storeID: String
  var credentialHash: String?
  var status: Status
  /// Grows with every connection; reports of an older one are superseded.
  var epoch: Int64
  var concurrency: Int32
  var prefetch: Int32
  var permanent: Bool
  var step: StepID?
  var scope = WorkerScope.none
  var wish: Wish?
  var wishReason: String?
  /// Its concurrency and prefetch were set here: what its agent says of them does not count.
  var isConfigured = false
  /// The host that was rented for it.
  var instance: InstanceID?
  /// The recruiter, of its step, whose maximum it counts for.
  var rank: Int?
  /// When its host will be taken away, in microseconds UTC.
  var endsAt: Int64?
  var host: WireHostDescription
  var hostname: String
  var software: String
  var createdAt: Int64
  var lastBeatAt: Int64

  init(id: WorkerID, name: String, identity: WireWorkerIdentity, now: Int64) {
    self.id = id
    self.name = name
    storeID = identity.storeID
    status = .offline
    epoch = 0
    concurrency = Int32(clamping: identity.concurrency)
    prefetch = Int32(clamping: identity.prefetch)
    permanent = identity.permanent
    host = identity.host
    hostname = identity.hostname
    software = ""
    createdAt = now
    lastBeatAt = now
  }

  init(_ row: Row) {
    id = WorkerID(row["id"])
    name = row["name"]
    storeID = row["store_id"]
    credentialHash = row["credential_hash"]
    status = Status(rawValue: row["status"]) ?? .offline
    epoch = row["epoch"]
    concurrency = row["concurrency"]
    prefetch = row["prefetch"]
    permanent = row["permanent"]
    step = (row["step_id"] as Int64?).map(StepID.init(rawValue:))
    scope = WorkerScope(rawValue: row["scope"]) ?? .none
    wish = (row["wish"] as String?).flatMap(Wish.init)
    wishReason = row["wish_reason"]
    isConfigured = row["configured"]
    instance = (row["instance_id"] as Int64?).map(InstanceID.init(rawValue:))
    rank = row["rank"]
    endsAt = row["ends_at"]
    host = WireHostDescription()
    host.cpu = row["cpu"]
    host.memoryBytes = row["memory_bytes"]
    host.diskBytes = row["disk_bytes"]
    host.gpu = row["gpu"]
    host.ipv4 = row["ipv4"]
    host.ipv6 = row["ipv6"]
    host.engines = (row["engines"] as String).split(separator: " ").map(String.init)
    hostname = row["hostname"]
    software = row["software"]
    createdAt = row["created_at"]
    lastBeatAt = row["last_beat_at"]
  }

  func save(_ db: Database) throws {
    try db.execute(
      sql: """
        INSERT INTO worker (id, name, store_id, credential_hash, status, epoch, concurrency, prefetch, permanent,
          step_id, hostname, ipv4, ipv6, cpu, memory_bytes, disk_bytes, gpu, engines, software, created_at,
          last_beat_at, scope, wish, wish_reason, configured, instance_id, rank, ends_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, store_id = excluded.store_id,
          credential_hash = excluded.credential_hash, status = excluded.status, epoch = excluded.epoch, concurrency = excluded.concurrency,
          prefetch = excluded.prefetch, permanent = excluded.permanent, step_id = excluded.step_id,
          hostname = excluded.hostname, ipv4 = excluded.ipv4, ipv6 = excluded.ipv6, cpu = excluded.cpu,
          memory_bytes = excluded.memory_bytes, disk_bytes = excluded.disk_bytes, gpu = excluded.gpu,
          engines = excluded.engines, software = excluded.software, last_beat_at = excluded.last_beat_at,
          scope = excluded.scope, wish = excluded.wish, wish_reason = excluded.wish_reason,
          configured = excluded.configured, rank = excluded.rank, ends_at = excluded.ends_at
        """,
      arguments: [
        id.rawValue, name, storeID, credentialHash, status.rawValue, epoch, concurrency, prefetch,
        permanent, step?.rawValue, hostname, host.ipv4, host.ipv6, host.cpu, host.memoryBytes, host.diskBytes,
        host.gpu, host.engines.joined(separator: " "), software, createdAt, lastBeatAt, scope.rawValue,
        wish?.rawValue, wishReason, isConfigured, instance?.rawValue, rank, endsAt,
      ])
  }

  /// A worker whose host was rented for it, by a recruiter or by hand, before it has come.
  init(id: WorkerID, name: String, instance: InstanceRow, concurrency: Int, prefetch: Int, step: StepID?) {
    var identity = WireWorkerIdentity()
    identity.storeID = "order \(instance.key)"
    identity.concurrency = UInt32(clamping: concurrency)
    identity.prefetch = UInt32(clamping: prefetch)
    self.init(id: id, name: name, identity: identity, now: instance.createdAt)
    status = .deploying
    isConfigured = true
    self.step = step
    self.instance = instance.id
  }

  /// What its host has for tasks; how long it will be there is told roughly.
  func capacity(at now: Int64) -> Needs {
    Needs(
      cpuMilli: Int32(clamping: Int64((host.cpu * 1000).rounded())),
      memoryMiB: Int32(clamping: host.memoryBytes >> 20), diskMiB: Int32(clamping: host.diskBytes >> 20),
      gpu: Int32(clamping: host.gpu),
      seconds: endsAt.map { Self.roughly(($0 - now) / 1_000_000) } ?? .max,
      engines: EngineSet(host.engines))
  }

  /// The longer it is, the coarser: a host is another one to the scheduler whenever this changes.
  private static func roughly(_ seconds: Int64) -> Int32 {
    let step: Int64 = seconds < 600 ? 10 : seconds < 7200 ? 60 : 600
    return Int32(clamping: max(0, seconds / step * step))
  }

  /// As the scheduler sees it. A recruited worker serves its step, whatever its scope: that says where a recruiter may
  /// take it next.
  func entry(isConnected: Bool, workflow: WorkflowID?, at now: Int64) -> WorkerEntry {
    let serves: Serving =
      switch (scope, step, workflow) {
      case (_, let step?, _) where rank != nil: .step(step)
      case (_, nil, _) where rank != nil: .loose
      case (.everything, _, _): .everything
      case (.workflow, _, let workflow?): .workflow(workflow)
      case (_, let step?, _): .step(step)
      case (_, nil, _): .loose
      }
    return WorkerEntry(
      id: id, serves: serves, concurrency: concurrency, prefetch: prefetch,
      capacity: capacity(at: now),
      isConnected: isConnected, isDraining: status == .draining || wish == .drain,
      isPaused: wish == .pause || wish == .quarantine)
  }

  /// What people see: what is wanted of it, where it is there to do it.
  var shownStatus: String {
    guard status == .running, let wish else { return status.rawValue }
    return switch wish {
    case .drain: "draining"
    case .pause: "paused"
    case .quarantine: "quarantined"
    }
  }
}

extension EngineSet {
  /// By the names that a worker gives.
  init(_ names: [String]) {
    self = names.contains("bare") ? .processes : []
    if names.contains(where: { $0 == "docker" || $0 == "podman" }) { insert(.containers) }
  }

  /// Names that make the same set.
  var names: String {
    [contains(.processes) ? "bare" : nil, contains(.containers) ? "docker" : nil].compactMap(\.self)
      .joined(separator: " ")
  }
}

extension Needs {
  /// Rounded up, so that a task never gets less than it stated.
  init(_ needs: WireNeeds, container: String) {
    self.init(
      cpuMilli: Int32(clamping: Int64((needs.cpu * 1000).rounded(.up))),
      memoryMiB: Int32(clamping: (needs.memoryBytes + (1 << 20) - 1) >> 20),
      diskMiB: Int32(clamping: (needs.diskBytes + (1 << 20) - 1) >> 20), gpu: Int32(clamping: needs.gpu),
      engines: container.isEmpty || container == "bare" ? .processes : .containers)
  }
}
