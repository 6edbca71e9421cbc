import GRDB
import Logging
import Scheduling
import ScitqProtocol
import ServiceLifecycle

/// The only writer.
///
/// It takes every command that is waiting, applies them to the cluster in memory, writes what changed in one
/// transaction, and only then answers the callers and tells the workers. While one batch is being made durable the
/// next one gathers: a thousand small calls cost one fsync, and nothing is announced that a crash could take back.
actor Engine: Service {
  /// Commands taken at once, and tasks assigned at once: bounds on how long a batch holds up the next.
  private static let mostCommands = 4096
  private static let mostAssignments = 4096

  let store: Store
  let logs: LogStore
  let watch: TaskWatch
  let events: EventWatch
  let registry: WorkerRegistry
  let configuration: Configuration
  let logger: Logger
  /// Microseconds UTC.
  let startedAt = microsecondsNow()
  private nonisolated let inbox = Inbox()
  /// Tasks for `OutputChecks`.
  nonisolated let checks: AsyncStream<TaskID>
  private let newChecks: AsyncStream<TaskID>.Continuation

  // Everything below mirrors the database and is rebuilt from it.
  var cluster = Cluster()
  /// Tasks that workers have, whole.
  var active: [TaskID: TaskRow] = [:]
  /// Workers that are not deleted.
  var workers: [WorkerID: WorkerRow] = [:]
  /// How far each worker's reports are taken in.
  var acknowledged: [WorkerID: Int64] = [:]
  var nextTask: Int64 = 1
  var nextSpec: Int64 = 1
  var nextWorker: Int64 = 1
  var workflows: [WorkflowID: WorkflowRow] = [:]
  var steps: [StepID: StepRow] = [:]
  /// Those with a task that can still move, or for which something waits.
  var jobs: [TaskID: JobRow] = [:]
  /// Those that may have nothing left to wait for. Let go of only when what ended them is in the database: until then
  /// nobody could learn it there.
  var doneJobs: [TaskID] = []
  var nextWorkflow: Int64 = 1
  var nextStep: Int64 = 1
  /// What is to happen to tasks at some time if nothing happens to them before.
  var timers = Timers()
  /// How long tasks may be ready without being run, of those that have such a limit.
  var queueLimits: [TaskID: QueueLimit] = [:]
  /// Reconciled sessions, by worker: their epoch. Not in the database: a session does not outlive the server.
  var ready: [WorkerID: Int64] = [:]

  var fleet = FleetState()
  /// There is something to ask of providers.
  nonisolated let errandBell = Bell()

  /// Which steps fail where. Not in the database: a server that starts anew gives everybody a chance.
  var failures = FailureLedger()
  /// Workers that are connected and have missed their beats.
  var quiet: Set<WorkerID> = []

  /// Of which not all reports reached this server, but one of which it is an older copy.
  var behind: Set<TaskID> = []
  /// Why the report that is being looked at is not taken.
  var refusal: String?

  /// What this pass will announce once it is durable.
  var batch = Batch(now: 0)
  var announcement = Announcement()

  /// What follows a commit.
  struct Announcement {
    var replies: [() -> Void] = []
    var revocations: [WorkerID: WireRevocations] = [:]
    var settings: [WorkerID: WireWorkerSettings] = [:]
    var ended: [TaskID] = []
    /// Those of them that printed nothing, by what was reported.
    var silent: Set<TaskID> = []
    var closed: [(WorkerID, CallError)] = []
    /// Of which it is to be looked whether their outputs exist.
    var checks: [TaskID] = []
    /// Whose logs are to go with them.
    var deleted: [TaskID] = []
    /// Rows of rented hosts have changed.
    var hasErrands = false
  }

  init(
    store: Store, logs: LogStore, watch: TaskWatch, events: EventWatch, registry: WorkerRegistry,
    configuration: Configuration, logger: Logger
  ) {
    self.store = store
    self.logs = logs
    self.watch = watch
    self.events = events
    self.registry = registry
    self.configuration = configuration
    self.logger = logger
    (checks, newChecks) = AsyncStream.makeStream(of: TaskID.self)
  }

  // MARK: Asking

  /// Hands in a command that nobody waits for.
  nonisolated func send(_ command: Command) {
    if !inbox.put(command) { command.fail(Self.stopped) }
  }

  /// Hands in a command and waits for its answer, which is given when it is durable.
  nonisolated func ask<Value: Sendable>(
    _ make: (@escaping Command.Reply<Value>) -> Command
  ) async throws(CallError) -> Value {
    try await withCheckedContinuation {
      (continuation: CheckedContinuation<Result<Value, CallError>, Never>) in
      send(make { continuation.resume(returning: $0) })
    }.get()
  }

  nonisolated func connect(
    _ identity: WireWorkerIdentity, software: String, credential: String?, ticket: InstanceID? = nil
  ) async throws(CallError) -> WireWorkerWelcome {
    try await ask { .connect(identity, software: software, credential: credential, ticket: ticket, $0) }
  }

  /// A change that moves no task, in the next batch, and what is to be said of it.
  nonisolated func write(
    saying events: [Batch.Event] = [], _ body: @escaping @Sendable (Database) throws -> Void
  ) async throws(CallError) {
    try await ask { .write(body, events, $0) }
  }

  private static let stopped = CallError(.unavailable, "the server is stopping; try again")

  // MARK: The loop

  func run() async throws {
    try await load()
    await withGracefulShutdownHandler {
      await withDiscardingTaskGroup { group in
        while let commands = await inbox.take(Self.mostCommands) {
          await pass(commands, closing: &group)
        }
      }
    } onGracefulShutdown: {
      self.inbox.close()
    }
  }

  private func pass(_ commands: [Command], closing group: inout DiscardingTaskGroup) async {
    batch = Batch(now: microsecondsNow())
    announcement = Announcement()
    for job in doneJobs where jobs[job]?.status.isFinal == true && cluster.dependents(of: job).isEmpty {
      jobs[job] = nil
    }
    doneJobs = []
    let known: Known
    do { known = try await look(up: commands) } catch {
      let failure = Self.unavailable(error)
      for command in commands { command.fail(failure) }
      logger.error("the database cannot be read", metadata: ["error": "\(error)"])
      return
    }
    for command in commands { apply(command, known) }
    var assigned = 0
    repeat {
      assigned = assign()
      guard await commit(closing: &group) else {
        for command in commands { command.fail(Self.refused) }
        return
      }
      // More than one batch's worth could be assigned: go on at once, in a batch of its own.
      batch = Batch(now: microsecondsNow())
      announcement = Announcement()
    } while assigned == Self.mostAssignments
  }

  private func assign() -> Int {
    let assignments = cluster.assign(limit: Self.mostAssignments)
    for assignment in assignments {
      let entry = cluster.task(assignment.task)
      count(step: entry?.step, job: entry?.job, .pending, hidden: false, -1)
      count(step: entry?.step, job: entry?.job, .assigned, hidden: false, +1)
      batch.event(assignment.task, from: .pending, to: .assigned, worker: assignment.worker)
      if !fleet.instances.isEmpty { fleet.busy.insert(assignment.worker) }
      batch.assigned.append(
        Batch.Assigned(task: assignment.task, worker: assignment.worker, assignment: assignment.number))
      if let step = entry?.step, workflow(of: step)?.strategy == .thread { batch.threadSteps.insert(step) }
    }
    return assignments.count
  }

  /// Makes the batch durable, then announces it. False when the database did not take it: then nothing has
  /// happened, in memory neither.
  private func commit(closing group: inout DiscardingTaskGroup) async -> Bool {
    let batch = batch
    var written = Batch.Written()
    if !batch.isEmpty {
      do {
        written = try await store.write { db in try batch.write(db) }
      } catch {
        logger.error("a batch was refused by the database", metadata: ["error": "\(error)"])
        await reload()
        return false
      }
    }
    for order in written.orders { active[order.row.id] = order.row }
    announce(written.orders)
    if let last = written.lastEvent { events.advance(to: last) }
    let (ended, silent, deleted) = (announcement.ended, announcement.silent, announcement.deleted)
    if !ended.isEmpty || !deleted.isEmpty {
      let logs = logs
      group.addTask {
        for task in ended { await logs.finish(task: task, isSilent: silent.contains(task)) }
        for task in deleted { await logs.delete(task: task) }
      }
    }
    return true
  }

  private func announce(_ orders: [Batch.Order]) {
    for reply in announcement.replies { reply() }
    var perWorker: [WorkerID: WireOrders] = [:]
    for order in orders {
      guard let worker = order.row.worker else { continue }
      perWorker[worker, default: WireOrders()].orders.append(wire(order))
    }
    for (worker, orders) in perWorker { registry.presence(worker)?.wire.push(.orders, orders) }
    for (worker, revocations) in announcement.revocations {
      registry.presence(worker)?.wire.push(.revocations, revocations)
    }
    for (worker, settings) in announcement.settings {
      registry.presence(worker)?.wire.push(.settings, settings)
    }
    for (worker, error) in announcement.closed { registry.forget(worker)?.end(error) }
    watch.ended(announcement.ended)
    for id in announcement.checks { newChecks.yield(id) }
    if announcement.hasErrands { errandBell.strike() }
  }

  private func wire(_ order: Batch.Order) -> WireTaskOrder {
    let row = order.row
    var wire = WireTaskOrder()
    wire.taskID = row.id.rawValue
    wire.assignment = row.assignment
    wire.attempt = UInt32(row.attempt)
    wire.spec = order.spec
    wire.weight = Double(row.weightMilli) / 1000
    wire.priority = row.priority
    if let index = row.arrayIndex, let job = row.job {
      wire.inArray = true
      wire.arrayIndex = index
      wire.arraySize = jobs[job]?.size ?? 0
    }
    if let step = row.step, workflow(of: step)?.strategy == .thread { wire.keepOutputs = true }
    wire.kept = order.kept
    return wire
  }

  /// Every count that people see changes here: those of the step, and those of the job.
  func count(step: StepID?, job: TaskID?, _ status: TaskStatus, hidden: Bool, _ by: Int64) {
    batch.count(step: step, job: job, status, hidden: hidden, by)
    if let job, !hidden { jobs[job]?.counts[status] += Int(by) }
  }

  func count(_ row: TaskRow, _ by: Int64) {
    count(step: row.step, job: row.job, row.status, hidden: row.hidden, by)
  }

  /// Makes a new task part of this batch.
  func insert(_ row: TaskRow) {
    batch.insert(row)
    count(row, +1)
  }

  /// Changes a task that this very batch made.
  func changeInserted(_ id: TaskID, _ change: (inout TaskRow) -> Void) {
    guard let before = batch.inserted(id) else { return }
    count(before, -1)
    batch.changeInserted(id, change)
    if let after = batch.inserted(id) { count(after, +1) }
  }

  func workflow(of step: StepID?) -> WorkflowRow? {
    step.flatMap { steps[$0] }.flatMap { workflows[$0.workflow] }
  }

  /// The reply is given when the batch is durable, or refused with it.
  func answer<Value: Sendable>(_ reply: @escaping Command.Reply<Value>, _ value: Value) {
    announcement.replies.append { reply(.success(value)) }
  }

  private static let refused = CallError(
    .unavailable, "the database did not take the change, so nothing was changed; see the server's log")

  static func unavailable(_ error: any Error) -> CallError {
    CallError(.unavailable, "the database cannot be used now: \(error)")
  }

  // MARK: Rebuilding

  /// The memory may be ahead of the database: it is thrown away, however long the database takes to come back.
  private func reload() async {
    while true {
      do {
        try await load()
        return
      } catch {
        logger.error("the database is away; trying again", metadata: ["error": "\(error)"])
        try? await Task.sleep(for: .seconds(1))
        if Task.isCancelled { return }
      }
    }
  }

  private func load() async throws {
    let image = try await store.read { db in try ClusterImage(db) }
    cluster = Cluster()
    active = [:]
    workers = [:]
    timers = Timers()
    doneJobs = []
    queueLimits = [:]
    acknowledged = image.acknowledged
    nextTask = image.lastTask + 1
    nextSpec = image.lastSpec + 1
    nextWorker = image.lastWorker + 1
    nextWorkflow = image.lastWorkflow + 1
    nextStep = image.lastStep + 1
    events.advance(to: image.lastEvent)
    batch = Batch(now: microsecondsNow())
    fleet = image.fleet
    for user in image.users { cluster.set(user) }
    workflows = Dictionary(uniqueKeysWithValues: image.workflows.map { ($0.id, $0) })
    steps = Dictionary(uniqueKeysWithValues: image.steps.map { ($0.id, $0) })
    jobs = Dictionary(uniqueKeysWithValues: image.jobs.map { ($0.id, $0) })
    for workflow in image.workflows { cluster.set(workflow.entry) }
    for step in image.steps { cluster.set(step.entry) }
    for worker in image.workers {
      workers[worker.id] = worker
      cluster.set(entry(worker, isConnected: ready[worker.id] == worker.epoch))
      if worker.status != .lost, worker.status != .deploying, registry.presence(worker.id) == nil {
        registry.grantLease(worker.id)
      }
    }
    for (row, facts) in image.tasks {
      cluster.add(entry(row, facts.needs(row.memoryMilli)), waitingFor: image.unmet[row.id] ?? [])
      if row.worker != nil { active[row.id] = row }
      setTimers(of: row, facts)
    }
    for (row, _) in image.tasks where row.unchecked && row.status == .waiting { newChecks.yield(row.id) }
    for (prerequisite, outcome) in image.endedPrerequisites {
      _ = cluster.settle(prerequisite, outcome: outcome)
    }
  }

  func entry(_ row: TaskRow, _ needs: Needs) -> TaskEntry {
    TaskEntry(
      id: row.id, owner: row.owner, job: row.job, step: row.step, status: row.status, priority: row.priority,
      weightMilli: row.weightMilli, needs: needs, order: row.place, unmet: row.unmet, worker: row.worker,
      assignment: row.assignment, avoid: row.avoid, acceptFailure: row.acceptFailure,
      cancelsWithPrerequisite: row.cancelWithPrerequisite, cancelWished: row.cancelRequested,
      suspendWished: !row.suspendWish.isEmpty, isHeld: isHeld(row), prefer: row.prefer)
  }

  /// Whether a task is kept from being assigned for now, whatever its workflow and step say.
  func isHeld(_ row: TaskRow) -> Bool {
    (row.notBefore ?? 0) > batch.now
      || !row.released && workflow(of: row.step)?.strategy == .debug
  }
}
