import GRDB
import ScitqProtocol

/// What users ask of workers and of the server itself.
extension UserCalls {
  func listWorkers() async throws(CallError) -> WireWorkerList {
    let rows: [(worker: WorkerRow, step: String?, workflow: Int64?, host: RentedHost?)] = try await read {
      (db) throws(CallError) in
      do {
        return try Row.fetchAll(
          db,
          sql: """
            SELECT worker.*, step.name AS step_name, step.workflow_id, flavor.name AS flavor_name, flavor.provider,
              flavor.region, instance.price, instance.state, instance.address, instance.problem,
              instance.problem_class, instance.suspended, instance.ends_at AS host_ends_at,
              instance.joined_at, CASE WHEN instance.state = 'ordered' AND region.blocked_until > :now
                THEN region.problem_class || ': ' || region.problem END AS region_problem,
              (SELECT sum((coalesce(ended_at, :now) - started_at) * instance.price) / 3.6e9
                FROM instance_use WHERE instance_id = instance.id) AS cost
            FROM worker LEFT JOIN step ON step.id = worker.step_id
            LEFT JOIN instance ON instance.id = worker.instance_id
            LEFT JOIN flavor ON flavor.id = instance.flavor_id
            LEFT JOIN region ON region.provider = flavor.provider AND region.name = flavor.region
            WHERE worker.status <> 'deleted' OR instance.state <> 'ended' ORDER BY worker.id
            """, arguments: ["now": microsecondsNow()]
        ).map { (WorkerRow($0), $0["step_name"], $0["workflow_id"], RentedHost($0)) }
      } catch { throw Engine.unavailable(error) }
    }
    let active = await context.engine.activeCounts()
    var list = WireWorkerList()
    list.workers = rows.map { (row, step, workflow, host) in
      var worker = WireWorker()
      worker.id = row.id.rawValue
      worker.name = row.name
      worker.status = row.shownStatus
      worker.scope = row.scope.rawValue
      worker.reason = row.wishReason ?? ""
      worker.stepName = step ?? ""
      worker.workflowID = workflow ?? 0
      worker.concurrency = UInt32(clamping: row.concurrency)
      worker.prefetch = UInt32(clamping: row.prefetch)
      worker.hostname = row.hostname
      worker.ipv4 = row.host.ipv4
      worker.ipv6 = row.host.ipv6
      worker.stepID = row.step?.rawValue ?? 0
      worker.permanent = row.permanent
      worker.host = row.host
      worker.software = row.software
      worker.lastBeatAt = context.workers.stats(row.id)?.at ?? row.lastBeatAt
      worker.createdAt = row.createdAt
      worker.activeTasks = UInt32(clamping: active[row.id] ?? 0)
      worker.warnings = context.workers.presence(row.id)?.warnings ?? []
      worker.endsAt = row.endsAt ?? 0
      host?.describe(&worker)
      return worker
    }
    return list
  }

  /// These workers, as they are now.
  func workers(_ ids: [Int64]) async throws(CallError) -> WireWorkerList {
    var list = try await listWorkers()
    for id in ids where !list.workers.contains(where: { $0.id == id }) { throw Self.noWorker(WorkerID(id)) }
    list.workers.removeAll { !ids.contains($0.id) }
    return list
  }

  func workerStats(_ ids: [WorkerID]) async throws(CallError) -> WireWorkerStatsList {
    let workers = try await listWorkers().workers
    for id in ids where !workers.contains(where: { $0.id == id.rawValue }) {
      throw Self.noWorker(id)
    }
    var list = WireWorkerStatsList()
    list.workers = workers.filter { ids.isEmpty || ids.contains(WorkerID($0.id)) }.map { worker in
      var stats = WireWorkerStats()
      stats.workerID = worker.id
      stats.name = worker.name
      if let figures = context.workers.stats(WorkerID(worker.id)) { stats.stats = figures }
      return stats
    }
    return list
  }

  func cleanWorkers(_ ids: [WorkerID]) async throws(CallError) -> WireWorkersCleaned {
    let known = try await listWorkers().workers
    var asked: [(worker: WireWorker, wire: Wire)] = []
    for id in ids where !known.contains(where: { $0.id == id.rawValue }) { throw Self.noWorker(id) }
    for worker in known where ids.isEmpty || ids.contains(WorkerID(worker.id)) {
      if let presence = context.workers.presence(WorkerID(worker.id)) {
        asked.append((worker, presence.wire))
      } else if !ids.isEmpty {
        throw CallError(.unavailable, "worker \(worker.name) is not connected, so it cannot be cleaned now")
      }
    }
    var list = WireWorkersCleaned()
    for (worker, wire) in asked {
      guard
        let answer = await context.cleanings.clean(WorkerID(worker.id), over: wire, limit: Self.cleaningLimit)
      else {
        throw CallError(
          .unavailable, "worker \(worker.name) has not said within \(Self.cleaningLimit) that it is clean")
      }
      var cleaned = WireWorkerCleaned()
      cleaned.workerID = worker.id
      cleaned.name = worker.name
      cleaned.freedBytes = answer.freedBytes
      cleaned.removed = answer.removed
      list.workers.append(cleaned)
    }
    return list
  }

  private static let cleaningLimit = Duration.seconds(60)

  private static func noWorker(_ id: WorkerID) -> CallError {
    CallError(
      .notFound, "worker \(id) does not exist; `scitq worker list` shows those that do", field: "worker-id")
  }

  func serverStatus() async throws(CallError) -> WireServerStatus {
    var status = WireServerStatus()
    status.software = Connection.software
    status.startedAt = context.startedAt
    status.tasks = try await read { (db) throws(CallError) in
      do {
        return try Row.fetchAll(
          db,
          sql:
            "SELECT status, sum(count) AS count FROM task_count WHERE hidden = 0 GROUP BY status ORDER BY status"
        ).map { row in
          var count = WireStatusCount()
          count.status = row["status"]
          count.count = row["count"]
          return count
        }
      } catch { throw Engine.unavailable(error) }
    }
    let workers = try await listWorkers().workers
    status.workersKnown = UInt32(clamping: workers.count)
    status.workersConnected = UInt32(clamping: context.workers.connectedCount)
    let room = await context.engine.room()
    status.slots = room.slots
    status.slotsUsed = room.used
    let disk = DiskFigures(of: context.store.path)
    status.databaseBytes = disk.databaseBytes
    status.diskFreeBytes = disk.freeBytes
    if let warning = await context.logs.diskWarning { status.warnings.append(warning) }
    if disk.freeBytes < 1 << 30 {
      status.warnings.append("less than 1 GiB is free where the server keeps its data")
    }
    status.warnings += Engine.Trouble.sentences(await context.engine.troubles()).map { "provider \($0)" }
    for worker in workers {
      for warning in worker.warnings { status.warnings.append("worker \(worker.name): \(warning)") }
    }
    return status
  }
}

/// What is known of the host that was rented for a worker.
private struct RentedHost: Sendable {
  var flavor: String
  var provider: String
  var region: String
  var price: Double
  var cost: Double
  var address: String
  var problem: String?
  var isSuspended: Bool
  var hasJoined: Bool
  var endsAt: Int64

  /// Nil: none was.
  init?(_ row: Row) {
    guard let flavor = row["flavor_name"] as String? else { return nil }
    self.flavor = flavor
    provider = row["provider"]
    region = row["region"]
    price = row["price"]
    cost = row["cost"] ?? 0
    address = row["address"]
    if let kind = row["problem_class"] as String?, let text = row["problem"] as String? {
      problem = "\(kind): \(text)"
    } else {
      problem = row["region_problem"]
    }
    hasJoined = row["joined_at"] != nil
    isSuspended = row["suspended"]
    endsAt = row["host_ends_at"] ?? 0
  }

  func describe(_ worker: inout WireWorker) {
    worker.flavor = flavor
    worker.provider = provider
    worker.region = region
    worker.price = price
    worker.cost = cost
    if worker.ipv4.isEmpty, !address.contains(":") { worker.ipv4 = address }
    // Its row is history; its host is not.
    if worker.status == "deleted" { worker.status = "deleting" }
    if isSuspended { worker.status = "suspended" }
    if let problem { worker.reason = problem }
    // Its row is as old as the order.
    if !hasJoined { worker.lastBeatAt = 0 }
    if worker.endsAt == 0 { worker.endsAt = endsAt }
  }
}
