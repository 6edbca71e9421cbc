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
  let registry: WorkerRegistry
  let configuration: Configuration
  let logger: Logger
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
  /// Reconciled sessions, by worker: their epoch. Not in the database: a session does not outlive the server.
  var ready: [WorkerID: Int64] = [:]

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
  }

  init(
    store: Store, logs: LogStore, watch: TaskWatch, registry: WorkerRegistry, configuration: Configuration,
    logger: Logger
  ) {
    self.store = store
    self.logs = logs
    self.watch = watch
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
    _ identity: WireWorkerIdentity, software: String, credential: String?
  ) async throws(CallError) -> WireWorkerWelcome {
    try await ask { .connect(identity, software: software, credential: credential, $0) }
  }

  /// A change that moves no task, in the next batch.
  nonisolated func write(_ body: @escaping @Sendable (Database) throws -> Void) async throws(CallError) {
    try await ask { .write(body, $0) }
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
      let step = cluster.task(assignment.task)?.step
      batch.count(step: step, .pending, hidden: false, -1)
      batch.count(step: step, .assigned, hidden: false, +1)
      batch.event(assignment.task, from: .pending, to: .assigned, worker: assignment.worker)
      batch.assigned.append(
        Batch.Assigned(task: assignment.task, worker: assignment.worker, assignment: assignment.number))
    }
    return assignments.count
  }

  /// Makes the batch durable, then announces it. False when the database did not take it: then nothing has
  /// happened, in memory neither.
  private func commit(closing group: inout DiscardingTaskGroup) async -> Bool {
    let batch = batch
    var orders: [(row: TaskRow, spec: WireTaskSpec)] = []
    if !batch.isEmpty {
      do {
        orders = try await store.write { db in try batch.write(db) }
      } catch {
        logger.error("a batch was refused by the database", metadata: ["error": "\(error)"])
        await reload()
        return false
      }
    }
    for (row, _) in orders { active[row.id] = row }
    announce(orders)
    if !announcement.ended.isEmpty {
      let (ended, silent) = (announcement.ended, announcement.silent)
      let logs = logs
      group.addTask { for task in ended { await logs.finish(task: task, isSilent: silent.contains(task)) } }
    }
    return true
  }

  private func announce(_ orders: [(row: TaskRow, spec: WireTaskSpec)]) {
    for reply in announcement.replies { reply() }
    var perWorker: [WorkerID: WireOrders] = [:]
    for (row, spec) in orders {
      guard let worker = row.worker else { continue }
      var order = WireTaskOrder()
      order.taskID = row.id.rawValue
      order.assignment = row.assignment
      order.attempt = UInt32(row.attempt)
      order.spec = spec
      order.weight = Double(row.weightMilli) / 1000
      order.priority = row.priority
      perWorker[worker, default: WireOrders()].orders.append(order)
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
    acknowledged = image.acknowledged
    nextTask = image.lastTask + 1
    nextSpec = image.lastSpec + 1
    nextWorker = image.lastWorker + 1
    for worker in image.workers {
      workers[worker.id] = worker
      cluster.set(worker.entry(isConnected: ready[worker.id] == worker.epoch))
      if worker.status != .lost, registry.presence(worker.id) == nil { registry.grantLease(worker.id) }
    }
    for (row, needs) in image.tasks {
      cluster.add(entry(row, needs), waitingFor: image.unmet[row.id] ?? [])
      if row.status.isOnWorker { active[row.id] = row }
    }
    for (row, _) in image.tasks where row.unchecked && row.status == .waiting { newChecks.yield(row.id) }
    for (prerequisite, outcome) in image.endedPrerequisites {
      _ = cluster.settle(prerequisite, outcome: outcome)
    }
  }

  func entry(_ row: TaskRow, _ needs: Needs) -> TaskEntry {
    TaskEntry(
      id: row.id, step: row.step, status: row.status, priority: row.priority, weightMilli: row.weightMilli,
      needs: needs, order: row.place, unmet: row.unmet, worker: row.worker, assignment: row.assignment,
      avoid: row.avoid, acceptFailure: row.acceptFailure, cancelsWithPrerequisite: row.cancelWithPrerequisite,
      cancelWished: row.cancelRequested)
  }
}
