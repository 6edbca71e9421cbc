import Scheduling
import ScitqProtocol
import Testing

private let host = Needs(cpuMilli: 8000, memoryMiB: 16 * 1024, diskMiB: 100 * 1024)

extension Cluster {
  fileprivate mutating func report(_ id: TaskID, _ statuses: TaskStatus...) throws {
    for status in statuses { try move(id, to: status, by: .worker) }
  }

  fileprivate mutating func assignAll() -> [Int64: Int64] {
    Dictionary(
      uniqueKeysWithValues: assign(limit: .max).map { ($0.task.rawValue, $0.worker.rawValue) })
  }
}

@Suite("Shares, strategies and limits")
struct ShareTests {
  /// Two workflows of 1,000 tasks, of two users; how many of the first `count` starts are the first one's.
  private func starts(
    _ first: (user: Int32, workflow: Int32), _ second: (user: Int32, workflow: Int32), of count: Int
  )
    throws -> Int
  {
    var cluster = Cluster()
    for (index, weights) in [first, second].enumerated() {
      let id = Int64(index + 1)
      cluster.set(UserEntry(id: UserID(id), weightMilli: weights.user))
      cluster.set(WorkflowEntry(id: WorkflowID(id), owner: UserID(id), weightMilli: weights.workflow))
      cluster.set(StepEntry(id: StepID(id), workflow: WorkflowID(id)))
    }
    cluster.set(WorkerEntry(id: 1, serves: .everything, concurrency: 4, capacity: host))
    for id in 1...2000 {
      cluster.add(TaskEntry(id: TaskID(Int64(id)), step: id <= 1000 ? 1 : 2, order: Int64(id)))
    }
    var mine = 0
    var started = 0
    while started < count {
      for one in cluster.assign(limit: count - started) {
        started += 1
        if one.task.rawValue <= 1000 { mine += 1 }
        try cluster.report(one.task, .accepted, .running, .uploading, .succeeded)
      }
    }
    return mine
  }

  @Test("starts are shared by weight, be it the users' or their workflows'")
  func weights() throws {
    #expect(abs(try starts((1000, 3000), (1000, 1000), of: 400) - 300) <= 20)
    #expect(abs(try starts((3000, 1000), (1000, 1000), of: 400) - 300) <= 20)
    #expect(abs(try starts((1000, 1000), (1000, 1000), of: 400) - 200) <= 20)
  }

  @Test("a user with ten workflows has no ten shares")
  func users() throws {
    var cluster = Cluster()
    for id in 1...11 as ClosedRange<Int64> {
      cluster.set(WorkflowEntry(id: WorkflowID(id), owner: id == 11 ? 2 : 1))
      cluster.set(StepEntry(id: StepID(id), workflow: WorkflowID(id)))
      for number in 0..<200 {
        cluster.add(TaskEntry(id: TaskID(id * 1000 + Int64(number)), step: StepID(id), order: id * 1000))
      }
    }
    cluster.set(WorkerEntry(id: 1, serves: .everything, concurrency: 100, capacity: host))
    let others = cluster.assign(limit: .max).filter { $0.task.rawValue / 1000 == 11 }
    #expect(others.count == 50)
  }

  @Test("idle time is not saved up")
  func idle() throws {
    var cluster = Cluster()
    for id in 1...2 as ClosedRange<Int64> { cluster.set(UserEntry(id: UserID(id))) }
    cluster.set(WorkerEntry(id: 1, concurrency: 1000, capacity: host))
    for id in 1...500 as ClosedRange<Int64> { cluster.add(TaskEntry(id: TaskID(id), owner: 1, order: id)) }
    #expect(cluster.assign(limit: .max).count == 500)
    for id in 501...700 as ClosedRange<Int64> {
      cluster.add(TaskEntry(id: TaskID(id), owner: id % 2 == 0 ? 1 : 2, order: id))
    }
    // The second had nothing to do until now, and has no right to the next 500 starts for that.
    #expect(cluster.assign(limit: 20).filter { $0.task.rawValue % 2 == 0 }.count == 10)
  }

  /// A diamond of four steps with `threads` threads; the order in which tasks start, as step and thread, on two workers
  /// of four slots that do one thing after the other.
  private func diamond(_ strategy: RunStrategy, threads: Int64) throws -> [(
    step: Int64, thread: Int64, worker: WorkerID
  )] {
    var cluster = Cluster()
    cluster.set(WorkflowEntry(id: 1, owner: 1, strategy: strategy))
    for step in 1...4 as ClosedRange<Int64> { cluster.set(StepEntry(id: StepID(step), workflow: 1)) }
    for worker in 1...2 as ClosedRange<Int64> {
      cluster.set(WorkerEntry(id: WorkerID(worker), serves: .workflow(1), concurrency: 4, capacity: host))
    }
    func id(_ step: Int64, _ thread: Int64) -> TaskID { TaskID(step * 10_000 + thread) }
    for thread in 1...threads {
      for (step, after) in [(1, []), (2, [1]), (3, [1]), (4, [2, 3])] as [(Int64, [Int64])] {
        cluster.add(
          TaskEntry(
            id: id(step, thread), step: StepID(step), status: after.isEmpty ? .pending : .waiting,
            order: strategy == .thread ? id(1, thread).rawValue : id(step, thread).rawValue,
            unmet: Int32(after.count)),
          waitingFor: after.map { id($0, thread) })
      }
    }
    var starts: [(step: Int64, thread: Int64, worker: WorkerID)] = []
    var running: [Assignment] = []
    while cluster.taskCount > 0 {
      let made = cluster.assign(limit: .max)
      running += made
      starts += made.map { ($0.task.rawValue / 10_000, $0.task.rawValue % 10_000, $0.worker) }
      guard !running.isEmpty else { break }
      let done = running.removeFirst()
      try cluster.report(done.task, .accepted, .running, .uploading, .succeeded)
      _ = cluster.settle(done.task, outcome: .succeeded, on: done.worker)
    }
    #expect(cluster.taskCount == 0)
    return starts
  }

  @Test(
    "batch-wise finishes a step before the next; thread-wise drives each thread deep, on the worker with its data"
  )
  func strategies() throws {
    let batch = try diamond(.batch, threads: 500)
    // Nothing of the fourth step goes before the last of the first.
    let lastOfFirst = try #require(batch.lastIndex { $0.step == 1 })
    #expect(!batch[..<lastOfFirst].contains { $0.step == 4 })

    let thread = try diamond(.thread, threads: 500)
    let end = try #require(thread.firstIndex { $0.step == 4 })
    #expect(thread[..<end].filter { $0.step == 2 }.count < 125)
    let homes = Dictionary(grouping: thread, by: \.thread).mapValues { Set($0.map(\.worker)).count }
    #expect(
      homes.values.filter { $0 == 1 }.count > 450,
      "threads on one worker: \(homes.values.filter { $0 == 1 }.count)")
  }

  @Test("a task waits for the worker with its data, and goes to another that would be idle")
  func preference() throws {
    var cluster = Cluster()
    cluster.set(WorkflowEntry(id: 1, owner: 1, strategy: .thread))
    cluster.set(StepEntry(id: 1, workflow: 1))
    for id in 1...2 as ClosedRange<Int64> {
      cluster.set(WorkerEntry(id: WorkerID(id), serves: .workflow(1), concurrency: 1, capacity: host))
    }
    cluster.add(TaskEntry(id: 1, step: 1, order: 1))
    cluster.add(TaskEntry(id: 2, step: 1, order: 2))
    cluster.add(TaskEntry(id: 3, step: 1, order: 1, prefer: 1))
    cluster.add(TaskEntry(id: 4, step: 1, order: 4))
    // Worker 1 takes 1; task 3 waits for it, and 2 has the other.
    #expect(cluster.assign(limit: 1).map(\.task) == [1])
    #expect(cluster.assignAll() == [2: 2])
    #expect(
      cluster.explain(task: 3)?.description
        == "waiting for room on worker 1, which holds what it reads; it is number 1 in the queue")
    // Another is free: what has no home goes first.
    try cluster.report(2, .accepted, .running, .uploading, .succeeded)
    #expect(cluster.assignAll() == [4: 2])
    try cluster.report(4, .accepted, .running, .uploading, .succeeded)
    // Nothing else is left, so that it would stand idle.
    #expect(cluster.assignAll() == [3: 2])
  }

  @Test("a user's limits hold, and are said")
  func limits() throws {
    var cluster = Cluster()
    cluster.set(UserEntry(id: 1, maximumRunning: 2))
    cluster.set(UserEntry(id: 2, maximumCPUMilli: 3000))
    cluster.set(WorkerEntry(id: 1, concurrency: 10, capacity: host))
    for id in 1...4 as ClosedRange<Int64> { cluster.add(TaskEntry(id: TaskID(id), owner: 1, order: id)) }
    for id in 5...8 as ClosedRange<Int64> {
      cluster.add(TaskEntry(id: TaskID(id), owner: 2, needs: Needs(cpuMilli: 2000), order: id))
    }
    #expect(Set(cluster.assignAll().keys) == [1, 2, 5])
    #expect(cluster.explain(task: 3)?.description == "its user has 2 tasks on workers, and may have 2")
    #expect(cluster.explain(task: 6)?.description == "its user has 2 cpus on workers, and may have 3")
    try cluster.report(1, .accepted, .running, .uploading)
    #expect(cluster.assignAll() == [3: 1])
    cluster.set(UserEntry(id: 2))
    #expect(Set(cluster.assignAll().keys) == [6, 7, 8])
  }

  @Test("a workflow or step that is suspended keeps its tasks back, and says so")
  func held() {
    var cluster = Cluster()
    cluster.set(WorkflowEntry(id: 1, owner: 1, isHeld: true))
    cluster.set(StepEntry(id: 1, workflow: 1))
    cluster.set(WorkerEntry(id: 1, serves: .step(1), concurrency: 9, capacity: host))
    cluster.add(TaskEntry(id: 1, step: 1, order: 1))
    cluster.add(TaskEntry(id: 2, step: 1, order: 2, isHeld: true))
    #expect(cluster.assignAll().isEmpty)
    #expect(cluster.explain(task: 1)?.description == "its workflow is suspended")
    cluster.set(WorkflowEntry(id: 1, owner: 1))
    cluster.set(StepEntry(id: 1, workflow: 1, isHeld: true))
    #expect(cluster.assignAll().isEmpty)
    #expect(cluster.explain(task: 1)?.description == "its step 1 is suspended")
    cluster.set(StepEntry(id: 1, workflow: 1))
    #expect(cluster.assignAll() == [1: 1])
    cluster.hold(2, false)
    #expect(cluster.assignAll() == [2: 1])
  }
}
