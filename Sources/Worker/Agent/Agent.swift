package import Logging
import NIOCore
package import ScitqProtocol
import SwiftProtobuf
import SystemPackage
package import Transfer

/// The agent on a compute host: takes orders, drives each attempt through its life, and tells the server.
///
/// It owns all attempts and everything that waits to be said. Engines, transfers, journal and connection do their
/// work elsewhere; what they find is decided upon here, one thing at a time.
///
/// What is written to the journal before it is told: orders, and every report. So a killed agent that starts again on
/// the same store goes on where it was. The commands themselves never depend on it.
package actor Agent {
  package struct Setup: Sendable {
    package var store: StorePaths
    package var identity: WireWorkerIdentity
    package var engines: Engines
    package var transfer: Transfer
    package var journal: Journal
    package var enrolment: Enrolment
    package var logger: Logger
    package var connect: Connector
    /// Nil: nobody tells this host that it is taken back.
    package var eviction: EvictionWatch?
    /// A cluster's queue started this process, and may end it and all that it has started.
    package var isBatchJob: Bool

    package init(
      store: StorePaths, identity: WireWorkerIdentity, engines: Engines, transfer: Transfer, journal: Journal,
      enrolment: Enrolment, logger: Logger, eviction: EvictionWatch? = nil, isBatchJob: Bool = false,
      connect: @escaping Connector
    ) {
      self.store = store
      self.identity = identity
      self.engines = engines
      self.transfer = transfer
      self.journal = journal
      self.enrolment = enrolment
      self.logger = logger
      self.eviction = eviction
      self.isBatchJob = isBatchJob
      self.connect = connect
    }
  }

  /// Why the agent ended.
  package enum Ending: Sendable, Equatable {
    /// It drained: nothing is left here, and the server knows.
    case left
    /// It was told to go at once. What runs goes on running; the next agent on the store takes it up.
    case abandoned
    /// The server does not want it, said in a sentence.
    case refused(String)
  }

  /// What children of the agent do.
  enum Job: Sendable {
    case drive(AttemptID)
    case kill(AttemptID)
    /// Makes the command stand still, or go on, as is wanted.
    case settle(AttemptID)
    case clean([AttemptID])
    case cleanStore(Int64, any ServerLink)
  }

  let setup: Setup
  let stager: Stager
  let logger: Logger
  var enrolment: Enrolment
  var settings = WireWorkerSettings()

  var attempts: [AttemptID: Attempt] = [:]
  var gate: SlotGate
  var stagingPlaces: Places
  /// Durable or about to be, not acknowledged, in order.
  var outgoing = CircularBuffer<WireReport>()
  var nextSequence: Int64 = 1
  var lastDelivery: ContinuousClock.Instant?
  /// Set while the delivery of reports waits for one.
  var reportsWanted: Wakeup?

  var logQueue = LogQueue()

  let jobs: AsyncStream<Job>
  let newJobs: AsyncStream<Job>.Continuation

  var isDraining = false
  /// Why the host goes away before long, for people; nil: it stays, as far as is known.
  var departure: String?
  /// The last figures of the host that were sampled.
  var lastStats: WireHostStats?
  var wasReconciled = false
  /// The server has deleted this worker since it was connected.
  var wasDeleted = false
  /// Woken when draining has come to its end, and when it begins.
  var drainChanged: Wakeup?
  var ending: Ending?
  private var endingWaiters: [Wakeup] = []

  package init(_ setup: Setup) {
    self.setup = setup
    logger = setup.logger
    enrolment = setup.enrolment
    stager = Stager(store: setup.store, transfer: setup.transfer, logger: setup.logger)
    let identity = setup.identity
    settings.concurrency = identity.concurrency
    settings.prefetch = identity.prefetch
    settings.beatIntervalMs = 5000
    settings.leaseMs = 60_000
    settings.killGraceMs = 10_000
    gate = SlotGate(
      slots: Double(identity.concurrency),
      host: SlotGate.Load(
        weight: 1, cpu: identity.host.cpu, memory: identity.host.memoryBytes, gpu: identity.host.gpu))
    stagingPlaces = Places(Self.stagingWidth(settings))
    (jobs, newJobs) = AsyncStream.makeStream(of: Job.self)
  }

  /// Takes up what an earlier agent left, and works until there is an ending.
  package func run() async -> Ending {
    let state = setup.journal.state
    restore(state)
    var watch = setup.eviction
    let endsAt = setup.identity.endsAt
    let time = endsAt > 0 ? WallTime(endsAt: endsAt, now: Clock.microseconds()) : nil
    await leaveAtOnceIfTold(&watch, time)
    await withDiscardingTaskGroup { group in
      group.addTask { await self.adoptHeld() }
      group.addTask { await self.stayConnected() }
      if departure == nil {
        if let watch { group.addTask { await self.heed(watch) } }
        if let time { group.addTask { await self.heed(time) } }
      }
      for await job in jobs { group.addTask { await self.perform(job) } }
      group.cancelAll()
    }
    return ending ?? .abandoned
  }

  /// Returns once there is an ending and everything known is on the disk. `run` returns later, when all that the
  /// agent was doing has stopped.
  package func waitForEnding() async -> Ending {
    while true {
      if let ending {
        await setup.journal.flushed()
        return ending
      }
      let wakeup = Wakeup()
      endingWaiters.append(wakeup)
      await wakeup.wait()
      if Task.isCancelled { return ending ?? .abandoned }
    }
  }

  /// Takes nothing new, gives back what has not started, finishes the rest, says goodbye.
  package func drain() {
    if isDraining { return }
    isDraining = true
    logger.notice("draining: running tasks are finished, others are given back")
    for attempt in attempts.values where attempt.status.isBeforeStart { revoke(attempt, .kill) }
    drainChanged?.wake()
    checkDrained()
  }

  /// Goes at once, with everything on disk.
  package func abandon() { end(.abandoned) }

  func end(_ how: Ending) {
    guard ending == nil else { return }
    ending = how
    for wakeup in endingWaiters { wakeup.wake() }
    newJobs.finish()
  }

  func checkDrained() {
    guard isDraining, attempts.isEmpty else { return }
    drainChanged?.wake()
    // Nobody to say goodbye to, and nothing to tell.
    if drainChanged == nil { end(.left) }
  }

  func spawn(_ job: Job) { newJobs.yield(job) }

  private func perform(_ job: Job) async {
    switch job {
    case .drive(let id): await drive(id)
    case .kill(let id):
      if let attempt = attempts[id] { await attempt.engine?.kill(id, grace: grace(of: attempt)) }
    case .settle(let id): await settle(id)
    case .clean(let ids): await clean(ids)
    case .cleanStore(let number, let link): await cleanStore(number, link)
    }
  }

  func grace(of attempt: Attempt) -> Duration {
    attempt.isAtOnce ? .zero : .milliseconds(settings.killGraceMs)
  }

  /// How many tasks are brought here side by side: those that are made ready ahead, and a few beside them.
  static func stagingWidth(_ settings: WireWorkerSettings) -> Int { 4 + Int(settings.prefetch) }

  var runningCount: Int { gate.running.count }

  // MARK: What an earlier agent left

  private func restore(_ state: JournalState) {
    nextSequence = state.lastSequence + 1
    var done: [AttemptID] = []
    for id in state.order {
      guard let held = state.held[id], let order = try? WireTaskOrder(serializedBytes: held.order) else {
        logger.error("the order of task \(id.task) in the journal does not parse; it is dropped")
        setup.journal.append(.forgotten(id))
        continue
      }
      let attempt = Attempt(id, order, store: setup.store, engines: setup.engines)
      attempt.isRestored = true
      attempts[id] = attempt
      guard let last = held.lastReport, let report = try? WireReport(serializedBytes: last.bytes) else {
        continue
      }
      attempt.lastReport = report
      attempt.status = TaskStatus(rawValue: report.status) ?? .assigned
      attempt.isDone = last.isFinal && last.sequence <= state.acknowledged
      attempt.suspension.ran = held.ran
      // As it stood; what is wished now, the server tells.
      attempt.suspension.isWanted = attempt.status == .suspended
      if attempt.isDone { done.append(id) }
    }
    for report in state.unacknowledged {
      if let report = try? WireReport(serializedBytes: report.bytes) { outgoing.append(report) }
    }
    if !done.isEmpty { spawn(.clean(done)) }
    if !attempts.isEmpty {
      logger.notice("\(attempts.count) attempts of an earlier agent are taken up again")
    }
    // Folders of attempts that the journal does not know are an interrupted removal.
    let known = Set(attempts.keys.map(\.description))
    for name in Files.names(in: setup.store.tasks) where !known.contains(name) {
      Files.removeTree(setup.store.tasks.appending(name))
    }
  }

  /// Asks the engines what still runs, and goes on with each attempt from where it is.
  private func adoptHeld() async {
    if let container = setup.engines.container {
      if let held = await held(by: container) { await adopt(held, from: container, containers: true) }
    } else {
      await adopt([:], from: nil, containers: true)
    }
    if let held = await held(by: setup.engines.process) {
      await adopt(held, from: setup.engines.process, containers: false)
    }
  }

  /// An engine that does not answer now is asked until it does: without it nobody knows what became of a command.
  private func held(by engine: any ExecutionEngine) async -> [AttemptID: HeldState]? {
    var pause = Backoff()
    while ending == nil, !Task.isCancelled {
      do {
        return try await engine.held()
      } catch {
        logger.error("cannot ask what still runs on this host, tried again: \(error)")
        try? await Task.sleep(for: pause.next())
      }
    }
    return nil
  }

  private func adopt(
    _ held: [AttemptID: HeldState], from engine: (any ExecutionEngine)?, containers: Bool
  ) async {
    for attempt in attempts.values where attempt.isRestored && attempt.resume == nil {
      if Engines.isBare(attempt.spec.container) == containers || attempt.status.isFinal { continue }
      let state = held[attempt.id]
      attempt.logs.isPositionKnown = state == nil || state == .created
      switch (attempt.status, state) {
      case (.uploading, _), (.uploadingFailed, _): attempt.resume = .concluding(isHeld: state != nil)
      case (_, .running?), (_, .paused?), (_, .ended?):
        attempt.resume = .running
        attempt.suspension.isPaused = state == .paused
        attempt.hadEnded = state == .ended
        gate.enterAnyway(attempt.id, attempt.load)
      case (.running, _), (.suspended, _): attempt.resume = .gone
      default: attempt.resume = .fresh
      }
      // What has not started may be another's by now: that is for the server to say first.
      if attempt.resume != .fresh || wasReconciled { launch(attempt) }
    }
    guard let engine else { return }
    for id in held.keys where attempts[id] == nil {
      logger.warning("task \(id.task) is not in the journal; what is left of it is ended")
      await engine.kill(id, grace: .milliseconds(settings.killGraceMs))
      await engine.remove(id)
    }
  }

  /// Begins to drive an attempt, once.
  func launch(_ attempt: Attempt) {
    guard !attempt.isDriven, !attempt.status.isFinal else { return }
    attempt.isDriven = true
    spawn(.drive(attempt.id))
  }
}
