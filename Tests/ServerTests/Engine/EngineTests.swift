import Foundation
import GRDB
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqServer

/// A tick loses every worker whose lease was granted, at once.
private func noPatience(_ configuration: inout ScitqServer.Configuration) {
  configuration.workers.offlineTimeout = .zero
}

@Suite("The engine")
struct EngineTests {
  @Test(
    "a server that was restored from a backup takes the rest of what a worker has to say, and no other one does"
  )
  func restored() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let (a, b, c) = (try await world.submit(), try await world.submit(), try await world.submit())
      try await world.settle()
      let first = try await worker.attempt(a)
      let second = try await worker.attempt(b)
      try await worker.say(first, .accepted)
      // Letters that are skipped without a gap in the numbers of reports are refused.
      #expect(try await worker.say(first, .uploading).count == 1)
      // The letters between were told to the server of which this one is an older copy.
      worker.sequence += 3
      #expect(try await worker.say(first, .uploading, .succeeded).isEmpty)
      #expect(try await worker.say(second, .failed, reason: .exitCode).isEmpty)
      #expect(try await world.status(a) == .succeeded)
      #expect(try await world.status(b) == .failed)
      let third = try await worker.attempt(c)
      #expect(try await worker.say(third, .running).count == 1)
    }
  }

  @Test("a task goes from submission to its end, each letter durable before it is told")
  func road() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let task = try await world.submit()
      try await world.settle()
      #expect(try await world.status(task) == .assigned)
      let attempt = try await worker.attempt(task)
      for status in [TaskStatus.accepted, .downloading, .onHold, .running, .uploading, .succeeded] {
        #expect(try await worker.say(attempt, status).isEmpty)
        #expect(try await world.status(task) == status)
      }
    }
  }

  @Test("the same submission sent twice is made once, and another key makes another")
  func idempotency() async throws {
    try await EngineWorld.run { world in
      let first = try await world.submit([.bare("a"), .bare("b")], key: "k")
      async let again = world.submit([.bare("a"), .bare("b")], key: "k")
      async let other = world.submit([.bare("a"), .bare("b")], key: "l")
      #expect(try await again == first)
      #expect(try await other != first)
    }
  }

  @Test("a submission of which one dependency does not exist is refused whole")
  func allOrNone() async throws {
    try await EngineWorld.run { world in
      await #expect(throws: CallError.self) { try await world.submit([.bare("a"), .bare("b", after: [99])]) }
      let made = try await world.store.read { db in try Int.fetchOne(db, sql: "SELECT count(*) FROM task") }
      #expect(made == 0)
    }
  }

  @Test("a late report from a lost worker is superseded, and the clone is untouched by it")
  func superseded() async throws {
    try await EngineWorld.run(configure: noPatience) { world in
      var worker = try await world.join("w")
      let task = try await world.submit()
      try await world.settle()
      let attempt = try await worker.attempt(task)
      try await worker.say(attempt, .accepted, .running)
      try await worker.vanish()
      let lost = try await world.row(task)
      #expect(lost.status == .failed && lost.reason == "worker-lost" && lost.hidden)
      let clone = try #require(lost.next)
      #expect(try await world.status(clone) == .pending)
      // A connection it no longer has says nothing any more; a new one is told that the attempt is over.
      #expect(try await worker.say(attempt, .uploading).count == 1)
      try await worker.connect(holding: [attempt: .uploading])
      #expect(try await worker.say(attempt, .uploading).count == 1)
      #expect(try await world.status(task) == .failed)
    }
  }

  @Test("what had not started when its worker was lost goes back to its place, and spends nothing")
  func requeue() async throws {
    try await EngineWorld.run(configure: noPatience) { world in
      var worker = try await world.join("w", slots: 1, prefetch: 1)
      let tasks = try await world.submit([.bare("a"), .bare("b")])
      try await world.settle()
      let first = try await worker.attempt(tasks[0])
      try await worker.say(first, .accepted, .downloading)
      try await worker.vanish()
      for task in tasks {
        let row = try await world.row(task)
        #expect(row.status == .pending && row.worker == nil && row.losses == 0)
      }
      _ = try await world.join("x", slots: 1)
      let row = try await world.row(tasks[0])
      #expect(row.status == .assigned && row.assignment == 2)
      #expect(try await worker.say(first, .running).count == 1)
    }
  }

  @Test("five losses in a row end a task")
  func losses() async throws {
    try await EngineWorld.run(configure: noPatience) { world in
      var task = try await world.submit()
      for round in 1...5 {
        var worker = try await world.join("w\(round)")
        try await worker.say(try await worker.attempt(task), .accepted, .running)
        try await worker.vanish()
        let row = try await world.row(task)
        #expect(row.status == .failed)
        if let next = row.next { task = next } else { #expect(round == 5) }
      }
      #expect(try await world.row(task).next == nil)
    }
  }

  @Test("a failure spends the budget, keeps every field, and what waited waits for the clone")
  func automaticRetry() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 4)
      var new = WireNewTask.bare("x", retry: 1)
      new.name = "n"
      new.priority = 7
      new.weight = 0.5
      new.acceptFailure = true
      new.onDependencyFailure = .cancel
      let task = try await world.submit([new])[0]
      let dependent = try await world.submit("y", after: [task])
      try await worker.say(
        try await worker.attempt(task), .accepted, .running, .uploadingFailed, .failed, reason: .exitCode)
      let old = try await world.row(task)
      let clone = try await world.row(try #require(old.next))
      var expected = old
      expected.id = clone.id
      expected.status = clone.status
      expected.retry = 0
      expected.attempt = 2
      expected.previous = task
      expected.next = nil
      expected.hidden = false
      expected.avoid = worker.id
      expected.worker = clone.worker
      expected.assignment = clone.assignment
      expected.assignedAt = clone.assignedAt
      expected.createdAt = clone.createdAt
      expected.readyAt = clone.createdAt
      expected.reason = nil
      expected.message = nil
      expected.runStartedAt = nil
      expected.runEndedAt = nil
      expected.endedAt = nil
      #expect(clone == expected)
      #expect(try await world.status(dependent) == .waiting)
      try await worker.say(try await worker.attempt(clone.id), .accepted, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(dependent) == .assigned)
    }
  }

  @Test("after an accepted cancel a success is a cancellation, and nothing is retried")
  func cancelWins() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let task = try await world.submit("x", retry: 3)
      try await world.settle()
      let attempt = try await worker.attempt(task)
      try await worker.say(attempt, .accepted, .running, .uploading)
      try await world.cancel(task)
      try await worker.say(attempt, .succeeded)
      let row = try await world.row(task)
      #expect(row.status == .canceled && row.next == nil && row.reason == "canceled")
    }
  }

  @Test("only what has ended can be retried, a success by force, and each attempt once")
  func retryRules() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let task = try await world.submit()
      await #expect(throws: CallError.self) { try await world.retry(task) }
      try await worker.say(try await worker.attempt(task), .accepted, .running, .uploading, .succeeded)
      await #expect(throws: CallError.self) { try await world.retry(task) }
      let clone = try await world.retry(task, force: true, budget: 2)
      #expect(try await world.row(clone).retry == 2)
      await #expect(throws: CallError.self) { try await world.retry(task, force: true) }
    }
  }

  @Test("a prerequisite that fails for good blocks, cancels or lets pass, as each dependent asked")
  func dependencyFailure() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 8)
      let task = try await world.submit()
      var accepting = WireNewTask.bare("a", after: [task])
      accepting.acceptFailure = true
      var canceling = WireNewTask.bare("b", after: [task])
      canceling.onDependencyFailure = .cancel
      let dependents = try await world.submit([accepting, canceling, .bare("c", after: [task])])
      let behind = try await world.submit([canceling, .bare("d", after: [dependents[1]])])
      try await worker.say(
        try await worker.attempt(task), .accepted, .running, .uploadingFailed, .failed, reason: .exitCode)
      try await world.settle()
      #expect(try await world.status(dependents[0]) == .assigned)
      #expect(try await world.status(dependents[1]) == .canceled)
      #expect(try await world.status(dependents[2]) == .waiting)
      #expect(try await world.status(behind[0]) == .canceled)
      #expect(try await world.status(behind[1]) == .waiting)
      // It moves on by itself when the prerequisite is retried and succeeds.
      let clone = try await world.retry(task)
      try await world.settle()
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(dependents[2]) == .assigned)
      // Who names the hidden attempt means the newest.
      let late = try await world.submit("late", after: [task])
      try await world.settle()
      #expect(try await world.status(late) == .assigned)
    }
  }

  @Test("a report that comes twice is taken in once")
  func twice() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let task = try await world.submit()
      try await world.settle()
      let attempt = try await worker.attempt(task)
      try await worker.say(attempt, .accepted)
      var report = WireReport()
      report.sequence = 1
      report.taskID = attempt.task.rawValue
      report.assignment = attempt.assignment
      report.status = "F"
      _ = try await worker.send([report])
      #expect(try await world.status(task) == .accepted)
    }
  }

  @Test("a deleted worker's credential is dead, and its tasks are others'")
  func deletion() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w")
      let task = try await world.submit()
      try await world.settle()
      let id = worker.id
      try await world.engine.ask { .deleteWorkers([id], undeployed: false, by: world.admin, $0) }
      #expect(try await world.status(task) == .pending)
      await #expect(throws: CallError.self) { try await worker.connect() }
    }
  }

  @Test(
    "after any history the counts equal a recount, the events tell the same story, and a restart loses nothing",
    arguments: 0..<30)
  func histories(round: Int) async throws {
    var random = Seeded(round)
    let directory = FilePath(NSTemporaryDirectory()).appending("scitq-history-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(atPath: directory.string) }
    let seed = "\(random) round \(round)"
    for life in 0..<3 {
      var draws = Seeded(round &* 31 &+ life)
      _ = random.next()
      let plan = (0..<60).map { _ in draws.next() }
      try await EngineWorld.run(at: directory, configure: noPatience) { world in
        try await History(world: world, plan: plan, life: life).play()
        try await check(world, seed)
      }
    }
  }

  private func check(_ world: EngineWorld, _ seed: String) async throws {
    try await world.settle()
    try await world.store.read { db in
      let kept = try String.fetchAll(
        db,
        sql: "SELECT step_id || status || hidden || ':' || count FROM task_count WHERE count > 0 ORDER BY 1")
      let counted = try String.fetchAll(
        db,
        sql: """
          SELECT coalesce(step_id, 0) || status || hidden || ':' || count(*) FROM task
          GROUP BY coalesce(step_id, 0), status, hidden ORDER BY 1
          """)
      #expect(kept == counted, "\(seed)")
      let keptJobs = try String.fetchAll(
        db, sql: "SELECT job_id || status || ':' || count FROM job_count WHERE count > 0 ORDER BY 1")
      let countedJobs = try String.fetchAll(
        db,
        sql: """
          SELECT job_id || status || ':' || count(*) FROM task WHERE job_id IS NOT NULL AND hidden = 0
          GROUP BY job_id, status ORDER BY 1
          """)
      #expect(keptJobs == countedJobs, "\(seed)")
      for (phase, from, to) in [
        ("upload", "run_ended_at", "ended_at"),
        ("run_succeeded", "run_started_at", "run_ended_at"),
      ] {
        let condition =
          phase == "upload" ? "status IN ('S', 'F')" : "status IN ('U', 'S')"
        let kept = try String.fetchAll(
          db,
          sql: "SELECT step_id || ':' || count || ':' || total FROM phase_count WHERE phase = ? ORDER BY 1",
          arguments: [phase])
        let counted = try String.fetchAll(
          db,
          sql: """
            SELECT step_id || ':' || count(*) || ':' || sum(\(to) - \(from) - \(phase == "upload" ? "0" : "suspended_for"))
            FROM task WHERE step_id IS NOT NULL AND \(from) IS NOT NULL AND \(condition) GROUP BY step_id ORDER BY 1
            """)
        if phase == "run_succeeded" {
          // Those that were lost while they uploaded had run well, too.
          #expect(kept.count >= counted.count, "\(phase), \(seed)")
        } else {
          #expect(kept == counted, "\(phase), \(seed)")
        }
      }
      // The newest event of each task says where it stands.
      let wrong = try Int64.fetchAll(
        db,
        sql: """
          SELECT task.id FROM task WHERE status <> (
            SELECT to_status FROM event
            WHERE object = 'task' AND first_id <= task.id AND last_id >= task.id AND length(to_status) = 1
            ORDER BY sequence DESC LIMIT 1)
          """)
      #expect(wrong.isEmpty, "events disagree on tasks \(wrong), \(seed)")
      // Nothing waits for nothing, and nobody is forgotten who waits for what is met.
      let idle = try Int64.fetchAll(
        db,
        sql: """
          SELECT id FROM task WHERE status = 'W' AND (unmet = 0 OR unmet <>
            (SELECT count(*) FROM dependency WHERE task_id = task.id AND met = 0))
            OR status = 'P' AND unmet <> 0
          """)
      #expect(idle.isEmpty, "unmet counters of \(idle), \(seed)")
      let held = try Int64.fetchAll(
        db,
        sql:
          "SELECT id FROM task WHERE (worker_id IS NULL) = (status IN ('A','C','D','O','R','U','V')) AND status NOT IN ('S','F','X','Z')"
      )
      #expect(held.isEmpty, "workers of \(held), \(seed)")
    }
  }
}

/// Random deeds of people and workers, some of them impossible.
private struct History {
  let world: EngineWorld
  let plan: [UInt64]
  let life: Int

  func play() async throws {
    var workers: [PlayedWorker] = []
    for number in 0..<3 { workers.append(try await world.join("w\(life)-\(number)", slots: 2, prefetch: 1)) }
    let flow = try await world.workflow("h\(life)", strategy: life == 1 ? "T" : "B")
    var steps: [Int64] = []
    for name in ["a", "b"] { steps.append(try await world.step(name, of: flow)) }
    try await world.serve(workers[0].id, step: steps[0], scope: "W")
    try await world.serve(workers[1].id, scope: "G")
    for draw in plan {
      let choice = Int(draw >> 8 & 0xFFFF)
      let most = try await world.store.read { db in
        try Int64.fetchOne(db, sql: "SELECT coalesce(max(id), 0) FROM task")!
      }
      let some = TaskID(Int64(choice) % max(1, most) + 1)
      switch draw % 16 {
      case 10: _ = try? await world.act(.suspend, some, release: choice % 3 == 0)
      case 11: _ = try? await world.act(.resume, some)
      case 12:
        var job = WireNewJob()
        job.task = .bare("j", after: most == 0 || choice % 2 == 0 ? [] : [some], retry: UInt32(choice % 2))
        if choice % 3 == 0 { job.task.stepID = steps[choice % 2] }
        job.size = Int64(choice % 4 + 1)
        job.sequential = choice % 5 == 0
        let id = try await world.submit(job: job)
        _ = try? await world.submit("after", after: [id])
      case 13:
        var task = WireNewTask.bare("s", after: most == 0 || choice % 2 == 0 ? [] : [some])
        task.stepID = steps[choice % 2]
        _ = try? await world.submit([task, task])
      case 14:
        let verbs: [WireFlowVerb] = [.suspend, .resume, .resume]
        if choice % 2 == 0 {
          _ = try? await world.act(verbs[choice % 3], onWorkflow: flow)
        } else {
          _ = try? await world.act(verbs[choice % 3], onStep: steps[choice % 2])
        }
      case 15:
        let verbs: [WireWorkerVerb] = [.pause, .resume, .drain, .resume]
        try await world.act(verbs[choice % 4], on: workers[choice % 3].id, running: choice % 8 < 4)
      case 0, 1: _ = try await world.submit("t", retry: UInt32(choice % 3))
      case 2:
        var task = WireNewTask.bare("d", after: most == 0 ? [] : [some], retry: UInt32(choice % 2))
        task.acceptFailure = choice % 3 == 0
        task.onDependencyFailure = choice % 5 == 0 ? .cancel : .wait
        _ = try await world.submit([task, .bare("e")])
      case 3: _ = try? await world.cancel(some)
      case 4: _ = try? await world.retry(some, force: choice % 2 == 0)
      case 5:
        try await workers[choice % 3].vanish()
        try await workers[choice % 3].connect()
      default:
        let index = choice % 3
        for (attempt, status) in try await workers[index].attempts().sorted(by: { $0.key.task < $1.key.task })
        {
          try await step(&workers[index], attempt, status, choice)
        }
      }
    }
  }

  private func step(
    _ worker: inout PlayedWorker, _ attempt: AttemptID, _ status: TaskStatus, _ choice: Int
  ) async throws {
    let row = try await world.row(attempt.task)
    if row.cancelRequested || row.suspendWish.contains(.release) {
      _ = try await worker.say(attempt, .canceled)
      return
    }
    switch status {
    case .running where !row.suspendWish.isEmpty && choice % 4 > 0: try await worker.say(attempt, .suspended)
    case .suspended where row.suspendWish.isEmpty: try await worker.say(attempt, .running)
    case .assigned: try await worker.say(attempt, .accepted)
    case .accepted: try await worker.say(attempt, choice % 2 == 0 ? .downloading : .running)
    case .downloading: try await worker.say(attempt, choice % 7 == 0 ? .failed : .onHold, reason: .network)
    case .onHold: try await worker.say(attempt, .running)
    case .running: try await worker.say(attempt, choice % 3 == 0 ? .uploadingFailed : .uploading)
    case .uploading: try await worker.say(attempt, choice % 11 == 0 ? .failed : .succeeded, reason: .upload)
    case .uploadingFailed: try await worker.say(attempt, .failed, reason: .exitCode)
    default: break
    }
  }
}

/// A generator that says its seed, and takes it back from SCITQ_SEED.
private struct Seeded: RandomNumberGenerator, CustomStringConvertible {
  private static let base =
    ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init)
    ?? UInt64.random(in: 0...UInt64.max)
  private var state: UInt64

  init(_ round: Int) { state = Self.base &+ UInt64(bitPattern: Int64(round)) &* 0x9E37_79B9_7F4A_7C15 }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  var description: String { "SCITQ_SEED=\(Self.base)" }
}
