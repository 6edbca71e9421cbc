package import ScitqProtocol

extension Cluster {
  /// Why the task is where it is, by the same search that assigns; nil when it has ended or never was.
  /// O(workers + tasks that are ahead of it).
  package func explain(task id: TaskID) -> Explanation? {
    guard let slot = tasks.find(id) else { return nil }
    let task = tasks[slot]
    let worker = task.worker == nowhere ? nil : workers[task.worker].entry.id
    if task.flags.contains(.cancelWished) { return .cancelWished(on: worker) }
    if task.flags.contains(.suspendWished), task.status == .running, let worker {
      return .suspendWished(on: worker)
    }
    switch task.status {
    case .inactive: return .inactive
    case .suspended: return .suspended(on: worker)
    case .waiting: return explainWaiting(id)
    case .pending: return explainPending(slot)
    default: return worker.map { .held(by: $0, status: task.status) }
    }
  }

  /// Why the worker has nothing more to do than it has, in one sentence without a full stop.
  /// O(tasks of the worker + shapes of its step).
  package func explain(worker id: WorkerID) -> String {
    guard let index = workerIndex[id] else { return "worker \(id) does not exist" }
    let record = workers[index]
    let entry = record.entry
    let has = record.tasks.isEmpty ? "it has no task" : "it has \(counted(record.tasks.count, "task"))"
    if !entry.isConnected { return "it is not connected; \(has)" }
    if entry.isDraining { return "it is draining and takes no more; \(has)" }
    if entry.isPaused { return "it is paused and takes nothing; \(has)" }
    if entry.concurrency <= 0 { return "its concurrency is 0, so that nothing can run on it; \(has)" }

    let served = served(by: entry.serves)
    let all = crews[record.crew].pools.sorted().map { pools[$0] }
    let open = all.filter { !$0.isHeld && !groups[$0.group].isHeld }
    let queued = open.flatMap(\.shapes).filter { !shapes[$0].pending.isEmpty }
    if let first = queued.min(by: { shapes[$0].head.precedes(shapes[$1].head) }) {
      let count = queued.reduce(0) { $0 + shapes[$1].pending.items.count }
      let pending = "\(counted(count, "task")) \(served) \(count == 1 ? "is" : "are") pending"
      let fitting = queued.filter { entry.couldTake(shapes[$0].key.needs, weightMilli: weight($0)) }
      if fitting.isEmpty {
        let missing = requirements(of: shapes[first].key).filter { !meets(entry, $0) }
        return "\(pending) and none fits it: task \(shapes[first].head.id) needs "
          + "\(list(missing.map(\.description))); \(has)"
      }
      if !fitting.contains(where: isOpen) {
        return "\(pending), and their users have as much of the workers as they may; \(has)"
      }
      if let next = fitting.first(where: { isOpen($0) && findWorker($0) == index }) {
        return "it is about to be given task \(shapes[next].head.id); \(has)"
      }
      if fitting.allSatisfy({ record.freeRoom < weight($0) }) {
        return entry.roomMilli == 0
          ? "it is short of disk or throttled and takes nothing for now; \(has)"
          : "it is full; \(has), and \(pending)"
      }
      return "\(pending), and those that would fit it go to other workers; \(has)"
    }
    let waiting = all.reduce(0) { $0 + $1.counts[.waiting] }
    let rest = waiting == 0 ? "" : ", and \(waiting) \(waiting == 1 ? "waits" : "wait") for other tasks"
    return "no task \(served) is pending\(rest); \(has)"
  }

  private func served(by serves: Serving) -> String {
    switch serves {
    case .loose: "without a step"
    case .step(let step): "of step \(step)"
    case .workflow(let workflow): "of workflow \(workflow)"
    case .everything: "of any step"
    }
  }

  /// A task's place in the queue of its step, 1 for the first; nil unless it is pending. O(tasks ahead of
  /// it).
  package func place(of id: TaskID) -> Int? {
    guard let slot = tasks.find(id), tasks[slot].status == .pending else { return nil }
    let mine = QueueItem(priority: tasks[slot].priority, slot: slot, order: tasks[slot].order)
    var ahead = 0
    for shape in pools[shapes[tasks[slot].shape].key.pool].shapes {
      // What stands below an item that is not ahead is not ahead either.
      let items = shapes[shape].pending.items
      var open = [0]
      while let index = open.popLast() {
        guard index < items.count, tasks.precedes(items[index], mine) else { continue }
        ahead += 1
        for child in (4 * index + 1)...(4 * index + 4) where child < items.count { open.append(child) }
      }
    }
    return ahead + 1
  }

  private func explainWaiting(_ id: TaskID) -> Explanation? {
    // A number below zero is no task: it stands for the look at its own output.
    let unmet = unmetPrerequisites(of: id).filter { $0.rawValue > 0 }
    if unmet.isEmpty { return .outputUnchecked }
    // Those that have ended badly hold it up for good: they are named before those that are on their way.
    let named = unmet.min { a, b in
      let x = (standing(of: a)?.isFinal ?? false) ? 0 : 1
      let y = (standing(of: b)?.isFinal ?? false) ? 0 : 1
      return x == y ? a < b : x < y
    }
    return named.map { .waiting(for: $0, status: standing(of: $0), others: unmet.count - 1) }
  }

  private func explainPending(_ slot: UInt32) -> Explanation {
    let shape = tasks[slot].shape
    let key = shapes[shape].key
    let pool = pools[key.pool]
    let group = groups[pool.group]
    if tasks[slot].flags.contains(.held) { return .heldBack }
    if group.isHeld { return .workflowSuspended }
    if pool.isHeld, let step = pool.step { return .stepSuspended(step) }
    let place = place(of: tasks[slot].id) ?? 1
    let user = users[group.user]
    if !user.allows(key.needs) {
      return .quotaReached(
        running: user.running, of: user.entry.maximumRunning, cpuMilli: user.cpuMilli,
        ofMilli: user.entry.maximumCPUMilli)
    }
    if findWorker(shape) != nil { return .aboutToBeAssigned(place: place) }
    if let home = home(of: key) { return .waitsForWorker(workers[home].entry.id, place: place) }

    let connected = workerIndex.values.map { workers[$0] }.filter(\.entry.isConnected)
    let serving = connected.filter { pool.crews.contains($0.crew) }
    let taking = serving.map(\.entry).filter(\.isAssignable)
    if isFit(shape) {
      let able = taking.filter { $0.couldTake(key.needs, weightMilli: weight(shape)) }
      let preferred = able.filter { $0.id != key.avoid }
      return .full(workers: preferred.isEmpty ? able.count : preferred.count, place: place)
    }
    if connected.isEmpty { return .noWorkerConnected }
    if serving.isEmpty { return .noWorkerServes(step: pool.step, connected: connected.count) }
    if taking.isEmpty { return .workersTakeNothing(step: pool.step, workers: serving.count) }
    let all = requirements(of: key)
    let missing = all.filter { requirement in !taking.contains { meets($0, requirement) } }
    // Each is met by somebody, and nobody meets them all.
    return .doesNotFit(step: pool.step, workers: taking.count, missing: missing.isEmpty ? all : missing)
  }

  private func weight(_ shape: UInt32) -> Int64 { Int64(shapes[shape].key.weightMilli) }

  private func requirements(of key: ShapeKey) -> [Explanation.Requirement] {
    var all: [Explanation.Requirement] = []
    if key.needs.cpuMilli > 0 { all.append(.cpuMilli(key.needs.cpuMilli)) }
    if key.needs.memoryMiB > 0 { all.append(.memoryMiB(key.needs.memoryMiB)) }
    if key.needs.diskMiB > 0 { all.append(.diskMiB(key.needs.diskMiB)) }
    if key.needs.gpu > 0 { all.append(.gpu(key.needs.gpu)) }
    if key.needs.seconds > 0 { all.append(.seconds(key.needs.seconds)) }
    if key.needs.engines.contains(.containers) { all.append(.containers) }
    if key.needs.engines.contains(.processes) { all.append(.processes) }
    all.append(.slotsMilli(key.weightMilli))
    return all
  }

  private func meets(_ worker: WorkerEntry, _ requirement: Explanation.Requirement) -> Bool {
    switch requirement {
    case .cpuMilli(let milli): worker.capacity.cpuMilli >= milli
    case .memoryMiB(let mib): worker.capacity.memoryMiB >= mib
    case .diskMiB(let mib): worker.capacity.diskMiB >= mib
    case .gpu(let count): worker.capacity.gpu >= count
    case .seconds(let seconds): worker.capacity.seconds >= seconds
    case .containers: worker.capacity.engines.contains(.containers)
    case .processes: worker.capacity.engines.contains(.processes)
    case .slotsMilli(let milli): Int64(worker.concurrency) * 1000 >= Int64(milli)
    }
  }
}
