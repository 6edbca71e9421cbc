import GRDB
import Scheduling
import ScitqProtocol

/// What users ask of rented hosts.
extension UserCalls {
  /// Nil when the call is none of these.
  func answerFleet(_ method: ScitqProtocol.Method, _ payload: [UInt8]) async throws(CallError) -> [UInt8]? {
    switch method {
    case .listFlavors:
      return try await ScitqServer.answer(Call.listFlavors, payload) { (request) async throws(CallError) in
        try await listFlavors(request)
      }
    case .enableFlavor:
      try needAdmin("enable or disable flavors")
      return try await ScitqServer.answer(Call.enableFlavor, payload) { (request) async throws(CallError) in
        guard case .enabled(let answer) = try await change(.enable(request)) else { return .init() }
        return answer
      }
    case .deployWorkers:
      try needAdmin("deploy workers")
      return try await ScitqServer.answer(Call.deployWorkers, payload) { (request) async throws(CallError) in
        guard case .deployed(let answer) = try await change(.deploy(request)) else { return .init() }
        return answer
      }
    case .listRecruiters:
      return try await ScitqServer.answer(Call.listRecruiters, payload) { (request) async throws(CallError) in
        var list = WireRecruiterList()
        list.recruiters = try await context.engine.recruiters(of: request.stepID)
        return list
      }
    case .createRecruiter:
      return try await ScitqServer.answer(Call.createRecruiter, payload) {
        (request) async throws(CallError) in
        guard case .recruiter(let answer) = try await change(.createRecruiter(request)) else {
          return .init()
        }
        return answer
      }
    case .updateRecruiter:
      return try await ScitqServer.answer(Call.updateRecruiter, payload) {
        (request) async throws(CallError) in
        guard case .recruiter(let answer) = try await change(.updateRecruiter(request)) else {
          return .init()
        }
        return answer
      }
    case .deleteRecruiter:
      return try await ScitqServer.answer(Call.deleteRecruiter, payload) {
        (request) async throws(CallError) in
        _ = try await change(.deleteRecruiter(request))
        return WireEmpty()
      }
    case .explainRecruiter:
      return try await ScitqServer.answer(Call.explainRecruiter, payload) {
        (request) async throws(CallError) in
        var explanation = WireExplanation()
        explanation.sentence = try await context.engine.explain(recruiter: request.stepID, request.rank)
        return explanation
      }
    case .readCost:
      return try await ScitqServer.answer(Call.readCost, payload) { (request) async throws(CallError) in
        try await read { (db) throws(CallError) in
          do {
            return try db.costs(of: request.workflowID, at: microsecondsNow())
          } catch let error as CallError { throw error } catch { throw Engine.unavailable(error) }
        }
      }
    default: return nil
    }
  }

  private func change(_ command: FleetCommand) async throws(CallError) -> FleetCommand.Outcome {
    try await context.engine.ask { .changeFleet(command, by: user, $0) }
  }

  private func listFlavors(_ request: WireListFlavors) async throws(CallError) -> WireFlavorList {
    let filter: FlavorFilter
    do { filter = try FlavorFilter(request.filter) } catch {
      throw CallError(.invalid, error.description, field: "filter")
    }
    let defaults = Dictionary(
      context.configuration.providers.map { ($0.name, $0.regions.first) }, uniquingKeysWith: { a, _ in a })
    let (flavors, regions): ([FlavorRow], [Region: RegionRow]) = try await read { (db) throws(CallError) in
      do {
        let regions = try Row.fetchAll(db, sql: "SELECT * FROM region").map(RegionRow.init)
        return (
          try Row.fetchAll(db, sql: "SELECT * FROM flavor WHERE gone = 0").map(FlavorRow.init),
          Dictionary(uniqueKeysWithValues: regions.map { ($0.region, $0) })
        )
      } catch { throw Engine.unavailable(error) }
    }
    let now = microsecondsNow()
    let passing = flavors.filter {
      defaults[$0.flavor.provider] != nil
        && filter.matches($0.flavor, isDefaultRegion: defaults[$0.flavor.provider] == $0.flavor.region)
    }
    var list = WireFlavorList()
    list.notes = Engine.Trouble.sentences(
      await context.engine.troubles(now: now).filter {
        !$0.hasFlavors && filter.admits($0.region, isDefault: $0.isDefault)
      })
    list.flavors = passing.sorted {
      ($0.flavor.price, $0.flavor.provider, $0.flavor.region, $0.id)
        < ($1.flavor.price, $1.flavor.provider, $1.flavor.region, $1.id)
    }
    .prefix(request.limit == 0 ? 10 : Int(request.limit))
    .map { row in
      var wire = WireFlavor()
      let flavor = row.flavor
      wire.provider = flavor.provider
      wire.region = flavor.region
      wire.name = flavor.name
      wire.cpu = flavor.cpu
      wire.memoryGb = flavor.memory
      wire.diskGb = flavor.disk
      wire.bandwidth = flavor.bandwidth
      wire.gpu = flavor.gpu
      wire.gpuCount = UInt32(clamping: flavor.gpuCount)
      wire.gpuMemoryGb = flavor.gpuMemory
      wire.quickDisks = flavor.hasQuickDisks
      wire.spot = flavor.isSpot
      wire.eviction = flavor.eviction
      wire.price = flavor.price
      wire.disabled = row.isDisabled
      wire.obstacle = row.obstacle(now) ?? regions[row.region]?.obstacle(now) ?? ""
      return wire
    }
    return list
  }
}

extension Database {
  /// What rented hosts have cost, by workflow, step, worker and user; of one workflow: by its steps and workers.
  fileprivate func costs(of workflow: Int64, at now: Int64) throws -> WireCostList {
    if workflow != 0,
      try Bool.fetchOne(
        self, sql: "SELECT EXISTS (SELECT * FROM workflow WHERE id = ?)", arguments: [workflow])
        != true
    {
      throw CallError(
        .notFound, "workflow \(workflow) does not exist; `scitq workflow list` shows those that do",
        field: "id")
    }
    let from = """
      FROM instance_use AS u JOIN instance ON instance.id = u.instance_id
      LEFT JOIN step ON step.id = u.step_id LEFT JOIN workflow ON workflow.id = u.workflow_id
      """
    let condition = workflow == 0 ? "" : "WHERE workflow.id = :workflow"
    let sums = """
      sum(coalesce(u.ended_at, :now) - u.started_at) / 3.6e9 AS hours,
      sum((coalesce(u.ended_at, :now) - u.started_at) * instance.price) / 3.6e9 AS cost
      """
    var arguments: StatementArguments = ["now": now]
    if workflow != 0 { _ = arguments.append(contentsOf: ["workflow": workflow]) }
    func lines(_ kind: String, _ columns: String, _ join: String, _ group: String) throws -> [WireCostLine] {
      try Row.fetchAll(
        self,
        sql: "SELECT \(columns), \(sums) \(from) \(join) \(condition) GROUP BY \(group) ORDER BY \(group)",
        arguments: arguments
      ).map { row in
        var line = WireCostLine()
        line.kind = kind
        line.id = row["id"] ?? 0
        line.name = row["name"] ?? ""
        line.hours = row["hours"]
        line.cost = row["cost"]
        line.maximum = row["maximum"] ?? 0
        return line
      }
    }
    var list = WireCostList()
    list.lines += try lines(
      "workflow", "workflow.id, coalesce(workflow.name, 'none') AS name, workflow.maximum_cost AS maximum",
      "",
      "workflow.id")
    list.total = list.lines.reduce(0) { $0 + $1.cost }
    if workflow == 0 {
      list.lines += try lines(
        "user", "user.id, coalesce(user.username, 'nobody') AS name, NULL AS maximum",
        "LEFT JOIN user ON user.id = coalesce(workflow.owner_id, instance.user_id)", "user.id")
    } else {
      list.lines += try lines("step", "step.id, step.name AS name, NULL AS maximum", "", "step.id")
      list.lines += try lines(
        "worker", "worker.id, worker.name AS name, NULL AS maximum",
        "JOIN worker ON worker.id = instance.worker_id",
        "worker.id")
    }
    return list
  }
}
