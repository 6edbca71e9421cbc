package import ScitqProtocol

/// All that can still move: tasks that have not ended, workers, and what waits for what.
///
/// A value: the engine copies or rebuilds it as it likes. It knows no clock, does no I/O, and the same calls
/// in the same order always give the same answers. It makes only legal moves, and everything that is counted
/// is counted here, in the one place where a status changes.
///
/// Room. A worker has `concurrency + prefetch − reducedRoom` slots of room; a task fits when the weights of
/// the worker's tasks in `A C D O R Z` and its own are no more than that. A task heavier than `concurrency`
/// could never run there and is not given. Uploads hold no room.
///
/// Cost. A pending task takes 100 to 125 bytes, and one that waits for another 165 to 205, all tables and
/// their reserve included; tasks that have ended take nothing. Adding, moving and assigning one task is
/// O(log n).
package struct Cluster: Sendable {
  var tasks = TaskTable()
  var shapes = Slab<Shape>()
  var pools = Slab<Pool>()
  var workers = Slab<WorkerRecord>()
  var classes = Slab<HostClass>()
  var edges = Slab<Edge>()

  var shapeIndex: [ShapeKey: UInt32] = [:]
  var poolIndex: [PoolKey: UInt32] = [:]
  var workerIndex: [WorkerID: UInt32] = [:]
  var prerequisites: [TaskID: Prerequisite] = [:]

  var crews = Slab<Crew>()
  var crewIndex: [Serving: UInt32] = [:]
  var groups = Slab<Group>()
  var groupIndex: [GroupKey: UInt32] = [:]
  var users = Slab<Shareholder>()
  var userIndex: [UserID: UInt32] = [:]
  /// What was said of workflows and steps.
  var workflowEntries: [WorkflowID: WorkflowEntry] = [:]
  var stepEntries: [StepID: StepEntry] = [:]
  var jobs = JobTable()

  /// Users with something to try.
  var queue = IndexedHeap<UInt32>()
  /// The pass of the user who was served last.
  var userTime: Int64 = 0
  /// Crews that have changed since the last assignment.
  var stale: [UInt32] = []
  /// Shapes that wait for room on the worker that holds what they read.
  var homesick: Set<UInt32> = []
  var counts = StatusCounts()

  package init() {}
}

// MARK: Tasks

extension Cluster {
  /// How many tasks have not ended.
  package var taskCount: Int { tasks.count }

  /// How many tasks stand at each status. Final statuses count nothing: ended tasks are not held.
  package var statusCounts: StatusCounts { counts }

  /// The same for one step; nil: tasks without a step.
  package func statusCounts(of step: StepID?) -> StatusCounts {
    if let step { return poolIndex[.step(step)].map { pools[$0].counts } ?? StatusCounts() }
    var counts = StatusCounts()
    for (key, pool) in poolIndex {
      guard case .loose = key else { continue }
      for status in TaskStatus.allCases { counts[status] += pools[pool].counts[status] }
    }
    return counts
  }

  /// The ids of all tasks, ascending.
  package var taskIDs: [TaskID] { tasks.ids.sorted() }

  /// The task, or nil when it has ended or never was.
  package func task(_ id: TaskID) -> TaskEntry? { tasks.find(id).map(entry) }

  /// Adds a task at any status that is not final: new ones, and at a rebuild all there are.
  ///
  /// - Parameter prerequisites: the ids of those not met, ended or not, in the cluster or not yet; as many as
  ///   `task.unmet`. One that has failed or was canceled for good is made known by `settle`.
  /// - Precondition: the id is new; a task on a worker names one that was set; a waiting task has something
  ///   unmet and one that is past waiting has nothing.
  package mutating func add(_ task: TaskEntry, waitingFor prerequisites: [TaskID] = []) {
    precondition(!task.status.isFinal, "task \(task.id) has ended and cannot be added")
    precondition(
      Int(task.unmet) == prerequisites.count,
      "task \(task.id) has \(task.unmet) unmet prerequisites and names \(prerequisites.count)")
    switch task.status {
    case .inactive: break
    case .suspended: precondition(task.worker == nil || task.unmet == 0, "task \(task.id) runs too early")
    case .waiting: precondition(task.unmet > 0, "task \(task.id) waits for nothing")
    default: precondition(task.unmet == 0, "task \(task.id) has unmet prerequisites")
    }
    precondition(
      task.status == .suspended || task.status.isOnWorker == (task.worker != nil),
      "task \(task.id) is \(task.status.word) \(task.worker == nil ? "without" : "with") a worker")
    var worker = nowhere
    if let id = task.worker {
      guard let index = workerIndex[id] else { preconditionFailure("worker \(id) is not in the cluster") }
      worker = index
    }

    let pool = acquirePool(task.step.map(PoolKey.step) ?? .loose(task.owner), owner: task.owner)
    let shape = acquireShape(
      ShapeKey(
        pool: pool, needs: task.needs, weightMilli: max(1, task.weightMilli), avoid: task.avoid,
        prefer: task.prefer == task.avoid ? nil : task.prefer))
    var flags: TaskSlot.Flags = []
    if task.acceptFailure { flags.insert(.acceptFailure) }
    if task.cancelsWithPrerequisite { flags.insert(.cancelsWithPrerequisite) }
    if task.cancelWished { flags.insert(.cancelWished) }
    if task.suspendWished { flags.insert(.suspendWished) }
    if task.isHeld { flags.insert(.held) }
    let slot = tasks.insert(
      TaskSlot(
        id: task.id, order: task.order, assignment: task.assignment, priority: task.priority,
        unmet: task.unmet, shape: shape, worker: nowhere, job: jobs.acquire(task.job), status: task.status,
        flags: flags))
    counts[task.status] += 1
    pools[pool].counts[task.status] += 1
    pools[pool].tasks += 1
    for prerequisite in prerequisites { link(slot, waitingFor: prerequisite) }
    if worker != nowhere {
      attach(slot, to: worker)
      if task.status.holdsRoom {
        changeLoad(of: worker, by: weight(of: slot))
        occupy(slot, +1)
      }
    }
    if task.status == .pending { enqueue(slot) }
  }

  /// Moves a task, if that is legal. A task that becomes pending leaves its worker; one that ends leaves the
  /// cluster, but what waits for it goes on waiting until `settle` or `replace` says what became of it.
  package mutating func move(
    _ id: TaskID, to status: TaskStatus, by actor: Actor
  ) throws(IllegalMove) {
    guard let slot = tasks.find(id) else {
      throw IllegalMove(task: id, from: nil, to: status, actor: actor, cause: .unknownTask)
    }
    if let cause = obstacle(slot, status, actor) {
      throw IllegalMove(task: id, from: tasks[slot].status, to: status, actor: actor, cause: cause)
    }
    change(slot, to: status)
  }

  /// What a task that is inactive or suspended becomes when it may go on: waiting, or pending. Nil for every
  /// other task, and for one that stands still on a worker: that goes on where it is.
  package func resumption(of id: TaskID) -> TaskStatus? {
    guard let slot = tasks.find(id) else { return nil }
    switch tasks[slot].status {
    case .inactive, .suspended:
      if tasks[slot].worker != nowhere { return nil }
      return tasks[slot].unmet > 0 ? .waiting : .pending
    default: return nil
    }
  }

  /// Notes that a person wants the task ended: it is not assigned any more, and its worker may report it
  /// canceled. Does nothing when the task has ended.
  package mutating func wishCancel(_ id: TaskID) {
    guard let slot = tasks.find(id), !tasks[slot].flags.contains(.cancelWished) else { return }
    if tasks[slot].status == .pending { dequeue(slot) }
    tasks[slot].flags.insert(.cancelWished)
  }

  /// Notes whether a person wants the task paused where it runs: then its worker may report it suspended. Does
  /// nothing when the task has ended.
  package mutating func wishSuspend(_ id: TaskID, _ wish: Bool) {
    guard let slot = tasks.find(id) else { return }
    if wish { tasks[slot].flags.insert(.suspendWished) } else { tasks[slot].flags.remove(.suspendWished) }
  }

  /// Keeps a task from being assigned, or lets it go. Does nothing when the task has ended.
  package mutating func hold(_ id: TaskID, _ isHeld: Bool) {
    guard let slot = tasks.find(id), tasks[slot].flags.contains(.held) != isHeld else { return }
    if tasks[slot].status == .pending { dequeue(slot) }
    if isHeld { tasks[slot].flags.insert(.held) } else { tasks[slot].flags.remove(.held) }
    if tasks[slot].status == .pending { enqueue(slot) }
  }

  /// Gives a task another priority, at any status. Does nothing when the task has ended.
  package mutating func setPriority(_ id: TaskID, _ priority: Int32) {
    guard let slot = tasks.find(id) else { return }
    if tasks[slot].status == .pending { dequeue(slot) }
    tasks[slot].priority = priority
    if tasks[slot].status == .pending { enqueue(slot) }
  }

  /// Takes a task out, wherever it stands, as if it had never been: for the submission that could not be
  /// stored. What waits for it goes on waiting. Does nothing when the task is not there.
  package mutating func remove(_ id: TaskID) {
    guard let slot = tasks.find(id) else { return }
    leave(slot)
    forget(slot)
  }

  /// Counts everything anew, by walking all tasks; always equal to `statusCounts`. For tests.
  package func recount() -> (all: StatusCounts, steps: [StepID?: StatusCounts]) {
    var all = StatusCounts()
    var steps: [StepID?: StatusCounts] = [:]
    for id in tasks.ids {
      guard let task = task(id) else { continue }
      all[task.status] += 1
      steps[task.step, default: StatusCounts()][task.status] += 1
    }
    return (all, steps)
  }
}

// MARK: Workers

extension Cluster {
  /// The ids of all workers, ascending.
  package var workerIDs: [WorkerID] { workerIndex.keys.sorted() }

  package func worker(_ id: WorkerID) -> WorkerEntry? { workerIndex[id].map { workers[$0].entry } }

  /// Adds a worker, or says what it is like now. What it already has stays, also when there is less room than
  /// that.
  package mutating func set(_ worker: WorkerEntry) {
    let index: UInt32
    if let known = workerIndex[worker.id] {
      if workers[known].entry == worker { return }
      index = known
      retire(index)
      let crew = workers[index].crew
      if workers[index].entry.serves != worker.serves {
        let new = acquireCrew(worker.serves)
        crews[new].workers += 1
        workers[index].crew = new
        crews[crew].workers -= 1
        releaseCrewIfEmpty(crew)
      }
      workers[index].entry = worker
    } else {
      let crew = acquireCrew(worker.serves)
      crews[crew].workers += 1
      index = workers.insert(WorkerRecord(entry: worker, crew: crew))
      workerIndex[worker.id] = index
    }
    if worker.isAssignable { enlist(index) }
  }

  /// Forgets a worker. Does nothing when it is not there.
  /// - Precondition: its tasks were moved away from it before.
  package mutating func removeWorker(_ id: WorkerID) {
    guard let index = workerIndex[id] else { return }
    precondition(workers[index].tasks.isEmpty, "worker \(id) is removed while it has tasks")
    retire(index)
    let crew = workers[index].crew
    crews[crew].workers -= 1
    workerIndex[id] = nil
    workers.release(index, leaving: WorkerRecord(entry: WorkerEntry(id: 0, capacity: Needs()), crew: nowhere))
    releaseCrewIfEmpty(crew)
  }

  /// The tasks that a worker has, uploads and paused ones included, by id.
  package func tasks(on id: WorkerID) -> [TaskID] {
    guard let index = workerIndex[id] else { return [] }
    return workers[index].tasks.map { tasks[$0].id }.sorted()
  }

  /// Σ weight of the worker's tasks that hold room, in thousandths of a slot.
  package func loadMilli(of id: WorkerID) -> Int64 { workerIndex[id].map { workers[$0].loadMilli } ?? 0 }
}

// MARK: The one place where a status changes

extension Cluster {
  /// What stands against a move, or nil.
  private func obstacle(_ slot: UInt32, _ to: TaskStatus, _ actor: Actor) -> IllegalMove.Cause? {
    let task = tasks[slot]
    guard Lifecycle.allows(task.status, to, by: actor) else { return .lifecycle }
    switch to {
    case .assigned: return .onlyByAssignment
    case .waiting where task.worker != nowhere,
      .pending where task.status == .suspended && task.worker != nowhere:
      return .heldByWorker
    case .waiting: return task.unmet == 0 ? .nothingUnmet : nil
    case .pending: return task.unmet > 0 ? .unmetPrerequisites : nil
    case .running: return task.worker == nowhere ? .noWorker : nil
    case .suspended where actor == .worker: return task.flags.contains(.suspendWished) ? nil : .noSuspendWish
    case .suspended: return task.worker == nowhere ? nil : .heldByWorker
    case .failed where task.status == .suspended && task.worker == nowhere: return .noWorker
    case .canceled where actor == .worker:
      if task.worker == nowhere { return .noWorker }
      return task.flags.contains(.cancelWished) ? nil : .noCancelWish
    default: return nil
    }
  }

  /// Makes a legal move and keeps every count, list, load and queue in step with it.
  mutating func change(_ slot: UInt32, to status: TaskStatus, worker: UInt32 = nowhere) {
    let old = tasks[slot].status
    if status.isFinal {
      leave(slot)
      if let prerequisite = prerequisites.index(forKey: tasks[slot].id) {
        prerequisites.values[prerequisite].ended = status
      }
      forget(slot)
      return
    }
    if old == .pending { dequeue(slot) }
    let pool = shapes[tasks[slot].shape].key.pool
    counts[old] -= 1
    counts[status] += 1
    pools[pool].counts[old] -= 1
    pools[pool].counts[status] += 1
    tasks[slot].status = status
    let holder = tasks[slot].worker
    if worker != nowhere {
      attach(slot, to: worker)
      changeLoad(of: worker, by: weight(of: slot))
      occupy(slot, +1)
    } else if holder != nowhere {
      if old.holdsRoom != status.holdsRoom {
        changeLoad(of: holder, by: status.holdsRoom ? weight(of: slot) : -weight(of: slot))
        occupy(slot, status.holdsRoom ? +1 : -1)
      }
      if status == .pending { detach(slot) }
    }
    if status == .pending { enqueue(slot) }
  }

  /// Takes a task off its queue and its worker.
  private mutating func leave(_ slot: UInt32) {
    let task = tasks[slot]
    if task.status == .pending { dequeue(slot) }
    if task.worker != nowhere {
      if task.status.holdsRoom {
        changeLoad(of: task.worker, by: -weight(of: slot))
        occupy(slot, -1)
      }
      detach(slot)
    }
  }

  /// Lets go of a task that is on no queue and no worker.
  private mutating func forget(_ slot: UInt32) {
    while tasks[slot].firstEdge != nowhere { unlink(tasks[slot].firstEdge) }
    let shape = tasks[slot].shape
    let pool = shapes[shape].key.pool
    let status = tasks[slot].status
    counts[status] -= 1
    pools[pool].counts[status] -= 1
    pools[pool].tasks -= 1
    jobs.release(tasks[slot].job)
    tasks.remove(slot)
    shapes[shape].tasks -= 1
    if shapes[shape].tasks == 0 { releaseShape(shape) }
    releasePoolIfEmpty(pool)
  }

  func weight(of slot: UInt32) -> Int64 { Int64(shapes[tasks[slot].shape].key.weightMilli) }

  func entry(_ slot: UInt32) -> TaskEntry {
    let task = tasks[slot]
    let key = shapes[task.shape].key
    return TaskEntry(
      id: task.id, owner: users[groups[pools[key.pool].group].user].entry.id, job: jobs[task.job],
      step: pools[key.pool].step, status: task.status, priority: task.priority,
      weightMilli: key.weightMilli, needs: key.needs, order: task.order, unmet: task.unmet,
      worker: task.worker == nowhere ? nil : workers[task.worker].entry.id, assignment: task.assignment,
      avoid: key.avoid, acceptFailure: task.flags.contains(.acceptFailure),
      cancelsWithPrerequisite: task.flags.contains(.cancelsWithPrerequisite),
      cancelWished: task.flags.contains(.cancelWished), suspendWished: task.flags.contains(.suspendWished),
      isHeld: task.flags.contains(.held), prefer: key.prefer)
  }

  private mutating func attach(_ slot: UInt32, to worker: UInt32) {
    tasks[slot].worker = worker
    tasks[slot].position = UInt32(workers[worker].tasks.count)
    workers[worker].tasks.append(slot)
  }

  private mutating func detach(_ slot: UInt32) {
    let worker = tasks[slot].worker
    let position = tasks[slot].position
    let last = workers[worker].tasks.removeLast()
    if last != slot {
      workers[worker].tasks[Int(position)] = last
      tasks[last].position = position
    }
    tasks[slot].worker = nowhere
    tasks[slot].position = nowhere
  }
}
