import Foundation
import Scheduling
import ScitqProtocol
import Testing

/// Something that must hold does not.
struct Broken: Error, CustomStringConvertible {
  var description: String
}

func hold(_ condition: Bool, _ otherwise: @autoclosure () -> String) throws {
  if !condition { throw Broken(description: otherwise()) }
}

/// A life of a cluster made up from one seed, lived beside the model.
struct History {
  var dice: Dice
  var cluster = Cluster()
  var model = Model()
  /// Ended and not yet settled or replaced: what became of them, with the last entry.
  var ended: [(entry: TaskEntry, status: TaskStatus, waitsFor: [TaskID])] = []
  /// Settled without success: a person may retry them.
  var broken: [(entry: TaskEntry, waitsFor: [TaskID])] = []
  var assignmentNumbers: [TaskID: Int64] = [:]
  var nextTask: Int64 = 1
  var nextWorker: Int64 = 1
  var serial = 0
  var log: [Assignment] = []

  init(seed: UInt64) {
    dice = Dice(seed: seed)
    for id in 1...2 {
      setWorkflow(
        WorkflowEntry(
          id: WorkflowID(Int64(id)), owner: UserID(Int64(id)),
          strategy: dice.pick([.batch, .thread]) ?? .batch,
          weightMilli: dice.pick([1000, 3000, 500]) ?? 1000))
    }
    for (step, workflow) in [(1, 1), (2, 1), (3, 2)] as [(Int64, Int64)] {
      setStep(StepEntry(id: StepID(step), workflow: WorkflowID(workflow)))
    }
    for _ in 0..<Int.random(in: 0...5, using: &dice) { addWorker() }
  }

  // MARK: What can happen

  mutating func step() throws {
    switch Int.random(in: 0..<100, using: &dice) {
    case 0..<16: submit()
    case 16..<26: setWorker()
    case 26..<42: try assign(limit: Int.random(in: 0...4, using: &dice))
    case 42..<52: try assign(limit: .max)
    case 52..<82: try report()
    case 82..<84: try loseWorker()
    case 84..<86: try cancel()
    case 86..<88: try person()
    case 88..<90: operate()
    case 90..<91: reprioritize()
    case 91..<93: try anyMove()
    case 93..<97: try retryByHand()
    case 97..<98: removeIdleWorker()
    case 98..<99: operate()
    default: try settleSome()
    }
    if dice.chance(70) { try settleSome() }
  }

  private mutating func setWorkflow(_ workflow: WorkflowEntry) {
    cluster.set(workflow)
    model.workflows[workflow.id] = workflow
  }

  private mutating func setStep(_ step: StepEntry) {
    cluster.set(step)
    model.steps[step.id] = step
  }

  /// What people do to workflows, steps, users and single tasks.
  private mutating func operate() {
    switch Int.random(in: 0..<6, using: &dice) {
    case 0:
      guard var workflow = model.workflows[dice.pick([1, 2]) ?? 1] else { return }
      if dice.chance(60) {
        workflow.isHeld.toggle()
      } else {
        workflow.weightMilli = dice.pick([1000, 2500]) ?? 1
      }
      setWorkflow(workflow)
    case 1:
      guard var step = model.steps[dice.pick([1, 2, 3]) ?? 1] else { return }
      step.isHeld.toggle()
      setStep(step)
    case 2:
      let user = UserEntry(
        id: dice.pick([1, 2]) ?? 1, weightMilli: dice.pick([1000, 4000]) ?? 1000,
        maximumRunning: dice.pick([nil, nil, 0, 1, 3]) ?? nil,
        maximumCPUMilli: dice.pick([nil, nil, nil, 4000, 500]) ?? nil)
      cluster.set(user)
      model.users[user.id] = user
    case 3, 4:
      guard let id = dice.pick(model.tasks.keys.sorted()) else { return }
      let isHeld = dice.chance(40)
      cluster.hold(id, isHeld)
      model.tasks[id]?.entry.isHeld = isHeld
    default:
      guard let id = dice.pick(model.tasks.keys.sorted()) else { return }
      let wish = dice.chance(70)
      cluster.wishSuspend(id, wish)
      model.tasks[id]?.entry.suspendWished = wish
    }
  }

  private mutating func submit() {
    for _ in 0..<Int.random(in: 1...4, using: &dice) {
      let known = model.tasks.keys.sorted() + ended.map(\.entry.id) + broken.map(\.entry.id)
      var waitsFor: [TaskID] = []
      if dice.chance(40) {
        for _ in 0..<Int.random(in: 1...3, using: &dice) {
          if let one = dice.pick(known), !waitsFor.contains(one) { waitsFor.append(one) }
        }
      }
      let roll = Int.random(in: 0..<100, using: &dice)
      let status: TaskStatus = roll < 5 ? .inactive : waitsFor.isEmpty ? .pending : .waiting
      let step: StepID? = dice.pick([nil, nil, nil, 1, 1, 2, 3]) ?? nil
      let owner = step == nil ? dice.pick([1, 2]) ?? 1 : model.steps[step ?? 1]?.workflow == 1 ? 1 : 2
      let entry = TaskEntry(
        id: TaskID(nextTask), owner: UserID(Int64(owner)), job: dice.pick([nil, nil, 700, 701]) ?? nil,
        step: step,
        status: status,
        priority: Int32.random(in: 0...2, using: &dice),
        weightMilli: dice.pick([1000, 1000, 1000, 500, 2000, 300, 4000]) ?? 1000, needs: needs(),
        order: nextTask / 2, unmet: Int32(waitsFor.count), acceptFailure: dice.chance(30),
        cancelsWithPrerequisite: dice.chance(20))
      nextTask += 1
      add(entry, waitsFor)
    }
  }

  private mutating func needs() -> Needs {
    Needs(
      cpuMilli: dice.pick([0, 0, 0, 500, 4000]) ?? 0, memoryMiB: dice.pick([0, 0, 0, 2048, 9000]) ?? 0,
      diskMiB: dice.pick([0, 0, 0, 500]) ?? 0, gpu: dice.pick([0, 0, 0, 0, 0, 0, 1]) ?? 0)
  }

  private mutating func add(_ entry: TaskEntry, _ waitsFor: [TaskID]) {
    serial += 1
    cluster.add(entry, waitingFor: waitsFor)
    model.tasks[entry.id] = Model.Task(entry: entry, waitsFor: waitsFor, serial: serial)
  }

  private mutating func setWorker() {
    let known = model.workers.keys.sorted()
    guard known.count >= 6 || dice.chance(60), let id = dice.pick(known), var worker = model.workers[id]
    else {
      addWorker()
      return
    }
    switch Int.random(in: 0..<12, using: &dice) {
    case 0: worker.isConnected = false
    case 1: worker.isDraining.toggle()
    case 2: worker.isPaused.toggle()
    case 3: worker.reducedRoom = Int32.random(in: 0...3, using: &dice)
    case 4: worker.concurrency = Int32.random(in: 0...4, using: &dice)
    case 5: worker.serves = dice.pick(Self.servings) ?? .loose
    case 6: worker.capacity.memoryMiB = 16384
    default: (worker.isConnected, worker.isDraining, worker.isPaused) = (true, false, false)
    }
    set(worker)
  }

  private static let servings: [Serving] = [
    .loose, .loose, .step(1), .step(2), .step(3), .workflow(1), .workflow(2), .everything,
  ]

  private mutating func addWorker() {
    let capacity = Needs(
      cpuMilli: dice.pick([2000, 4000, 8000]) ?? 0, memoryMiB: dice.pick([4096, 16384, 16384]) ?? 0,
      diskMiB: dice.pick([100, 1000, 1000]) ?? 0, gpu: dice.pick([0, 0, 2]) ?? 0)
    set(
      WorkerEntry(
        id: WorkerID(nextWorker), serves: dice.pick(Self.servings) ?? .loose,
        concurrency: Int32.random(in: 1...4, using: &dice), prefetch: Int32.random(in: 0...2, using: &dice),
        capacity: capacity))
    nextWorker += 1
  }

  private mutating func set(_ worker: WorkerEntry) {
    cluster.set(worker)
    model.workers[worker.id] = worker
  }

  private mutating func assign(limit: Int) throws {
    let before = model
    let made = cluster.assign(limit: limit)
    try model.replay(made)
    try hold(made.count <= limit, "more than the limit was assigned")
    for one in made {
      try hold(one.number > assignmentNumbers[one.task, default: 0], "assignment numbers only grow")
      assignmentNumbers[one.task] = one.number
      guard let worker = cluster.worker(one.worker) else { continue }
      try hold(cluster.loadMilli(of: one.worker) <= worker.roomMilli, "room is never exceeded")
    }
    // Among tasks that differ in rank only, none that is left goes before one that was taken.
    let taken = Set(made.map(\.task))
    let queue = before.queue
    for (index, late) in queue.enumerated() where taken.contains(late.id) {
      for early in queue[..<index] where !taken.contains(early.id) {
        let same =
          early.step == late.step && early.needs == late.needs && early.weightMilli == late.weightMilli
          && early.avoid == late.avoid && early.prefer == late.prefer
          && (early.step != nil || early.owner == late.owner)
        try hold(!same, "task \(late.id) went before task \(early.id)")
      }
    }
    log += made
    guard made.count < limit else { return }
    // A user whose first task passes the limits waits with all tasks.
    let limited = Set(model.queue.filter { !model.allows($0) }.map(model.owner))
    for task in model.queue where !limited.contains(model.owner(task)) {
      try hold(model.best(task, isComfort: true) == nil, "task \(task.id) waits though a worker has room")
      try checkExplanation(task)
    }
  }

  private func checkExplanation(_ task: TaskEntry) throws {
    let connected = model.workers.values.filter(\.isConnected)
    let serving = connected.filter { model.servings(task).contains($0.serves) }
    let taking = serving.filter { !$0.isDraining && !$0.isPaused }
    let eligible = model.eligible(task)
    // Held ones have no place in the queue.
    let pool = model.queue.filter { $0.step == task.step && (task.step != nil || $0.owner == task.owner) }
    let place = 1 + (pool.firstIndex { $0.id == task.id } ?? -1)
    switch cluster.explain(task: task.id) {
    case .noWorkerConnected: try hold(connected.isEmpty, "explained wrongly: no worker")
    case .noWorkerServes(let step, let count):
      try hold(
        step == task.step && serving.isEmpty && count == connected.count && count > 0,
        "explained wrongly: unserved")
    case .workersTakeNothing(let step, let count):
      try hold(
        step == task.step && taking.isEmpty && count == serving.count && count > 0,
        "explained wrongly: taking nothing")
    case .doesNotFit(let step, let count, let missing):
      try hold(
        step == task.step && eligible.isEmpty && count == taking.count && count > 0 && !missing.isEmpty,
        "explained wrongly: does not fit")
    case .waitsForWorker(let worker, let number):
      try hold(model.home(task)?.id == worker && number == place, "explained wrongly: waits for its worker")
    case .full(let count, let number):
      try hold(count == eligible.count && count > 0 && number == place, "explained wrongly: full")
    case let other:
      try hold(false, "task \(task.id) is pending and explained by \(String(describing: other))")
    }
  }

  private mutating func move(_ id: TaskID, to status: TaskStatus, by actor: Actor) throws {
    let before = model.tasks[id]
    let clusterBefore = cluster.task(id)
    let expected = model.move(id, to: status, by: actor)
    do throws(IllegalMove) {
      try cluster.move(id, to: status, by: actor)
    } catch {
      try hold(!expected, "\(error)")
      try hold(cluster.task(id) == clusterBefore, "a move that was refused changed something")
      return
    }
    try hold(expected, "\(id) to \(status) by \(actor) was made and is not legal")
    if status.isFinal, let before { ended.append((before.entry, status, before.waitsFor)) }
  }

  private mutating func report() throws {
    for _ in 0..<Int.random(in: 1...4, using: &dice) {
      let held = model.tasks.values.map(\.entry).filter { $0.worker != nil }.sorted { $0.id < $1.id }
      guard let task = dice.pick(held) else { return }
      let next: [TaskStatus] =
        switch task.status {
        case .assigned: [.accepted]
        case .accepted: [.downloading, .onHold, .running, .failed]
        case .downloading: [.onHold, .running, .running, .failed]
        case .onHold: [.running]
        case .running where task.suspendWished: [.suspended]
        case .suspended: [.running]
        case .running: [.uploading, .uploading, .uploadingFailed]
        case .uploading: [.succeeded, .succeeded, .failed]
        case .uploadingFailed: [.failed]
        default: [.canceled]
        }
      let status = task.cancelWished && dice.chance(60) ? .canceled : dice.pick(next) ?? .canceled
      try move(task.id, to: status, by: .worker)
    }
  }

  private mutating func loseWorker() throws {
    guard let id = dice.pick(model.workers.keys.sorted()), var worker = model.workers[id] else { return }
    for task in cluster.tasks(on: id) {
      let status = cluster.task(task)?.status
      try move(task, to: status?.isBeforeStart == true ? .pending : .failed, by: .server)
    }
    try hold(cluster.tasks(on: id).isEmpty, "a lost worker has tasks")
    worker.isConnected = false
    if dice.chance(50) {
      set(worker)
    } else {
      cluster.removeWorker(id)
      model.workers[id] = nil
    }
  }

  private mutating func removeIdleWorker() {
    guard let id = dice.pick(model.workers.keys.sorted()), cluster.tasks(on: id).isEmpty else { return }
    cluster.removeWorker(id)
    model.workers[id] = nil
  }

  private mutating func cancel() throws {
    guard let id = dice.pick(model.tasks.keys.sorted()) else { return }
    if model.tasks[id]?.entry.worker == nil, dice.chance(70) {
      try move(id, to: .canceled, by: .person)
    } else {
      cluster.wishCancel(id)
      model.tasks[id]?.entry.cancelWished = true
    }
  }

  private mutating func person() throws {
    for _ in 0..<3 {
      guard let id = dice.pick(model.tasks.keys.sorted()) else { return }
      let status = cluster.resumption(of: id)
      let actor: Actor = model.tasks[id]?.entry.status == .inactive ? .server : .person
      if let status {
        try hold(Lifecycle.allows(model.tasks[id]?.entry.status, status, by: actor), "\(id) cannot resume")
      }
      if let status {
        try move(id, to: status, by: actor)
      } else if dice.chance(30) {
        try move(id, to: .suspended, by: .person)
      }
    }
  }

  private mutating func reprioritize() {
    guard let id = dice.pick(model.tasks.keys.sorted()) else { return }
    let priority = Int32.random(in: -1...4, using: &dice)
    cluster.setPriority(id, priority)
    model.tasks[id]?.entry.priority = priority
  }

  /// Any task, any status, anybody: only what is legal may happen.
  private mutating func anyMove() throws {
    for _ in 0..<5 {
      guard let id = dice.pick(model.tasks.keys.sorted() + [TaskID(999_999)]),
        let status = dice.pick(TaskStatus.allCases), let actor = dice.pick(Actor.allCases)
      else { return }
      try move(id, to: status, by: actor)
    }
  }

  /// Ended tasks are settled, or replaced by a clone at once as an automatic retry is.
  private mutating func settleSome() throws {
    while !ended.isEmpty {
      let one = ended.removeFirst()
      if one.status == .failed, dice.chance(50) {
        try replace(one.entry, one.waitsFor)
        continue
      }
      let worker = one.entry.worker
      let settlement = cluster.settle(one.entry.id, outcome: one.status, on: worker)
      let (freed, toCancel, changed) = model.settle(one.entry.id, one.status, on: worker)
      try hold(settlement.freed.sorted() == freed.sorted(), "freed of \(one.entry.id) differ")
      try hold(settlement.toCancel.sorted() == toCancel.sorted(), "toCancel of \(one.entry.id) differ")
      try hold(settlement.changed.sorted() == changed.sorted(), "changed of \(one.entry.id) differ")
      if one.status != .succeeded { broken.append((one.entry, one.waitsFor)) }
      for id in toCancel where model.tasks[id]?.entry.worker == nil {
        try move(id, to: .canceled, by: .person)
      }
    }
  }

  private mutating func retryByHand() throws {
    guard !broken.isEmpty else { return }
    let one = broken.remove(at: Int.random(in: 0..<broken.count, using: &dice))
    try replace(one.entry, one.waitsFor)
  }

  private mutating func replace(_ old: TaskEntry, _ waitsFor: [TaskID]) throws {
    // What its predecessor waited for may have succeeded, or been replaced, since.
    let unmet = waitsFor.filter { id in
      model.tasks[id] != nil || broken.contains { $0.entry.id == id } || ended.contains { $0.entry.id == id }
    }
    var clone = old
    clone.id = TaskID(nextTask)
    nextTask += 1
    clone.worker = nil
    clone.assignment = 0
    clone.cancelWished = false
    clone.suspendWished = false
    clone.isHeld = false
    clone.prefer = nil
    clone.avoid = old.worker
    clone.unmet = Int32(unmet.count)
    clone.status = unmet.isEmpty ? .pending : .waiting
    serial += 1
    cluster.replace(old.id, with: clone, waitingFor: unmet)
    model.replace(old.id, with: clone.id)
    model.tasks[clone.id] = Model.Task(entry: clone, waitsFor: unmet, serial: serial)
    try hold(cluster.dependents(of: old.id).isEmpty, "the clone takes over what waited for its predecessor")
  }

  // MARK: What must always hold

  func check() throws {
    try hold(cluster.taskIDs == model.tasks.keys.sorted(), "tasks differ")
    try hold(cluster.workerIDs == model.workers.keys.sorted(), "workers differ")
    var counts = StatusCounts()
    for (id, task) in model.tasks {
      try hold(
        cluster.task(id) == task.entry,
        "task \(id) differs: \(String(describing: cluster.task(id))), not \(task.entry)")
      try hold(
        cluster.unmetPrerequisites(of: id).sorted() == task.waitsFor.sorted(), "what \(id) waits for differs")
      try hold(task.entry.status != .waiting || task.entry.unmet > 0, "task \(id) waits for nothing")
      counts[task.entry.status] += 1
      if task.entry.status == .waiting, !task.entry.cancelWished {
        guard case .waiting(let named, _, let others) = cluster.explain(task: id) else {
          throw Broken(description: "task \(id) waits and that is not said")
        }
        try hold(
          task.waitsFor.contains(named) && others == task.waitsFor.count - 1, "\(id) waits for another")
      }
    }
    try hold(cluster.statusCounts == counts, "counts drifted")
    let recount = cluster.recount()
    try hold(recount.all == counts, "the recount differs")
    for user in [1, 2] as [UserID] {
      let (used, kept) = (model.usage(user), cluster.usage(of: user))
      try hold(used.running == kept.running && used.cpu == kept.cpuMilli, "the usage of user \(user) drifted")
    }
    for step: StepID? in [nil, 1, 2, 3] {
      try hold(
        cluster.statusCounts(of: step) == recount.steps[step] ?? StatusCounts(), "counts of a step drifted")
    }
    var seen: Set<TaskID> = []
    for id in cluster.workerIDs {
      try hold(cluster.worker(id) == model.workers[id], "worker \(id) differs")
      try hold(cluster.loadMilli(of: id) == model.load(id), "the load of worker \(id) drifted")
      try hold(!cluster.explain(worker: id).isEmpty, "worker \(id) is not explained")
      for task in cluster.tasks(on: id) {
        try hold(seen.insert(task).inserted, "task \(task) is in two places")
        try hold(model.tasks[task]?.entry.worker == id, "task \(task) is not on worker \(id)")
      }
    }
    try hold(
      seen.count == model.tasks.values.filter { $0.entry.worker != nil }.count, "a worker lacks a task")
  }

  /// What a server that starts now would build from its rows.
  func rebuilt() -> Cluster {
    var new = Cluster()
    for user in model.users.values.sorted(by: { $0.id < $1.id }) { new.set(user) }
    for step in model.steps.values.sorted(by: { $0.id < $1.id }) { new.set(step) }
    for worker in model.workers.values.sorted(by: { $0.id > $1.id }) { new.set(worker) }
    for task in model.tasks.values.sorted(by: { $0.entry.id > $1.entry.id }) {
      new.add(task.entry, waitingFor: task.waitsFor)
    }
    // Also in this order, a workflow's tasks are its owner's.
    for workflow in model.workflows.values.sorted(by: { $0.id < $1.id }) { new.set(workflow) }
    return new
  }
}

@Suite("Random histories")
struct HistoryTests {
  /// Lives through each seed, or the one in `SCITQ_SEED`, and names the first that fails. `SCITQ_HISTORIES` says how
  /// many.
  static func live(_ count: UInt64, _ body: (UInt64) throws -> Void) {
    let environment = ProcessInfo.processInfo.environment
    let asked = environment["SCITQ_SEED"].flatMap { UInt64($0) }
    let most = environment["SCITQ_HISTORIES"].flatMap { UInt64($0) } ?? count
    for seed in asked.map({ [$0] }) ?? Array(1...most) {
      do {
        try body(seed)
      } catch {
        Issue.record("the history of seed \(seed) fails (again with SCITQ_SEED=\(seed)): \(error)")
        return
      }
    }
  }

  @Test("whatever happens, the cluster is what the plain model says")
  func histories() {
    Self.live(600) { seed in
      var history = History(seed: seed)
      for step in 1...70 {
        do {
          try history.step()
          try history.check()
        } catch {
          throw Broken(description: "at step \(step): \(error)")
        }
      }
    }
  }

  @Test("the same history gives the same assignments")
  func deterministic() {
    Self.live(100) { seed in
      var first = History(seed: seed)
      var second = History(seed: seed)
      for _ in 1...70 { try first.step() }
      for _ in 1...70 { try second.step() }
      try hold(first.log == second.log, "two runs differ")
    }
  }

  @Test("a cluster that is built anew is as the one that lived through it, and decides as rightly")
  func rebuild() {
    Self.live(300) { seed in
      var history = History(seed: seed)
      for _ in 1...50 { try history.step() }
      history.cluster = history.rebuilt()
      try history.check()
      var model = history.model
      try model.replay(history.cluster.assign(limit: .max))
    }
  }
}
