import GRDB
import NIOEmbedded
import Scheduling
import ScitqProtocol
import Testing

@testable import ScitqServer

/// What the engine does with what providers say: here a test says it.
@Suite("The engine and its hosts")
struct FleetEngineTests {
  private static let places = ["one", "two"].map { Region(provider: "exec.a", name: $0) }
  private static let small = Flavor(
    provider: "exec.a", region: "one", name: "small", cpu: 4, memory: 16, price: 0.1)

  private static func run(
    idle: Duration = .seconds(300), deploy: Duration = .seconds(900),
    _ body: @escaping @Sendable (EngineWorld) async throws -> Void
  ) async throws {
    try await EngineWorld.run { configuration in
      configuration.providers = [ProviderConfiguration(kind: .exec, name: "exec.a", regions: ["one", "two"])]
      configuration.fleet.idleTimeout = idle
      configuration.fleet.deployTimeout = deploy
    } _: { world in
      try await world.tell(.flavors(places[0], [small]))
      try await body(world)
    }
  }

  @Test("where no host has come of late one is tried alone; once it has joined, the rest follow")
  func probe() async throws {
    try await Self.run { world in
      let step = try await world.need(10)
      try await world.recruit(for: step)
      let first = try await world.orders()
      #expect(first.count == 1)
      try await world.deploy(first[0])
      #expect(try await world.orders().isEmpty)
      _ = try await world.arrive(first[0])
      #expect(try await world.orders().count == 9)
    }
  }

  @Test("a host that cannot be returned keeps no other one from being bought; what befalls many counts once")
  func stuck() async throws {
    try await Self.run(deploy: .zero) { world in
      let order = try await world.oneOrder().order
      try await world.deploy(order)
      try await world.tick()
      try await world.tell(.kept(order.instance, ProviderError(.transient, "it is switched off")))
      try await world.enable(true)
      try await world.tick()
      #expect(try await world.orders().map(\.instance) == [2])
      #expect(try await world.number("SELECT block_count FROM flavor") == 0)
    }
  }

  @Test("what another host lacked makes those on their way no less")
  func onTheirWay() async throws {
    try await Self.run { world in
      let step = try await world.need(4, container: "alpine")
      try await world.recruit(for: step)
      _ = try await world.arrive(world.deployed(try #require(try await world.orders().first)))
      // Proven now: two more are made, and one is not asked for.
      let rest = try await world.orders()
      let whole = try await world.deployed(rest[0])
      _ = try await world.arrive(world.deployed(rest[1]), engines: ["bare"])
      try await world.tick()
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state <> 'ended'") == 3)
      let why = try await world.engine.explain(recruiter: step, 1)
      #expect(why.contains("2 slots are wanted beside"), "\(why)")
      _ = try await world.arrive(whole)
    }
  }

  @Test("a host that never reports keeps its flavor from being bought, and takes the other orders with it")
  func neverReports() async throws {
    try await Self.run(deploy: .zero) { world in
      let step = try await world.need(10)
      try await world.recruit(for: step)
      try await world.deploy(try #require(try await world.orders().first))
      for _ in 0..<5 { try await world.tick() }
      #expect(try await world.number("SELECT count(*) FROM instance") == 10)
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state <> 'ended'") == 1)
      #expect(try await world.returns().count == 1)
      let why = try await world.engine.explain(recruiter: step, 1)
      #expect(why.contains("never reported"), "\(why)")
    }
  }

  @Test("what a host turns out to lack is learned: no more of them are bought for what needs it")
  func unfit() async throws {
    try await Self.run(idle: .zero) { world in
      let step = try await world.need(3, container: "alpine")
      try await world.recruit(for: step)
      let order = try #require(try await world.orders().first)
      try await world.deploy(order)
      let worker = try await world.arrive(order, engines: ["bare"])
      try await world.tick()
      let events = try await world.strings("SELECT reason FROM event WHERE to_status = 'returned'")
      #expect(events.contains { $0.contains("can run nothing") }, "\(events)")
      #expect(try await world.workers().allSatisfy { $0 != worker.id })
      for _ in 0..<3 { try await world.tick() }
      // The two that nobody was asked for have gone as well.
      #expect(try await world.orders().isEmpty)
      #expect(try await world.number("SELECT count(*) FROM instance") == 3)
      let why = try await world.engine.explain(recruiter: step, 1)
      #expect(why.contains("no flavor that passes its filter is large enough"), "\(why)")
    }
  }

  @Test("orders that nobody was asked for yet are taken back when the need goes")
  func withdrawn() async throws {
    try await Self.run { world in
      let step = try await world.need(10)
      try await world.recruit(for: step)
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state = 'ordered'") == 10)
      for task in 1...7 as ClosedRange<Int64> { try await world.cancel(TaskID(task)) }
      try await world.tick()
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state = 'ordered'") == 3)
      try await world.enable(false)
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state = 'ordered'") == 0)
      try await world.enable(true)
      try await world.tick()
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state = 'ordered'") == 3)
      try await world.act(.suspend, onStep: step)
      try await world.tick()
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state = 'ordered'") == 0)
      #expect(try await world.orders().isEmpty)
    }
  }

  @Test("nothing is bought for tasks that their owner's limits keep from starting")
  func limits() async throws {
    try await Self.run { world in
      world.engine.send(.user(UserEntry(id: world.admin.id, maximumRunning: 3)))
      let a = try await world.need(20)
      let b = try await world.need(20)
      try await world.recruit(for: a)
      try await world.recruit(for: b)
      #expect(try await world.number("SELECT count(*) FROM instance") == 3)
    }
  }

  @Test("a host that another region lists is no stranger, and one that nobody ordered is")
  func strangers() async throws {
    try await Self.run { world in
      let order = try await world.oneOrder().order
      let host = try await world.deploy(order)
      var other = host
      other.region = "two"
      let stranger = Instance(key: "scitq-x-9", id: "9", region: "two", state: .running)
      #expect(
        try await world.tell(.seen(Self.places[1], [other, stranger], at: .max, queues: false)) == [stranger])
      // Nor is a second one of the same order, which ends with it.
      other.id = "double"
      #expect(try await world.tell(.seen(Self.places[0], [host, other], at: .max, queues: false)).isEmpty)
      #expect(try await world.strings("SELECT reference FROM instance") == [host.id])
    }
  }

  @Test("an order of which nobody can tell is neither ended nor given again, and its worker makes it clear")
  func unclear() async throws {
    try await Self.run(deploy: .zero) { world in
      let order = try await world.oneOrder().order
      try await world.tell(.attempting(order.instance))
      // It comes although its provider was cut off before it said so; then nobody is let in who could tell.
      let worker = try await world.arrive(order)
      #expect(try await worker.attempts().count == 1)
      for kind in [ProviderError.Class.credentials, .transient, .misconfigured, .capacity] {
        try await world.tell(.unclear(order.instance, ProviderError(kind, "not now")))
        try await world.tell(.refused(order.instance, ProviderError(kind, "not now")))
      }
      try await world.tick()
      #expect(try await worker.attempts().count == 1)
      #expect(try await world.strings("SELECT state FROM instance") == ["deployed"])
      try await world.tell(.deployed(order.instance, world.host(of: order), isFree: false))
      #expect(try await world.strings("SELECT reference FROM instance") != [""])
    }
  }

  @Test("an order that was given and cannot be looked for is kept, and looked for to be returned at its end")
  func lookedFor() async throws {
    try await Self.run(deploy: .zero) { world in
      let order = try await world.oneOrder().order
      try await world.tell(.attempting(order.instance))
      try await world.tell(.unclear(order.instance, ProviderError(.credentials, "expired")))
      let state = try await world.strings("SELECT state || unwanted FROM instance WHERE id = 1")
      #expect(state == ["ordered1"])
      try await world.tell(.seen(Self.places[0], [world.host(of: order)], at: .max, queues: false))
      #expect(try await world.returns().map(\.instance) == [order.instance])
    }
  }

  @Test("a list without a host says nothing against a worker that answers, and ends one that does not")
  func lists() async throws {
    try await Self.run { world in
      let order = try await world.oneOrder().order
      try await world.deploy(order)
      let worker = try await world.arrive(order)
      world.registry.add(worker.id, epoch: worker.epoch, Wire(channel: NIOAsyncTestingChannel()))
      for _ in 0..<4 { try await world.tell(.seen(Self.places[0], [], at: .max, queues: false)) }
      #expect(try await worker.attempts().count == 1)
      world.registry.remove(worker.id, epoch: worker.epoch)
      try await world.tell(.seen(Self.places[0], [], at: .max, queues: false))
      #expect(try await worker.attempts().count == 1)
      try await world.tell(.seen(Self.places[0], [], at: .max, queues: false))
      #expect(try await worker.attempts().isEmpty)
      // What it left is tidied up by its provider, once.
      #expect(try await world.returns().map(\.instance) == [order.instance])
      try await world.tell(.returned(order.instance))
      #expect(try await world.returns().isEmpty)
    }
  }

  @Test("who is drained or paused goes back when it has been idle for long, and who is permanent stays")
  func drained() async throws {
    try await Self.run(idle: .zero) { world in
      let step = try await world.need(3)
      try await world.recruit(for: step)
      var workers: [PlayedWorker] = []
      while let order = try await world.orders().first {
        try await world.deploy(order)
        workers.append(try await world.arrive(order))
      }
      var permanent = WireUpdateWorker()
      permanent.ids = [workers[2].id.rawValue]
      permanent.permanent = true
      let asked = permanent
      try await world.engine.ask { .updateWorkers(asked, by: world.admin, $0) }
      for task in 1...3 as ClosedRange<Int64> { try await world.cancel(TaskID(task)) }
      for index in workers.indices {
        for attempt in try await workers[index].attempts().keys {
          try await workers[index].say(attempt, .canceled)
        }
      }
      for worker in workers { try await world.act(.drain, on: worker.id) }
      for _ in 0..<3 { try await world.tick() }
      #expect(try await world.workers() == [workers[2].id])
    }
  }

  @Test(
    "what was paid stays with its workflow when its step is gone, and a worker that is moved pays elsewhere")
  func costs() async throws {
    try await Self.run { world in
      let (step, order) = try await world.oneOrder()
      try await world.deploy(order)
      let worker = try await world.arrive(order)
      let other = try await world.need(1)
      try await world.serve(worker.id, step: other)
      let uses = try await world.strings(
        "SELECT step_id || ' ' || workflow_id || ' ' || (ended_at IS NULL) FROM instance_use ORDER BY started_at"
      )
      #expect(uses == ["1 1 0", "2 2 1"])
      try await world.act(.delete, onStep: step)
      let kept = try await world.number("SELECT count(*) FROM instance_use WHERE workflow_id = 1")
      #expect(kept == 1)
    }
  }

  @Test("a host that cannot be returned can be forgotten")
  func forgotten() async throws {
    try await Self.run { world in
      let order = try await world.oneOrder().order
      try await world.deploy(order)
      let worker = try await world.arrive(order)
      try await world.engine.ask { .deleteWorkers([worker.id], undeployed: false, by: world.admin, $0) }
      try await world.tell(.kept(order.instance, ProviderError(.credentials, "closed")))
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state <> 'ended'") == 1)
      try await world.engine.ask { .deleteWorkers([worker.id], undeployed: true, by: world.admin, $0) }
      #expect(try await world.number("SELECT count(*) FROM instance WHERE state <> 'ended'") == 0)
    }
  }

  @Test("two hosts of one image do not take each other's place")
  func twins() async throws {
    try await Self.run { world in
      let step = try await world.need(2)
      try await world.recruit(for: step)
      let first = try #require(try await world.orders().first)
      try await world.deploy(first)
      let worker = try await world.arrive(first)
      let second = try #require(try await world.orders().first)
      try await world.deploy(second)
      await #expect(throws: CallError.self) { try await world.arrive(second, store: worker.identity.storeID) }
      #expect(try await worker.attempts().count == 1)
      _ = try await world.arrive(second)
    }
  }

  @Test("figures that are none neither stop the server nor are believed", arguments: [1e-18, 1e18, -1, .nan])
  func figures(_ figure: Double) async throws {
    try await Self.run { world in
      let step = try await world.need(2)
      var request = WireRecruiter()
      request.stepID = step
      request.filter = "cpu>=1"
      request.cpuPerTask = figure
      let asked = request
      await #expect(throws: CallError.self) {
        let _: FleetCommand.Outcome = try await world.engine.ask {
          .changeFleet(.createRecruiter(asked), by: world.admin, $0)
        }
      }
      var flavor = Self.small
      flavor.name = "odd"
      flavor.cpu = figure
      flavor.memory = figure
      try await world.tell(.flavors(Self.places[0], [flavor]))
      try await world.recruit(for: step)
      try await world.tick()
      #expect(try await world.orders().isEmpty)
    }
  }
}

extension EngineWorld {
  @discardableResult
  func tell(_ report: FleetReport) async throws -> [Instance] { try await engine.ask { .fleet(report, $0) } }

  func tick() async throws {
    engine.send(.tick)
    try await settle()
  }

  func number(_ query: String) async throws -> Int {
    try await store.read { db in try Int.fetchOne(db, sql: query) ?? 0 }
  }

  func strings(_ query: String) async throws -> [String] {
    try await store.read { db in try String.fetchAll(db, sql: query) }
  }

  /// Those that are not deleted.
  func workers() async throws -> [WorkerID] {
    try await store.read { db in
      try Int64.fetchAll(db, sql: "SELECT id FROM worker WHERE status <> 'deleted'").map { WorkerID($0) }
    }
  }

  /// A step of a workflow of its own, and so many tasks that are ready; the step.
  func need(_ count: Int, container: String = "") async throws -> Int64 {
    let workflow = try await workflow("w\(try await number("SELECT count(*) FROM workflow"))")
    let step = try await step("s", of: workflow)
    _ = try await submit(
      (0..<count).map { _ in
        var task = WireNewTask.bare("true")
        task.stepID = step
        task.spec.container = container
        return task
      })
    return step
  }

  /// A recruiter of one slot a host, that does not wait; and a first look.
  func recruit(for step: Int64) async throws {
    var request = WireRecruiter()
    request.stepID = step
    request.filter = "cpu>=1"
    request.concurrency = 1
    let asked = request
    let _: FleetCommand.Outcome = try await engine.ask {
      .changeFleet(.createRecruiter(asked), by: admin, $0)
    }
    try await tick()
  }

  /// A task, a recruiter for its step, and what that orders.
  func oneOrder() async throws -> (step: Int64, order: FleetErrand) {
    let step = try await need(1)
    try await recruit(for: step)
    return (step, try #require(try await orders().first))
  }

  /// Whether the flavor may be bought.
  func enable(_ isEnabled: Bool) async throws {
    var request = WireEnableFlavor()
    request.provider = "exec.a"
    request.name = "small"
    request.enabled = isEnabled
    let asked = request
    let _: FleetCommand.Outcome = try await engine.ask { .changeFleet(.enable(asked), by: admin, $0) }
  }

  func orders() async throws -> [FleetErrand] {
    try await settle()
    return await engine.errands(besides: []).filter { if case .deploy = $0 { true } else { false } }
  }

  func returns() async throws -> [FleetErrand] {
    try await settle()
    return await engine.errands(besides: []).filter { if case .terminate = $0 { true } else { false } }
  }

  func host(of order: FleetErrand) -> Instance {
    guard case .deploy(let row, let flavor, _, _, _) = order else {
      preconditionFailure("no order: \(order)")
    }
    return Instance(key: row.key, id: "i-\(row.id)", region: flavor.region, state: .running)
  }

  @discardableResult
  func deploy(_ order: FleetErrand) async throws -> Instance {
    try await tell(.attempting(order.instance))
    try await tell(.deployed(order.instance, host(of: order), isFree: false))
    return host(of: order)
  }

  func deployed(_ order: FleetErrand) async throws -> FleetErrand {
    try await deploy(order)
    return order
  }

  /// The order's host shows its ticket.
  func arrive(
    _ order: FleetErrand, engines: [String] = ["bare", "docker"], store: String? = nil
  ) async throws -> PlayedWorker {
    var identity = WireWorkerIdentity()
    identity.name = host(of: order).key
    identity.storeID = store ?? "store-\(identity.name)"
    identity.concurrency = 1
    identity.host.cpu = 4
    identity.host.memoryBytes = 16 << 30
    identity.host.diskBytes = 100 << 30
    identity.host.engines = engines
    var worker = PlayedWorker(world: self, identity: identity)
    worker.credential = try await engine.connect(
      identity, software: "test", credential: nil, ticket: order.instance
    )
    .credential
    try await worker.connect()
    return worker
  }
}
