import GRDB
import Scheduling
import ScitqProtocol

/// Workflows and steps.
extension Engine {
  func change(_ flow: FlowCommand, by user: User, _ known: Known, _ reply: @escaping Command.Reply<Int64>) {
    do throws(CallError) {
      let id =
        switch flow {
        case .createWorkflow(let request): try create(request, by: user, known)
        case .updateWorkflow(let request): try update(request, by: user)
        case .actOnWorkflow(let request): try act(request, by: user, known)
        case .createStep(let request): try create(request, by: user, known)
        case .updateStep(let request): try update(request, by: user)
        case .actOnStep(let request): try act(request, by: user, known)
        }
      answer(reply, id)
    } catch {
      reply(.failure(error))
    }
  }

  // MARK: Creation

  static func key(of request: WireCreateWorkflow) -> String { "workflow:" + request.idempotencyKey }
  static func key(of request: WireCreateStep) -> String { "step:" + request.idempotencyKey }

  private func create(_ request: WireCreateWorkflow, by user: User, _ known: Known) throws(CallError) -> Int64
  {
    let key = Self.key(of: request)
    if !request.idempotencyKey.isEmpty, let made = made(key, by: user, known) { return made }
    try Self.check(name: request.name, of: "workflow")
    let strategy = try Self.strategy(request.strategy.isEmpty ? "B" : request.strategy)
    var row = WorkflowRow(
      id: WorkflowID(nextWorkflow), name: request.name, owner: user.id, strategy: strategy,
      state: request.draft ? .draft : strategy == .suspended ? .suspended : .running, createdAt: batch.now)
    row.maximumWorkers = Int32(clamping: request.maximumWorkers)
    if request.weight != 0 { row.weightMilli = try Self.weight(request.weight, user) }
    row.maximumCost = try Self.cost(request.maximumCost)
    nextWorkflow += 1
    save(row)
    batch.event("workflow", row.id.rawValue, "created", user: user.id)
    if !request.idempotencyKey.isEmpty { batch.keys.append((user.id, key, row.id.rawValue, 1)) }
    return row.id.rawValue
  }

  private func create(_ request: WireCreateStep, by user: User, _ known: Known) throws(CallError) -> Int64 {
    let key = Self.key(of: request)
    if !request.idempotencyKey.isEmpty, let made = made(key, by: user, known) { return made }
    let workflow = try workflow(request.workflowID, for: user)
    try Self.check(name: request.name, of: "step")
    try checkFree(request.name, in: workflow.id)
    let row = StepRow(
      id: StepID(nextStep), workflow: workflow.id, name: request.name, createdAt: batch.now)
    nextStep += 1
    save(row)
    batch.event("step", row.id.rawValue, "created", user: user.id)
    if !request.idempotencyKey.isEmpty { batch.keys.append((user.id, key, row.id.rawValue, 1)) }
    return row.id.rawValue
  }

  private func made(_ key: String, by user: User, _ known: Known) -> Int64? {
    known.made[Known.key(user.id, key)]?.firstID
      ?? batch.keys.first { $0.user == user.id && $0.key == key }?.first
  }

  // MARK: Change

  private func update(_ request: WireUpdateWorkflow, by user: User) throws(CallError) -> Int64 {
    var row = try workflow(request.id, for: user)
    if request.hasName {
      try Self.check(name: request.name, of: "workflow")
      row.name = request.name
    }
    if request.hasMaximumWorkers { row.maximumWorkers = Int32(clamping: request.maximumWorkers) }
    if request.hasWeight { row.weightMilli = try Self.weight(request.weight, user) }
    if request.hasMaximumCost { row.maximumCost = try Self.cost(request.maximumCost) }
    if request.hasStrategy {
      let old = row.strategy
      row.strategy = try Self.strategy(request.strategy)
      if row.strategy == .suspended {
        throw CallError(
          .invalid, "the strategy Z is for workflows that are being made; `scitq workflow suspend` stops one",
          field: "run-strategy")
      }
      save(row)
      if (old == .debug) != (row.strategy == .debug) { hold(row, row.strategy == .debug) }
    }
    save(row)
    batch.event("workflow", row.id.rawValue, "updated", user: user.id)
    return row.id.rawValue
  }

  private static func cost(_ amount: Double) throws(CallError) -> Double? {
    guard amount.isFinite, amount >= 0 else {
      throw CallError(
        .invalid, "the maximum cost is \(amount); it is an amount above 0, or 0 for no limit",
        field: "maximum-cost")
    }
    return amount == 0 ? nil : amount
  }

  /// Keeps the ready tasks of a workflow for the operator's word, or lets them go.
  private func hold(_ workflow: WorkflowRow, _ isHeld: Bool) {
    for id in tasks(of: workflow.id) where cluster.task(id)?.worker == nil { cluster.hold(id, isHeld) }
  }

  private func update(_ request: WireUpdateStep, by user: User) throws(CallError) -> Int64 {
    var row = try step(request.id, for: user)
    if request.hasName, request.name != row.name {
      try Self.check(name: request.name, of: "step")
      try checkFree(request.name, in: row.workflow)
      row.name = request.name
    }
    save(row)
    batch.event("step", row.id.rawValue, "updated", user: user.id)
    return row.id.rawValue
  }

  // MARK: Verbs

  private func act(_ request: WireActOnWorkflow, by user: User, _ known: Known) throws(CallError) -> Int64 {
    var row = try workflow(request.id, for: user)
    let tasks = tasks(of: row.id)
    switch request.verb {
    case .start: try start(&row, tasks, user)
    case .suspend:
      if row.state != .running {
        throw Self.conflict("workflow", row.name, row.state, "running", "suspended")
      }
      row.state = .suspended
      save(row)
      hold(tasks, .workflow, "its workflow was suspended", user)
      batch.event("workflow", row.id.rawValue, "suspended", user: user.id)
    case .resume:
      if row.state != .suspended {
        throw Self.conflict("workflow", row.name, row.state, "suspended", "resumed")
      }
      launch(&row)
      release(tasks, .workflow, user)
      batch.event("workflow", row.id.rawValue, "resumed", user: user.id)
    case .cancel:
      row.state = .canceled
      save(row)
      batch.event("workflow", row.id.rawValue, "canceled", user: user.id)
      for task in tasks { cancel(task, by: user) }
    case .delete:
      let doomed = known.doomed["workflow \(row.id)"] ?? Known.Doomed()
      if let refusal = Self.refusal(of: doomed) { throw refusal }
      let own = steps.values.filter { $0.workflow == row.id }.map(\.id)
      erase(doomed, tasks, steps: own)
      workflows[row.id] = nil
      cluster.removeWorkflow(row.id)
      batch.lastWrites.append { [id = row.id.rawValue] db in
        try db.execute(sql: "DELETE FROM workflow WHERE id = ?", arguments: [id])
      }
      batch.event("workflow", row.id.rawValue, "deleted", user: user.id, reason: row.name)
    case .unspecified, .UNRECOGNIZED: throw CallError(.invalid, "this server does not know that verb")
    }
    return row.id.rawValue
  }

  /// A draft becomes real, whole; or a workflow that was made with the strategy Z is launched.
  private func start(_ row: inout WorkflowRow, _ tasks: [TaskID], _ user: User) throws(CallError) {
    switch row.state {
    case .suspended:
      launch(&row)
      release(tasks, .workflow, user)
    case .draft: finalize(&row, tasks, user)
    case .running, .canceled:
      throw Self.conflict("workflow", row.name, row.state, "a draft or suspended", "started")
    }
    batch.event("workflow", row.id.rawValue, "started", user: user.id)
  }

  private func finalize(_ row: inout WorkflowRow, _ tasks: [TaskID], _ user: User) {
    row.state = row.strategy == .suspended ? .suspended : .running
    save(row)
    var runs = Runs()
    for id in tasks where cluster.task(id)?.status == .inactive {
      guard let status = cluster.resumption(of: id) else { continue }
      guard shift(id, to: status, by: .server), let entry = cluster.task(id) else { continue }
      let events = batch.events.count
      stand(id, entry, was: .inactive, user: user.id)
      // Said for all of them together.
      batch.events.removeSubrange(events...)
      runs.append(id.rawValue, status)
      // Of those that are to be skipped when their outputs exist, nobody has looked yet.
      if cluster.unmetPrerequisites(of: id).contains(Self.check(of: id)) { announcement.checks.append(id) }
    }
    for run in runs.all {
      batch.events.append(
        Batch.Event(
          object: "task", first: run.first, last: run.last, from: .inactive, to: run.status.rawValue,
          worker: nil, user: user.id, reason: nil))
    }
  }

  private func act(_ request: WireActOnStep, by user: User, _ known: Known) throws(CallError) -> Int64 {
    var row = try step(request.id, for: user)
    let tasks = tasks(of: [row.id])
    switch request.verb {
    case .suspend:
      if row.isSuspended { throw CallError(.conflict, "step \(row.name) is suspended already", field: "id") }
      row.isSuspended = true
      save(row)
      hold(tasks, .step, "its step was suspended", user)
    case .resume:
      if !row.isSuspended { throw CallError(.conflict, "step \(row.name) is not suspended", field: "id") }
      row.isSuspended = false
      save(row)
      release(tasks, .step, user)
    case .cancel: for task in tasks { cancel(task, by: user) }
    case .delete:
      let doomed = known.doomed["step \(row.id)"] ?? Known.Doomed()
      if let refusal = Self.refusal(of: doomed) { throw refusal }
      erase(doomed, tasks, steps: [row.id])
    case .start: throw CallError(.invalid, "a workflow is started, not a step of it", field: "id")
    case .unspecified, .UNRECOGNIZED: throw CallError(.invalid, "this server does not know that verb")
    }
    batch.event("step", row.id.rawValue, request.verb.participle, user: user.id, reason: row.name)
    return row.id.rawValue
  }

  /// Ends what runs and removes everything, and sets the workers free that served it.
  private func erase(_ doomed: Known.Doomed, _ live: [TaskID], steps own: [StepID]) {
    for id in live {
      if let row = active.removeValue(forKey: id), let worker = row.worker {
        announce(.kill, row, to: worker)
      }
      cluster.remove(id)
      announcement.ended.append(id)
    }
    for worker in workers.values where worker.step.map(own.contains) == true {
      var worker = worker
      worker.step = nil
      set(worker)
      recharge(worker)
      batch.event(worker: worker.id, "updated", reason: "its step was deleted")
    }
    for (id, job) in jobs where job.step.map(own.contains) == true { jobs[id] = nil }
    for step in own {
      steps[step] = nil
      failures.forget(step: step)
      cluster.removeStep(step)
    }
    // Those that this very batch made are among the living.
    erase(Array(Set(doomed.tasks).union(live)).sorted())
    batch.lastWrites.append { db in
      for step in own {
        let step = step.rawValue
        try db.execute(
          sql: "DELETE FROM job_count WHERE job_id IN (SELECT id FROM job WHERE step_id = ?)",
          arguments: [step])
        try db.execute(sql: "DELETE FROM job WHERE step_id = ?", arguments: [step])
        try db.execute(sql: "DELETE FROM task_count WHERE step_id = ?", arguments: [step])
        try db.execute(sql: "DELETE FROM phase_count WHERE step_id = ?", arguments: [step])
        try db.execute(sql: "DELETE FROM step WHERE id = ?", arguments: [step])
      }
    }
  }

  // MARK: Parts

  func save(_ row: WorkflowRow) {
    workflows[row.id] = row
    cluster.set(row.entry)
    batch.writes.append { db in try row.save(db) }
  }

  private func save(_ row: StepRow) {
    steps[row.id] = row
    cluster.set(row.entry)
    batch.writes.append { db in try row.save(db) }
  }

  /// Lets a workflow go on that was suspended, or made with the strategy Z.
  private func launch(_ row: inout WorkflowRow) {
    row.state = .running
    if row.strategy == .suspended { row.strategy = .batch }
    save(row)
  }

  /// The tasks of a workflow that can still move.
  func tasks(of workflow: WorkflowID) -> [TaskID] {
    tasks(of: Set(steps.values.filter { $0.workflow == workflow }.map(\.id)))
  }

  private func tasks(of steps: Set<StepID>) -> [TaskID] {
    if steps.isEmpty { return [] }
    return cluster.taskIDs.filter { id in cluster.task(id)?.step.map(steps.contains) ?? false }
  }

  private func workflow(_ id: Int64, for user: User) throws(CallError) -> WorkflowRow {
    guard let row = workflows[WorkflowID(id)] else { throw Self.noWorkflow(id) }
    try checkOwner(row, user)
    return row
  }

  func step(_ id: Int64, for user: User) throws(CallError) -> StepRow {
    guard let row = steps[StepID(id)], let workflow = workflows[row.workflow] else { throw Self.noStep(id) }
    try checkOwner(workflow, user)
    return row
  }

  private func checkOwner(_ workflow: WorkflowRow, _ user: User) throws(CallError) {
    guard workflow.owner == user.id || user.isAdmin else {
      throw CallError(
        .forbidden, "workflow \(workflow.name) is another user's: only its owner or an admin may change it")
    }
  }

  private func checkFree(_ name: String, in workflow: WorkflowID) throws(CallError) {
    guard let twin = steps.values.first(where: { $0.workflow == workflow && $0.name == name }) else { return }
    throw CallError(
      .conflict, "the workflow has a step \(name) already, with the id \(twin.id); choose another name",
      field: "name")
  }

  // MARK: Refusals

  static func noWorkflow(_ id: Int64) -> CallError {
    CallError(
      .notFound, "workflow \(id) does not exist; `scitq workflow list` shows those that do", field: "id")
  }

  static func noStep(_ id: Int64) -> CallError {
    CallError(.notFound, "step \(id) does not exist; `scitq step list` shows those that do", field: "id")
  }

  private static func conflict(
    _ object: String, _ name: String, _ state: WorkflowRow.State, _ wanted: String, _ participle: String
  ) -> CallError {
    let standing = state == .draft ? "a draft" : state.rawValue
    return CallError(
      .conflict, "\(object) \(name) is \(standing): only one that is \(wanted) can be \(participle)",
      field: "id")
  }

  private static func check(name: String, of object: String) throws(CallError) {
    guard !name.isEmpty, name.count <= 200, !name.contains(where: { $0.isNewline || $0 == "\t" }),
      !name.utf8.contains(0)
    else {
      throw CallError(
        .invalid, "the name of a \(object) has 1 to 200 characters on one line", field: "name")
    }
  }

  private static func strategy(_ text: String) throws(CallError) -> RunStrategy {
    guard let strategy = RunStrategy(rawValue: text) else {
      throw CallError(
        .invalid, "\"\(text.prefix(40))\" is no run strategy; they are B, T, D and Z", field: "run-strategy")
    }
    return strategy
  }

  /// Above one takes an admin: it is at the cost of other users.
  private static func weight(_ weight: Double, _ user: User) throws(CallError) -> Int32 {
    guard weight >= 0.001, weight <= 1000 else {
      throw CallError(.invalid, "the weight is \(weight); it is from 0.001 to 1000", field: "weight")
    }
    guard weight <= 1 || user.isAdmin else {
      throw CallError(
        .forbidden, "a weight above 1 is at the cost of other users: that takes an admin", field: "weight")
    }
    return Int32((weight * 1000).rounded())
  }
}

extension WireFlowVerb {
  var participle: String {
    switch self {
    case .start: "started"
    case .suspend: "suspended"
    case .resume: "resumed"
    case .cancel: "canceled"
    case .delete: "deleted"
    case .unspecified, .UNRECOGNIZED: "changed"
    }
  }
}
