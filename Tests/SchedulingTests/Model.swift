import Scheduling
import ScitqProtocol

/// Numbers that one seed makes, always the same.
struct Dice: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }

  mutating func pick<T>(_ values: [T]) -> T? { values.randomElement(using: &self) }
}

/// The cluster as one would write it without a thought for cost: plain lists, walked each time.
struct Model {
  struct Task {
    var entry: TaskEntry
    /// In the order in which they were named.
    var waitsFor: [TaskID]
    /// When its wait began: dependents are freed in this order.
    var serial: Int
  }

  var tasks: [TaskID: Task] = [:]
  var workers: [WorkerID: WorkerEntry] = [:]
  /// How tasks that have ended did so for good.
  var settled: [TaskID: TaskStatus] = [:]

  // MARK: Room

  func load(_ worker: WorkerID) -> Int64 {
    tasks.values.reduce(0) { sum, task in
      let holds = "ACDORZ".contains(task.entry.status.rawValue) && task.entry.worker == worker
      return sum + (holds ? Int64(task.entry.weightMilli) : 0)
    }
  }

  func eligible(_ task: TaskEntry) -> [WorkerEntry] {
    let able = workers.values.filter { worker in
      worker.isConnected && !worker.isDraining && !worker.isPaused
        && worker.serves == (task.step.map(Serving.step) ?? .loose)
        && worker.capacity.cpuMilli >= task.needs.cpuMilli
        && worker.capacity.memoryMiB >= task.needs.memoryMiB
        && worker.capacity.diskMiB >= task.needs.diskMiB && worker.capacity.gpu >= task.needs.gpu
        && Int(worker.concurrency) * 1000 >= Int(task.weightMilli)
    }
    let preferred = able.filter { $0.id != task.avoid }
    return preferred.isEmpty ? able : preferred
  }

  func fits(_ task: TaskEntry, _ worker: WorkerEntry, slotsOnly: Bool = false) -> Bool {
    let room = max(0, Int64(worker.concurrency + worker.prefetch - worker.reducedRoom))
    let slots = slotsOnly ? min(room, Int64(worker.concurrency)) : room
    return load(worker.id) + Int64(task.weightMilli) <= slots * 1000
  }

  /// Smaller is better.
  private func rank(_ task: TaskEntry, _ worker: WorkerEntry) -> [Int64] {
    let host = worker.capacity
    return [
      fits(task, worker, slotsOnly: true) ? 0 : 1, Int64(host.gpu), Int64(host.memoryMiB),
      Int64(host.cpuMilli), Int64(host.diskMiB), Int64(worker.concurrency), Int64(worker.prefetch),
      Int64(worker.reducedRoom), load(worker.id), worker.id.rawValue,
    ]
  }

  // MARK: Decisions

  var queue: [TaskEntry] {
    tasks.values.map(\.entry).filter { $0.status == .pending && !$0.cancelWished }
      .sorted { a, b in
        (-Int64(a.priority), a.order, a.id.rawValue) < (-Int64(b.priority), b.order, b.id.rawValue)
      }
  }

  mutating func assign(limit: Int) -> [Assignment] {
    var made: [Assignment] = []
    for task in queue where made.count < limit {
      let open = eligible(task).filter { fits(task, $0) }
      guard let worker = open.min(by: { rank(task, $0).lexicographicallyPrecedes(rank(task, $1)) }) else {
        continue
      }
      tasks[task.id]?.entry.status = .assigned
      tasks[task.id]?.entry.worker = worker.id
      tasks[task.id]?.entry.assignment += 1
      made.append(Assignment(task: task.id, worker: worker.id, number: task.assignment + 1))
    }
    return made
  }

  /// Whether the cluster should make this move, and makes it.
  mutating func move(_ id: TaskID, to: TaskStatus, by actor: Actor) -> Bool {
    guard var task = tasks[id]?.entry else { return false }
    guard LifecycleTests.legal[actor]?.contains(task.status.rawValue + to.rawValue) == true else {
      return false
    }
    switch to {
    case .assigned: return false
    case .waiting: if task.worker != nil || task.unmet == 0 { return false }
    case .pending:
      if task.unmet > 0 || task.status == .suspended && task.worker != nil { return false }
      task.worker = nil
    case .running: if task.worker == nil { return false }
    case .canceled: if actor == .worker && (task.worker == nil || !task.cancelWished) { return false }
    default: break
    }
    task.status = to
    tasks[id]?.entry = task
    if to.isFinal { tasks[id] = nil }
    return true
  }

  /// Those that were freed, those to cancel, and all that changed.
  mutating func settle(_ id: TaskID, _ outcome: TaskStatus) -> ([TaskID], [TaskID], [TaskID]) {
    settled[id] = outcome
    var freed: [TaskID] = []
    var toCancel: [TaskID] = []
    var changed: [TaskID] = []
    for task in tasks.values.sorted(by: { $0.serial < $1.serial }) where task.waitsFor.contains(id) {
      var task = task
      if outcome == .succeeded || outcome == .failed && task.entry.acceptFailure {
        task.waitsFor.removeAll { $0 == id }
        task.entry.unmet = Int32(task.waitsFor.count)
        changed.append(task.entry.id)
        if task.waitsFor.isEmpty, task.entry.status == .waiting {
          task.entry.status = .pending
          freed.append(task.entry.id)
        }
        tasks[task.entry.id] = task
      } else if task.entry.cancelsWithPrerequisite {
        toCancel.append(task.entry.id)
      }
    }
    return (freed, toCancel, changed)
  }

  mutating func replace(_ old: TaskID, with clone: TaskID) {
    tasks = tasks.mapValues { task in
      var task = task
      task.waitsFor = task.waitsFor.map { $0 == old ? clone : $0 }
      return task
    }
  }
}
