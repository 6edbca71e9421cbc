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
  var workflows: [WorkflowID: WorkflowEntry] = [:]
  var steps: [StepID: StepEntry] = [:]
  var users: [UserID: UserEntry] = [:]
  /// How tasks that have ended did so for good.
  var settled: [TaskID: TaskStatus] = [:]

  // MARK: Room

  func load(_ worker: WorkerID) -> Int64 {
    tasks.values.reduce(0) { sum, task in
      let holds = "ACDORZ".contains(task.entry.status.rawValue) && task.entry.worker == worker
      return sum + (holds ? Int64(task.entry.weightMilli) : 0)
    }
  }

  /// Who may be given a task's step, those that serve nothing else first.
  func servings(_ task: TaskEntry) -> [Serving] {
    guard let step = task.step else { return [.loose, .everything] }
    return [.step(step)] + (steps[step].map { [.workflow($0.workflow)] } ?? []) + [.everything]
  }

  func eligible(_ task: TaskEntry) -> [WorkerEntry] {
    let able = workers.values.filter { worker in
      worker.isConnected && !worker.isDraining && !worker.isPaused && servings(task).contains(worker.serves)
        && worker.capacity.cpuMilli >= task.needs.cpuMilli
        && worker.capacity.memoryMiB >= task.needs.memoryMiB
        && worker.capacity.diskMiB >= task.needs.diskMiB && worker.capacity.gpu >= task.needs.gpu
        && Int(worker.concurrency) * 1000 >= Int(task.weightMilli)
    }
    let preferred = able.filter { $0.id != task.avoid }
    return preferred.isEmpty ? able : preferred
  }

  /// The worker that holds what a task reads, if it could take it.
  func home(_ task: TaskEntry) -> WorkerEntry? {
    task.prefer.flatMap { home in eligible(task).first { $0.id == home && home != task.avoid } }
  }

  // MARK: Shares and limits

  /// Whose share a task is taken from.
  func owner(_ task: TaskEntry) -> UserID {
    task.step.flatMap { steps[$0] }.flatMap { workflows[$0.workflow] }?.owner ?? task.owner
  }

  func usage(_ user: UserID) -> (running: Int32, cpu: Int64) {
    tasks.values.map(\.entry).reduce((0, 0)) { sum, task in
      guard "ACDORZ".contains(task.status.rawValue), task.worker != nil, owner(task) == user else {
        return sum
      }
      return (sum.0 + 1, sum.1 + Int64(task.needs.cpuMilli))
    }
  }

  func allows(_ task: TaskEntry) -> Bool {
    guard let user = users[owner(task)] else { return true }
    let used = usage(user.id)
    if let most = user.maximumRunning, used.running >= most { return false }
    if let most = user.maximumCPUMilli, used.cpu + Int64(task.needs.cpuMilli) > most { return false }
    return true
  }

  func isHeld(_ task: TaskEntry) -> Bool {
    let step = task.step.flatMap { steps[$0] }
    return task.isHeld || step?.isHeld == true || step.flatMap { workflows[$0.workflow] }?.isHeld == true
  }

  func fits(_ task: TaskEntry, _ worker: WorkerEntry, slotsOnly: Bool = false) -> Bool {
    let room = max(0, Int64(worker.concurrency + worker.prefetch - worker.reducedRoom))
    let slots = slotsOnly ? min(room, Int64(worker.concurrency)) : room
    return load(worker.id) + Int64(task.weightMilli) <= slots * 1000
  }

  /// Smaller is better.
  private func rank(_ task: TaskEntry, _ worker: WorkerEntry) -> [Int64] {
    let host = worker.capacity
    let crew = servings(task).firstIndex(of: worker.serves) ?? 9
    return [
      fits(task, worker, slotsOnly: true) ? 0 : 1, Int64(crew), Int64(host.gpu), Int64(host.memoryMiB),
      Int64(host.cpuMilli), Int64(host.diskMiB), Int64(worker.concurrency), Int64(worker.prefetch),
      Int64(worker.reducedRoom), load(worker.id), worker.id.rawValue,
    ]
  }

  // MARK: Decisions

  /// What may be assigned, as far as it is not a matter of workers and limits.
  var queue: [TaskEntry] {
    tasks.values.map(\.entry).filter { $0.status == .pending && !$0.cancelWished && !isHeld($0) }
      .sorted { a, b in
        (-Int64(a.priority), a.order, a.id.rawValue) < (-Int64(b.priority), b.order, b.id.rawValue)
      }
  }

  /// The worker a task goes to now. `isComfort`: nothing else wants a free slot.
  func best(_ task: TaskEntry, isComfort: Bool) -> WorkerEntry? {
    if let home = home(task) {
      if fits(task, home) { return home }
      guard isComfort else { return nil }
    }
    return eligible(task).filter { fits(task, $0, slotsOnly: home(task) != nil) }
      .min { rank(task, $0).lexicographicallyPrecedes(rank(task, $1)) }
  }

  /// Takes over what the cluster has assigned, one by one: each must have been the right worker at that moment.
  mutating func replay(_ made: [Assignment]) throws {
    for one in made {
      guard let task = tasks[one.task]?.entry, task.status == .pending, !task.cancelWished, !isHeld(task)
      else {
        throw Broken(description: "task \(one.task) was not to be assigned")
      }
      try hold(allows(task), "task \(one.task) passes its user's limits")
      let isAway = home(task).map { !fits(task, $0) } ?? false
      let right = best(task, isComfort: isAway)?.id
      try hold(
        right == one.worker,
        "task \(one.task) went to worker \(one.worker), not \(right.map(\.description) ?? "none")")
      if isAway {
        // Nobody else wanted that slot.
        for other in queue where other.id != task.id && allows(other) && home(other) == nil {
          let wants = eligible(other).contains { $0.id == one.worker && fits(other, $0) }
          try hold(!wants, "task \(one.task) left its worker for a slot that task \(other.id) wanted")
        }
      }
      tasks[task.id]?.entry.status = .assigned
      tasks[task.id]?.entry.worker = one.worker
      tasks[task.id]?.entry.assignment += 1
      try hold(one.number == task.assignment + 1, "the assignment number of task \(one.task) is wrong")
    }
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
    case .suspended:
      if actor == .worker ? !task.suspendWished : task.worker != nil { return false }
    case .failed: if task.status == .suspended && task.worker == nil { return false }
    case .canceled: if actor == .worker && (task.worker == nil || !task.cancelWished) { return false }
    default: break
    }
    task.status = to
    tasks[id]?.entry = task
    if to.isFinal { tasks[id] = nil }
    return true
  }

  /// Those that were freed, those to cancel, and all that changed.
  mutating func settle(
    _ id: TaskID, _ outcome: TaskStatus, on worker: WorkerID?
  ) -> ([TaskID], [TaskID], [TaskID]) {
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
        let strategy = task.entry.step.flatMap { steps[$0] }.flatMap { workflows[$0.workflow] }?.strategy
        if task.waitsFor.isEmpty, outcome == .succeeded, strategy == .thread, let worker,
          task.entry.avoid != worker
        {
          task.entry.prefer = worker
        }
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
