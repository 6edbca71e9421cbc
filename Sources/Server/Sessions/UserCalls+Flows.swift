import GRDB
import ScitqProtocol

/// What users ask of workflows, steps, jobs and events.
extension UserCalls {
  func answerFlows(_ method: ScitqProtocol.Method, _ payload: [UInt8]) async throws(CallError) -> [UInt8]? {
    switch method {
    case .createWorkflow:
      return try await ScitqServer.answer(Call.createWorkflow, payload) { (request) async throws(CallError) in
        try await workflow(change(.createWorkflow(request)))
      }
    case .listWorkflows:
      return try await ScitqServer.answer(Call.listWorkflows, payload) { (request) async throws(CallError) in
        try await look { try $0.workflows(request) }
      }
    case .getWorkflow:
      return try await ScitqServer.answer(Call.getWorkflow, payload) { (request) async throws(CallError) in
        try await workflow(request.id)
      }
    case .updateWorkflow:
      return try await ScitqServer.answer(Call.updateWorkflow, payload) { (request) async throws(CallError) in
        try await workflow(change(.updateWorkflow(request)))
      }
    case .actOnWorkflow:
      return try await ScitqServer.answer(Call.actOnWorkflow, payload) { (request) async throws(CallError) in
        let before = try await workflow(request.id)
        _ = try await change(.actOnWorkflow(request))
        return request.verb == .delete ? before : try await workflow(request.id)
      }
    case .waitWorkflows:
      try await waitWorkflows(try parse(payload))
      return nil
    case .createStep:
      return try await ScitqServer.answer(Call.createStep, payload) { (request) async throws(CallError) in
        try await step(change(.createStep(request)))
      }
    case .listSteps:
      return try await ScitqServer.answer(Call.listSteps, payload) { (request) async throws(CallError) in
        if request.workflowID != 0 { _ = try await workflow(request.workflowID) }
        return try await look { try $0.steps(request) }
      }
    case .getStep:
      return try await ScitqServer.answer(Call.getStep, payload) { (request) async throws(CallError) in
        try await step(request.id)
      }
    case .updateStep:
      return try await ScitqServer.answer(Call.updateStep, payload) { (request) async throws(CallError) in
        try await step(change(.updateStep(request)))
      }
    case .actOnStep:
      return try await ScitqServer.answer(Call.actOnStep, payload) { (request) async throws(CallError) in
        let before = try await step(request.id)
        _ = try await change(.actOnStep(request))
        return request.verb == .delete ? before : try await step(request.id)
      }
    case .stepStats:
      return try await ScitqServer.answer(Call.stepStats, payload) { (request) async throws(CallError) in
        for id in request.stepIds { _ = try await step(id) }
        let now = microsecondsNow()
        return try await look { try StepStatistics(db: $0.db).list(request, now: now) }
      }
    default: return try await administer(method, payload)
    }
  }

  private func change(_ flow: FlowCommand) async throws(CallError) -> Int64 {
    try await context.engine.ask { .flow(flow, by: user, $0) }
  }

  private func look<T: Sendable>(
    _ body: @escaping @Sendable (FlowQueries) throws -> T
  ) async throws(CallError) -> T {
    do { return try await context.store.read { db in try body(FlowQueries(db: db)) } } catch {
      throw Engine.unavailable(error)
    }
  }

  private func workflow(_ id: Int64) async throws(CallError) -> WireWorkflow {
    guard let found = try await look({ try $0.workflow(id) }) else { throw Engine.noWorkflow(id) }
    return found
  }

  private func step(_ id: Int64) async throws(CallError) -> WireStep {
    guard let found = try await look({ try $0.step(id) }) else { throw Engine.noStep(id) }
    return found
  }

  // MARK: Tasks and jobs by name

  func find(_ reference: WireTaskRef) async throws(CallError) -> WireTaskOrJob {
    let found: WireTaskOrJob? = try await read { (db) throws(CallError) in
      do { return try Self.look(for: reference, db) } catch { throw Engine.unavailable(error) }
    }
    if let found { return found }
    if reference.hasIndex_p {
      throw CallError(
        .notFound, "there is no task \(reference.id):\(reference.index): no such job, or no such index in it",
        field: "id")
    }
    throw Engine.noTask(TaskID(reference.id))
  }

  private static func look(for reference: WireTaskRef, _ db: Database) throws -> WireTaskOrJob? {
    var found = WireTaskOrJob()
    if reference.hasIndex_p {
      let id = try Int64.fetchOne(
        db, sql: "SELECT id FROM task WHERE job_id = ? AND array_index = ? AND hidden = 0",
        arguments: [reference.id, reference.index])
      guard let id, let task = try TaskQueries(db: db).task(TaskID(id)) else { return nil }
      found.task = task
    } else if let task = try TaskQueries(db: db).task(TaskID(reference.id)) {
      found.task = task
    } else if let job = try db.job(TaskID(reference.id)) {
      found.job = view(job)
      found.job.owner =
        try String.fetchOne(
          db, sql: "SELECT username FROM user WHERE id = ?", arguments: [job.owner.rawValue])
        ?? ""
    } else {
      return nil
    }
    return found
  }

  private static func view(_ row: JobRow) -> WireJob {
    var job = WireJob()
    job.id = row.id.rawValue
    job.kind = row.kind.rawValue
    job.name = row.name
    job.size = row.size
    job.status = row.status.rawValue
    job.tasks = row.counts.wire
    job.stepID = row.step?.rawValue ?? 0
    job.createdAt = row.createdAt
    job.firstIndex = row.firstIndex
    job.stride = row.stride
    return job
  }

  // MARK: Events

  /// Until the newest, or with `follow` until the client has gone.
  func readEvents(_ request: WireReadEvents) async throws(CallError) {
    try await untilGone { () async throws(CallError) in
      try await context.events.following { (follower) async throws(CallError) in
        var position = try await self.events { try $0.start(request) }
        var news = follower.news.makeAsyncIterator()
        while true {
          let from = position
          let (events, last) = try await self.events { try $0.events(request, after: from) }
          for event in events {
            guard await stream.send(event) else { return }
          }
          position = last
          if events.count == EventQueries.page { continue }
          guard request.follow, await news.next() != nil else { return }
        }
      }
    }
  }

  private func events<T: Sendable>(
    _ body: @escaping @Sendable (EventQueries) throws -> T
  ) async throws(CallError) -> T {
    do { return try await context.store.read { db in try body(EventQueries(db: db)) } } catch {
      throw Engine.unavailable(error)
    }
  }

  /// Sends each workflow once nothing in it can go on.
  private func waitWorkflows(_ request: WireWaitWorkflows) async throws(CallError) {
    try await untilGone { () async throws(CallError) in
      try await context.events.following { (follower) async throws(CallError) in
        var news = follower.news.makeAsyncIterator()
        var open = request.ids
        while !open.isEmpty {
          for id in open {
            let workflow = try await self.workflow(id)
            guard "SFX".contains(workflow.status) else { continue }
            open.removeAll { $0 == id }
            guard await stream.send(workflow) else { return }
          }
          if open.isEmpty { return }
          guard await news.next() != nil else { return }
        }
      }
    }
  }

  /// Runs the body, and ends it when the client has gone.
  func untilGone(_ body: @escaping @Sendable () async throws(CallError) -> Void) async throws(CallError) {
    let failure = await withTaskGroup(of: CallError?.self) { group in
      group.addTask {
        await stream.untilCanceled()
        return nil
      }
      group.addTask {
        do throws(CallError) {
          try await body()
          return nil
        } catch { return error }
      }
      defer { group.cancelAll() }
      return await group.next() ?? nil
    }
    if let failure { throw failure }
  }
}
