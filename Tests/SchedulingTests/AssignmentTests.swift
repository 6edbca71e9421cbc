import Scheduling
import ScitqProtocol
import Testing

private let host = Needs(cpuMilli: 8000, memoryMiB: 16 * 1024, diskMiB: 100 * 1024)

extension Cluster {
  fileprivate mutating func submit(
    _ id: Int64, priority: Int32 = 0, weight: Int32 = 1000, needs: Needs = Needs()
  ) {
    add(TaskEntry(id: TaskID(id), priority: priority, weightMilli: weight, needs: needs, order: id))
  }

  fileprivate mutating func report(_ id: TaskID, _ statuses: TaskStatus...) throws {
    for status in statuses { try move(id, to: status, by: .worker) }
  }

  fileprivate mutating func assignAll() -> [Int64: Int64] {
    Dictionary(
      uniqueKeysWithValues: assign(limit: .max).map { ($0.task.rawValue, $0.worker.rawValue) })
  }
}

@Suite("Which task goes to which worker")
struct AssignmentTests {
  @Test("a worker takes as much weight as its concurrency and prefetch")
  func room() {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, concurrency: 2, prefetch: 1, capacity: host))
    for id in 1...4 { cluster.submit(Int64(id), weight: id == 1 ? 1500 : 500) }
    #expect(cluster.assign(limit: .max).map(\.task) == [1, 2, 3, 4])
    cluster.submit(5, weight: 1)
    #expect(cluster.assign(limit: .max).isEmpty)
  }

  @Test("uploads hold no room")
  func uploads() throws {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, capacity: host))
    cluster.submit(1)
    cluster.submit(2)
    #expect(cluster.assignAll() == [1: 1])
    try cluster.report(1, .accepted, .running)
    #expect(cluster.assignAll().isEmpty)
    try cluster.report(1, .uploading)
    #expect(cluster.assignAll() == [2: 1])
    #expect(cluster.tasks(on: 1) == [1, 2])
  }

  @Test("a free slot of a big host comes before the prefetch of a small one, and small hosts come first")
  func slotsBeforePrefetch() {
    var cluster = Cluster()
    var big = host
    big.memoryMiB *= 4
    cluster.set(WorkerEntry(id: 1, concurrency: 1, prefetch: 1, capacity: big))
    cluster.set(WorkerEntry(id: 2, concurrency: 1, prefetch: 1, capacity: host))
    for id in 1...4 { cluster.submit(Int64(id)) }
    #expect(cluster.assignAll() == [1: 2, 2: 1, 3: 2, 4: 1])
  }

  @Test("equal workers are filled evenly")
  func spread() {
    var cluster = Cluster()
    for id in 1...3 { cluster.set(WorkerEntry(id: WorkerID(Int64(id)), concurrency: 2, capacity: host)) }
    for id in 1...4 { cluster.submit(Int64(id)) }
    #expect(cluster.assignAll() == [1: 1, 2: 2, 3: 3, 4: 1])
  }

  @Test("a task that fits nowhere holds up nobody, and goes when it fits")
  func passedOver() {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, concurrency: 2, capacity: host))
    cluster.submit(1, priority: 9, needs: Needs(memoryMiB: 64 * 1024))
    cluster.submit(2)
    #expect(cluster.assignAll() == [2: 1])
    #expect(
      cluster.explain(task: 1)?.description == "1 worker is connected and it does not have 64 GB of memory")
    cluster.set(WorkerEntry(id: 2, capacity: Needs(memoryMiB: 64 * 1024)))
    #expect(cluster.assignAll() == [1: 2])
  }

  @Test("a clone avoids the worker on which its predecessor failed, unless there is no other")
  func avoids() {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, capacity: host))
    cluster.set(WorkerEntry(id: 2, capacity: host))
    cluster.add(TaskEntry(id: 1, priority: 1, order: 1, avoid: 2))
    cluster.add(TaskEntry(id: 2, order: 2, avoid: 1))
    cluster.add(TaskEntry(id: 3, order: 3, avoid: 2))
    #expect(cluster.assignAll() == [1: 1, 2: 2])
    // Task 3 waits for worker 1, full as it is, also when worker 2 has room.
    cluster.wishCancel(2)
    #expect(throws: Never.self) { try cluster.move(2, to: .canceled, by: .worker) }
    #expect(cluster.assignAll().isEmpty)
    #expect(
      cluster.explain(task: 3)?.description
        == "the one worker that could take it is full; it is number 1 in the queue")
    guard var gone = cluster.worker(1) else { return }
    gone.isDraining = true
    cluster.set(gone)
    #expect(cluster.assignAll() == [3: 2])
  }

  @Test("of equal workers the emptiest but the avoided one is taken")
  func avoidsAmongEquals() {
    var cluster = Cluster()
    for id in 1...7 { cluster.set(WorkerEntry(id: WorkerID(Int64(id)), concurrency: 4, capacity: host)) }
    for id in 1...7 { cluster.submit(Int64(id), weight: Int32(8 - id) * 100) }
    #expect(cluster.assignAll() == [1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7])
    for id in 8...10 { cluster.add(TaskEntry(id: TaskID(Int64(id)), order: Int64(id), avoid: 7)) }
    #expect(cluster.assignAll() == [8: 6, 9: 5, 10: 4])
  }

  @Test("a worker serves one step, and one without a step serves tasks without")
  func steps() {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, serves: .step(4), capacity: host))
    cluster.set(WorkerEntry(id: 2, capacity: host))
    cluster.submit(1)
    cluster.submit(2)
    cluster.add(TaskEntry(id: 3, step: 4, order: 3))
    cluster.add(TaskEntry(id: 4, step: 5, order: 4))
    #expect(cluster.assignAll() == [1: 2, 3: 1])
    #expect(
      cluster.explain(task: 4)?.description
        == "no worker serves step 5; the 2 that are connected serve other steps")
  }

  @Test("a reduced worker has less room and gets it back")
  func reduced() {
    var cluster = Cluster()
    var worker = WorkerEntry(id: 1, concurrency: 2, capacity: host, reducedRoom: 2)
    cluster.set(worker)
    cluster.submit(1)
    #expect(cluster.assignAll().isEmpty)
    #expect(
      cluster.explain(worker: 1)
        == "it is short of disk or throttled and takes nothing for now; it has no task")
    worker.reducedRoom = 1
    cluster.set(worker)
    cluster.submit(2)
    #expect(cluster.assignAll() == [1: 1])
  }

  @Test("a task that goes back keeps its place and gets a higher assignment number")
  func requeued() throws {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, capacity: host))
    cluster.submit(1)
    cluster.submit(2)
    #expect(cluster.assign(limit: 1).map(\.attempt) == [AttemptID(task: 1, assignment: 1)])
    try cluster.move(1, to: .pending, by: .server)
    #expect(cluster.task(1)?.worker == nil)
    #expect(cluster.assign(limit: 5).map(\.attempt) == [AttemptID(task: 1, assignment: 2)])
  }
}

@Suite("What waits for what")
struct DependencyTests {
  private func waiting(_ id: Int64, unmet: Int32 = 1, accepts: Bool = false, cancels: Bool = false)
    -> TaskEntry
  {
    TaskEntry(
      id: TaskID(id), status: .waiting, order: id, unmet: unmet, acceptFailure: accepts,
      cancelsWithPrerequisite: cancels)
  }

  @Test("success frees all that waits, in the order in which it was added")
  func success() throws {
    var cluster = Cluster()
    cluster.submit(1)
    cluster.submit(2)
    cluster.add(waiting(3), waitingFor: [1])
    cluster.add(waiting(4, unmet: 2), waitingFor: [1, 2])
    cluster.add(waiting(5), waitingFor: [1])
    try cluster.move(1, to: .canceled, by: .person)
    let settlement = cluster.settle(1, outcome: .succeeded)
    #expect(settlement.freed == [3, 5])
    #expect(settlement.changed == [3, 4, 5])
    #expect(cluster.task(4)?.unmet == 1)
    #expect(cluster.explain(task: 4)?.description == "waiting for task 2, which is pending")
  }

  @Test(
    "failure frees what accepts it, names what is to be canceled, and blocks the rest until a retry"
  )
  func failure() throws {
    var cluster = Cluster()
    cluster.set(WorkerEntry(id: 1, capacity: host))
    cluster.submit(1)
    cluster.add(waiting(2), waitingFor: [1])
    cluster.add(waiting(3, accepts: true), waitingFor: [1])
    cluster.add(waiting(4, cancels: true), waitingFor: [1])
    #expect(cluster.assignAll() == [1: 1])
    try cluster.report(1, .accepted, .failed)
    let settlement = cluster.settle(1, outcome: .failed)
    #expect(settlement.freed == [3])
    #expect(settlement.toCancel == [4])
    #expect(cluster.explain(task: 2)?.description == "waiting for task 1, which failed")

    cluster.replace(1, with: TaskEntry(id: 9, priority: 1, order: 1))
    #expect(cluster.dependents(of: 9) == [2, 4])
    #expect(cluster.explain(task: 2)?.description == "waiting for task 9, which is pending")
    #expect(cluster.assignAll() == [9: 1])
    try cluster.report(9, .accepted, .running, .uploading, .succeeded)
    #expect(cluster.settle(9, outcome: .succeeded).freed == [2, 4])
  }

  @Test("what waits for a clone before it is there is kept beside what it takes over")
  func namedAhead() throws {
    var cluster = Cluster()
    for id in 10...12 { cluster.add(waiting(Int64(id)), waitingFor: [1]) }
    for id in 13...14 { cluster.add(waiting(Int64(id)), waitingFor: [2]) }
    cluster.replace(1, with: TaskEntry(id: 2, order: 1))
    #expect(cluster.dependents(of: 2) == [13, 14, 10, 11, 12])
    for id: TaskID in [10, 14, 12] { try cluster.move(id, to: .canceled, by: .person) }
    #expect(cluster.dependents(of: 2) == [13, 11])
    try cluster.move(2, to: .canceled, by: .person)
    #expect(cluster.settle(2, outcome: .succeeded).freed == [13, 11])
  }

  @Test("a task that is canceled while it waits is forgotten by what it waited for")
  func canceled() throws {
    var cluster = Cluster()
    cluster.submit(1)
    cluster.add(waiting(2), waitingFor: [1])
    try cluster.move(2, to: .canceled, by: .person)
    #expect(cluster.dependents(of: 1).isEmpty)
    try cluster.move(1, to: .canceled, by: .person)
    #expect(cluster.settle(1, outcome: .succeeded).freed.isEmpty)
  }

  @Test("a wide fan-out and fan-in end with the last that ends")
  func fans() throws {
    var cluster = Cluster()
    let count: Int64 = 20_000
    cluster.submit(1)
    for id in 2...count { cluster.add(waiting(id), waitingFor: [1]) }
    cluster.add(waiting(count + 1, unmet: Int32(count - 1)), waitingFor: (2...count).map { TaskID($0) })
    try cluster.move(1, to: .canceled, by: .person)
    #expect(cluster.settle(1, outcome: .succeeded).freed.count == Int(count) - 1)
    for id in 2...count {
      try cluster.move(TaskID(id), to: .canceled, by: .person)
      let freed = cluster.settle(TaskID(id), outcome: .succeeded).freed
      #expect(freed == (id == count ? [TaskID(count + 1)] : []))
    }
    #expect(cluster.taskCount == 1)
  }
}

@Suite("Why nothing happens")
struct ExplanationTests {
  @Test("each standing has its sentence")
  func sentences() throws {
    var cluster = Cluster()
    #expect(cluster.explain(task: 1) == nil)
    cluster.submit(1)
    #expect(cluster.explain(task: 1)?.description == "no worker is connected")
    for id in 1...3 { cluster.set(WorkerEntry(id: WorkerID(Int64(id)), capacity: host)) }
    cluster.submit(2, needs: Needs(cpuMilli: 16000, memoryMiB: 64 * 1024))
    cluster.submit(3, weight: 2000)
    for id in 4...7 { cluster.submit(Int64(id)) }
    #expect(cluster.explain(task: 1)?.description == "a worker has room for it; it is number 1 in the queue")
    #expect(cluster.explain(worker: 1) == "it is about to be given task 1; it has no task")
    #expect(cluster.assignAll() == [1: 1, 4: 2, 5: 3])
    #expect(
      cluster.explain(task: 2)?.description
        == "3 workers are connected and none has 16 cpus and 64 GB of memory")
    #expect(
      cluster.explain(task: 3)?.description == "3 workers are connected and none has a concurrency of 2")
    #expect(
      cluster.explain(task: 7)?.description
        == "all 3 workers that could take it are full; it is number 4 in the queue")
    #expect(cluster.explain(worker: 2) == "it is full; it has 1 task, and 4 tasks without a step are pending")
    #expect(
      cluster.explain(task: 4)?.description == "assigned to worker 2, which has not acknowledged yet")
    try cluster.report(4, .accepted, .running)
    #expect(cluster.explain(task: 4)?.description == "running on worker 2")
    cluster.wishCancel(4)
    #expect(
      cluster.explain(task: 4)?.description
        == "being canceled: worker 2 has not confirmed the end yet")
    for id in 1...3 {
      guard var worker = cluster.worker(WorkerID(Int64(id))) else { continue }
      worker.isDraining = true
      cluster.set(worker)
    }
    #expect(
      cluster.explain(task: 7)?.description == "3 workers are connected and each is paused or draining")
    #expect(cluster.explain(worker: 3) == "it is draining and takes no more; it has 1 task")
    #expect(cluster.explain(worker: 8) == "worker 8 does not exist")
  }

  @Test("a move that is refused says what stands against it")
  func refused() {
    var cluster = Cluster()
    cluster.submit(1)
    #expect(
      throws: IllegalMove(task: 1, from: .pending, to: .assigned, actor: .server, cause: .onlyByAssignment)
    ) {
      try cluster.move(1, to: .assigned, by: .server)
    }
    #expect(throws: IllegalMove(task: 7, from: nil, to: .failed, actor: .server, cause: .unknownTask)) {
      try cluster.move(7, to: .failed, by: .server)
    }
    let error = IllegalMove(task: 1, from: .pending, to: .running, actor: .worker, cause: .lifecycle)
    #expect(error.description == "task 1 cannot go from pending (P) to running (R) at the word of a worker")
  }
}
