import Foundation
import GRDB
import Logging
import NIOPosix
import ScitqProtocol
import ServiceLifecycle
import SwiftProtobuf
import SystemPackage

@testable import ScitqServer

/// A real engine over a real database in a temporary folder; workers are played by the test.
struct EngineWorld: Sendable {
  let engine: Engine
  let store: Store
  let registry: WorkerRegistry
  let admin: User

  /// Runs `body` with a fresh engine, or with one that finds the database at `directory`.
  static func run<T: Sendable>(
    at directory: FilePath? = nil, configure: (inout ScitqServer.Configuration) -> Void = { _ in },
    _ body: @escaping @Sendable (EngineWorld) async throws -> T
  ) async throws -> T {
    let own = FilePath(NSTemporaryDirectory()).appending("scitq-engine-\(UUID().uuidString)")
    let directory = directory ?? own
    try FileManager.default.createDirectory(atPath: directory.string, withIntermediateDirectories: true)
    defer { if directory == own { try? FileManager.default.removeItem(atPath: own.string) } }
    var configuration = ScitqServer.Configuration()
    configure(&configuration)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let store = try Store(directory: directory)
    let registry = WorkerRegistry()
    let logs = LogStore(directory: directory, threadPool: .singleton, logger: logger)
    let engine = Engine(
      store: store, logs: logs, watch: TaskWatch(), events: EventWatch(), registry: registry,
      configuration: configuration, logger: logger)
    let admin = User(
      Row([
        "id": 1, "username": "admin", "email": "", "role": "admin", "weight_milli": 1000,
        "maximum_running": nil,
        "maximum_cpu_milli": nil, "created_at": 0,
      ]))
    let world = EngineWorld(engine: engine, store: store, registry: registry, admin: admin)
    let services = ServiceGroup(
      configuration: ServiceGroupConfiguration(services: [engine], logger: logger))
    return try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await services.run() }
      let result: Result<T, any Error>
      do { result = .success(try await body(world)) } catch { result = .failure(error) }
      await services.triggerGracefulShutdown()
      try await group.waitForAll()
      return try result.get()
    }
  }

  // MARK: People

  func submit(_ tasks: [WireNewTask], key: String = "") async throws -> [TaskID] {
    let submission = Submission(owner: admin, key: key, tasks: tasks)
    let made: WireTasksCreated = try await engine.ask { .submit(submission, $0) }
    return (made.firstID..<made.firstID + made.count).map(TaskID.init(rawValue:))
  }

  func submit(_ command: String = "true", after: [TaskID] = [], retry: UInt32 = 0) async throws -> TaskID {
    try await submit([.bare(command, after: after, retry: retry)])[0]
  }

  func cancel(_ id: TaskID) async throws { _ = try await act(.cancel, id) }

  @discardableResult
  func act(_ verb: WireTaskVerb, _ id: TaskID, release: Bool = false) async throws -> WireActedOnTasks {
    var request = WireActOnTask()
    request.id = id.rawValue
    request.verb = verb
    request.release = release
    let asked = request
    return try await engine.ask { .act(asked, by: admin, $0) }
  }

  func retry(_ id: TaskID, force: Bool = false, budget: UInt32? = nil) async throws -> TaskID {
    var request = WireRetryTask()
    request.id = id.rawValue
    request.force = force
    request.hasRetry_p = budget != nil
    request.retry = budget ?? 0
    let retried: WireTasksRetried = try await engine.ask { [request] in .retry(request, by: admin, $0) }
    return TaskID(retried.firstID)
  }

  // MARK: Workflows and jobs

  @discardableResult
  func change(_ flow: FlowCommand, by user: User? = nil) async throws -> Int64 {
    let user = user ?? admin
    return try await engine.ask { .flow(flow, by: user, $0) }
  }

  func workflow(_ name: String = "w", strategy: String = "B", draft: Bool = false) async throws -> Int64 {
    try await change(
      .createWorkflow(
        .with {
          $0.name = name
          $0.strategy = strategy
          $0.draft = draft
        }))
  }

  func step(_ name: String, of workflow: Int64) async throws -> Int64 {
    try await change(
      .createStep(
        .with {
          $0.workflowID = workflow
          $0.name = name
        }))
  }

  func act(_ verb: WireFlowVerb, onWorkflow id: Int64) async throws {
    try await change(
      .actOnWorkflow(
        .with {
          $0.id = id
          $0.verb = verb
        }))
  }

  func act(_ verb: WireFlowVerb, onStep id: Int64) async throws {
    try await change(
      .actOnStep(
        .with {
          $0.id = id
          $0.verb = verb
        }))
  }

  func standing(ofWorkflow id: Int64) async throws -> WireWorkflow {
    try await settle()
    guard let found = try await store.read({ db in try FlowQueries(db: db).workflow(id) }) else {
      throw CallError(.notFound, "workflow \(id)")
    }
    return found
  }

  /// The number of the job; that of its first task is one more.
  func submit(job header: WireNewJob, rows: [WireJobRow] = []) async throws -> TaskID {
    let size = rows.isEmpty ? header.size : Int64(rows.count)
    let submission = Submission(
      owner: admin, key: "", tasks: [], job: Submission.Job(header: header, rows: rows, size: size))
    let made: WireTasksCreated = try await engine.ask { .submit(submission, $0) }
    return TaskID(made.jobID)
  }

  func job(_ id: TaskID) async throws -> JobRow {
    try await settle()
    guard let job = try await store.read({ db in try db.job(id) }) else {
      throw CallError(.notFound, "job \(id)")
    }
    return job
  }

  func serve(_ worker: WorkerID, step: Int64? = nil, scope: String? = nil) async throws {
    var request = WireUpdateWorker()
    request.ids = [worker.rawValue]
    if let step { request.stepID = step }
    if let scope { request.scope = scope }
    let asked = request
    try await engine.ask { .updateWorkers(asked, by: admin, $0) }
  }

  func act(_ verb: WireWorkerVerb, on worker: WorkerID, running: Bool = false) async throws {
    var request = WireActOnWorkers()
    request.ids = [worker.rawValue]
    request.verb = verb
    request.running = running
    let asked = request
    try await engine.ask { .actOnWorkers(asked, by: admin, $0) }
  }

  // MARK: Workers

  func join(_ name: String, slots: UInt32 = 2, prefetch: UInt32 = 0) async throws -> PlayedWorker {
    var identity = WireWorkerIdentity()
    identity.name = name
    identity.storeID = "store-\(name)"
    identity.concurrency = slots
    identity.prefetch = prefetch
    identity.host.cpu = 8
    identity.host.memoryBytes = 16 << 30
    identity.host.diskBytes = 100 << 30
    identity.host.engines = ["bare", "docker"]
    var worker = PlayedWorker(world: self, identity: identity)
    try await worker.connect()
    return worker
  }

  func row(_ id: TaskID) async throws -> TaskRow {
    guard let row = try await store.read({ db in try db.task(id) }) else {
      throw CallError(.notFound, "\(id)")
    }
    return row
  }

  func status(_ id: TaskID) async throws -> TaskStatus { try await row(id).status }

  /// Returns when everything sent before has been done.
  func settle() async throws { try await engine.write { _ in } }
}

/// A worker that says what the test makes it say.
struct PlayedWorker: Sendable {
  let world: EngineWorld
  var identity: WireWorkerIdentity
  var id: WorkerID = 0
  var epoch: Int64 = 0
  var credential = ""
  var sequence: Int64 = 0

  init(world: EngineWorld, identity: WireWorkerIdentity) {
    self.world = world
    self.identity = identity
  }

  mutating func connect(holding: [AttemptID: TaskStatus] = [:]) async throws {
    let welcome = try await world.engine.connect(
      identity, software: "test", credential: credential.isEmpty ? nil : credential)
    id = WorkerID(welcome.workerID)
    epoch = welcome.epoch
    if !welcome.credential.isEmpty { credential = welcome.credential }
    world.registry.grantLease(id)
    let held = holding.map { attempt, status in
      var held = WireHeldAttempt()
      held.taskID = attempt.task.rawValue
      held.assignment = attempt.assignment
      held.status = status.rawValue
      return held
    }
    let _: WireReconciled = try await world.engine.ask { .reconcile(id, epoch: epoch, held, $0) }
    world.engine.send(.ready(id, epoch: epoch))
    try await world.settle()
  }

  /// What it has, as the database knows.
  func attempts() async throws -> [AttemptID: TaskStatus] {
    let id = id
    return try await world.store.read { db in
      var found: [AttemptID: TaskStatus] = [:]
      for row in try Row.fetchAll(
        db,
        sql:
          "SELECT id, assignment, status FROM task WHERE worker_id = ? AND status IN ('A','C','D','O','R','U','V','Z')",
        arguments: [id.rawValue])
      {
        found[AttemptID(task: TaskID(row["id"]), assignment: row["assignment"])] = TaskStatus(
          rawValue: row["status"])
      }
      return found
    }
  }

  func attempt(_ task: TaskID) async throws -> AttemptID {
    let row = try await world.row(task)
    return AttemptID(task: task, assignment: row.assignment)
  }

  /// The attempts that the server calls superseded.
  @discardableResult
  mutating func say(
    _ attempt: AttemptID, _ statuses: TaskStatus..., reason: FailureReason? = nil
  ) async throws -> [WireAttemptRef] {
    var reports: [WireReport] = []
    for status in statuses {
      sequence += 1
      var report = WireReport()
      report.sequence = sequence
      report.taskID = attempt.task.rawValue
      report.assignment = attempt.assignment
      report.status = status.rawValue
      report.at = microsecondsNow()
      if let reason { report.reason = reason.rawValue }
      reports.append(report)
    }
    return try await send(reports)
  }

  func send(_ reports: [WireReport]) async throws -> [WireAttemptRef] {
    try await answer(reports).superseded
  }

  func answer(_ reports: [WireReport]) async throws -> WireReportsAccepted {
    try await world.engine.ask { .report(id, epoch: epoch, reports, $0) }
  }

  /// Its lease runs out.
  func vanish() async throws {
    world.engine.send(.disconnected(id, epoch: epoch))
    world.engine.send(.tick)
    try await world.settle()
  }
}

extension WireNewTask {
  static func bare(_ command: String, after: [TaskID] = [], retry: UInt32 = 0) -> WireNewTask {
    var task = WireNewTask()
    task.spec.command = command
    task.dependencies = after.map(\.rawValue)
    task.retry = retry
    return task
  }
}
