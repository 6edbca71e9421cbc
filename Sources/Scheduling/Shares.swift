package import ScitqProtocol

/// Tasks that share a queue: those of a step, or those of a user that have no step.
enum PoolKey: Hashable, Sendable {
  case step(StepID)
  case loose(UserID)
}

/// Tasks that have one share of their owner's: those of a workflow, or those that are in none.
enum GroupKey: Hashable, Sendable {
  case workflow(WorkflowID)
  /// A step of which nobody has said whose it is.
  case step(StepID)
  case loose(UserID)
}

/// A workflow's part of the queue.
struct Group: Sendable, Ranked {
  var key: GroupKey
  var user: UInt32
  var strategy = RunStrategy.batch
  var weightMilli: Int64 = 1000
  var isHeld = false
  /// All its pools. Few: one for each step that has tasks.
  var pools: [UInt32] = []
  /// Those with something to try.
  var ready = IndexedHeap<UInt32>()
  /// How much it was given, by weight: who was given less comes first.
  var pass: Int64 = 0
  /// The rank of the first task.
  var head = QueueKey(priority: 0, order: 0, id: 0)
  /// In its user's queue.
  var position: UInt32 = nowhere

  static func precedes(_ elements: [Group], _ a: Int, _ b: Int) -> Bool {
    let (x, y) = (elements[a].head, elements[b].head)
    if x.priority != y.priority { return x.priority > y.priority }
    if elements[a].pass != elements[b].pass { return elements[a].pass < elements[b].pass }
    return x.precedes(y)
  }
}

/// A user's part of the queue, and what he has of the workers.
struct Shareholder: Sendable, Ranked {
  var entry: UserEntry
  /// All his groups.
  var groups = 0
  /// Those with something to try.
  var ready = IndexedHeap<UInt32>()
  /// The largest weight among those.
  var largestMilli: Int64 = 0
  var pass: Int64 = 0
  /// The pass of the group that was served last: one that comes anew starts there, so that idle time is not saved.
  var groupTime: Int64 = 0
  var head = QueueKey(priority: 0, order: 0, id: 0)
  /// In the queue of all users.
  var position: UInt32 = nowhere
  /// His tasks that hold room on workers, and the sum of the cpu that they state.
  var running: Int32 = 0
  var cpuMilli: Int64 = 0

  static func precedes(_ elements: [Shareholder], _ a: Int, _ b: Int) -> Bool {
    let (x, y) = (elements[a].head, elements[b].head)
    if x.priority != y.priority { return x.priority > y.priority }
    if elements[a].pass != elements[b].pass { return elements[a].pass < elements[b].pass }
    return x.precedes(y)
  }

  /// Whether one more task may be given to a worker.
  func allows(_ needs: Needs) -> Bool {
    if let most = entry.maximumRunning, running >= most { return false }
    if let most = entry.maximumCPUMilli, cpuMilli + Int64(needs.cpuMilli) > most { return false }
    return true
  }
}

extension Cluster {
  /// How much a start costs a share of one: 1000 thousandths of a slot are 100,000.
  private static let cost: Int64 = 100_000

  // MARK: What there is

  /// Makes a workflow known, or says what it is like now.
  package mutating func set(_ workflow: WorkflowEntry) {
    let known = workflowEntries.updateValue(workflow, forKey: workflow.id)
    let group = acquireGroup(.workflow(workflow.id), owner: workflow.owner)
    give(group, to: acquireUser(workflow.owner))
    groups[group].weightMilli = Int64(max(1, workflow.weightMilli))
    groups[group].isHeld = workflow.isHeld
    if groups[group].strategy != workflow.strategy {
      groups[group].strategy = workflow.strategy
      for pool in groups[group].pools { rerank(pool) }
    }
    if groups[group].position != nowhere, known?.weightMilli != workflow.weightMilli {
      measureShares(of: groups[group].user)
    }
    requeueGroup(group)
  }

  /// Forgets a workflow, once its steps are gone.
  package mutating func removeWorkflow(_ id: WorkflowID) {
    workflowEntries[id] = nil
    if let group = groupIndex[.workflow(id)] { releaseGroupIfEmpty(group) }
  }

  /// Makes a step known, or says what it is like now.
  package mutating func set(_ step: StepEntry) {
    let known = stepEntries.updateValue(step, forKey: step.id)
    guard let pool = poolIndex[.step(step.id)] else { return }
    if known?.workflow != step.workflow { regroup(pool) }
    pools[pool].isHeld = step.isHeld
    requeue(pool)
  }

  /// Forgets a step, once its tasks and workers are gone.
  package mutating func removeStep(_ id: StepID) {
    stepEntries[id] = nil
    if let pool = poolIndex[.step(id)] { releasePoolIfEmpty(pool) }
  }

  /// Says what a user's share and limits are. A user of whom nothing was said has a share of one and no limits.
  package mutating func set(_ user: UserEntry) {
    let index = acquireUser(user.id)
    users[index].entry = user
    requeueUser(index)
  }

  /// What a user has of the workers: tasks that hold room, and the cpu that they state, in thousandths.
  package func usage(of user: UserID) -> (running: Int32, cpuMilli: Int64) {
    userIndex[user].map { (users[$0].running, users[$0].cpuMilli) } ?? (0, 0)
  }

  private mutating func acquireUser(_ id: UserID) -> UInt32 {
    if let known = userIndex[id] { return known }
    let user = users.insert(Shareholder(entry: UserEntry(id: id)))
    userIndex[id] = user
    return user
  }

  func groupKey(of pool: PoolKey) -> GroupKey {
    switch pool {
    case .loose(let user): .loose(user)
    case .step(let step): stepEntries[step].map { .workflow($0.workflow) } ?? .step(step)
    }
  }

  mutating func acquireGroup(_ key: GroupKey, owner: UserID) -> UInt32 {
    if let known = groupIndex[key] { return known }
    var owner = owner
    var group = Group(key: key, user: nowhere)
    if case .workflow(let id) = key, let entry = workflowEntries[id] {
      owner = entry.owner
      group.strategy = entry.strategy
      group.weightMilli = Int64(max(1, entry.weightMilli))
      group.isHeld = entry.isHeld
    }
    group.user = acquireUser(owner)
    users[group.user].groups += 1
    let index = groups.insert(group)
    groupIndex[key] = index
    return index
  }

  mutating func releaseGroupIfEmpty(_ group: UInt32) {
    guard groups[group].pools.isEmpty else { return }
    if case .workflow(let id) = groups[group].key, workflowEntries[id] != nil { return }
    users[groups[group].user].groups -= 1
    groupIndex[groups[group].key] = nil
    groups.release(group, leaving: Group(key: .loose(0), user: nowhere))
  }

  /// A pool's step is another workflow's than was thought.
  private mutating func regroup(_ pool: UInt32) {
    let old = pools[pool].group
    let key = groupKey(of: pools[pool].key)
    guard groups[old].key != key else { return }
    takeOut(pool)
    let usage = pools[pool].usage
    charge(pools[pool].group, usage, -1)
    groups[old].pools.removeAll { $0 == pool }
    let new = acquireGroup(key, owner: users[groups[old].user].entry.id)
    groups[new].pools.append(pool)
    pools[pool].group = new
    charge(new, usage, +1)
    releaseGroupIfEmpty(old)
    rerank(pool)
    connect(pool)
    markStale(pools[pool].crews)
    requeue(pool)
  }

  /// A group is another user's than was thought: tasks of its steps came before it was known.
  private mutating func give(_ group: UInt32, to user: UInt32) {
    let old = groups[group].user
    if old == user { return }
    if groups[group].position != nowhere {
      users[old].ready.remove(at: groups[group].position, in: &groups)
      measureShares(of: old)
      requeueUser(old)
    }
    for pool in groups[group].pools { charge(group, pools[pool].usage, -1) }
    users[old].groups -= 1
    groups[group].user = user
    users[user].groups += 1
    for pool in groups[group].pools { charge(group, pools[pool].usage, +1) }
  }

  private mutating func charge(_ group: UInt32, _ usage: (running: Int32, cpuMilli: Int64), _ sign: Int32) {
    users[groups[group].user].running += sign * usage.running
    users[groups[group].user].cpuMilli += Int64(sign) * usage.cpuMilli
  }

  /// A task has begun, or ceased, to hold room.
  mutating func occupy(_ slot: UInt32, _ sign: Int32) {
    let key = shapes[tasks[slot].shape].key
    pools[key.pool].usage.running += sign
    pools[key.pool].usage.cpuMilli += Int64(sign) * Int64(key.needs.cpuMilli)
    let user = groups[pools[key.pool].group].user
    users[user].running += sign
    users[user].cpuMilli += Int64(sign) * Int64(key.needs.cpuMilli)
    let limits = users[user].entry
    if limits.maximumRunning != nil || limits.maximumCPUMilli != nil { requeueUser(user) }
  }

  // MARK: The order

  /// A pool's rank in its group: by step where steps are finished one after the other.
  mutating func rerank(_ pool: UInt32) {
    var rank: Int64 = 0
    if case .step(let step) = pools[pool].key, groups[pools[pool].group].strategy != .thread {
      rank = step.rawValue
    }
    guard rank != pools[pool].rank else { return }
    pools[pool].rank = rank
    let group = pools[pool].group
    if pools[pool].position != nowhere {
      groups[group].ready.update(at: pools[pool].position, in: &pools)
      requeueGroup(group)
    }
  }

  /// Takes a pool out of the queue.
  private mutating func takeOut(_ pool: UInt32) {
    guard pools[pool].position != nowhere else { return }
    groups[pools[pool].group].ready.remove(at: pools[pool].position, in: &pools)
    requeueGroup(pools[pool].group)
  }

  /// Brings the pool's place in its group up to date: queued while it has a shape to try and any room at all.
  mutating func requeue(_ pool: UInt32) {
    let group = pools[pool].group
    guard !pools[pool].isHeld, let first = pools[pool].ready.first, hasRoom(pool) else {
      takeOut(pool)
      return
    }
    let head = shapes[first].head
    if pools[pool].position == nowhere {
      pools[pool].head = head
      groups[group].ready.insert(pool, in: &pools)
    } else if pools[pool].head != head {
      pools[pool].head = head
      groups[group].ready.update(at: pools[pool].position, in: &pools)
    } else {
      return
    }
    requeueGroup(group)
  }

  private func hasRoom(_ pool: UInt32) -> Bool {
    let lightest = pools[pool].lightest
    return pools[pool].crews.contains { crews[$0].tree.mostFreeRoom >= lightest }
  }

  mutating func requeueGroup(_ group: UInt32) {
    let user = groups[group].user
    guard !groups[group].isHeld, let first = groups[group].ready.first else {
      if groups[group].position != nowhere {
        users[user].ready.remove(at: groups[group].position, in: &groups)
        if groups[group].weightMilli == users[user].largestMilli { measureShares(of: user) }
        requeueUser(user)
      }
      return
    }
    let head = pools[first].head
    if groups[group].position == nowhere {
      groups[group].head = head
      groups[group].pass = max(groups[group].pass, users[user].groupTime)
      users[user].ready.insert(group, in: &groups)
      users[user].largestMilli = max(users[user].largestMilli, groups[group].weightMilli)
    } else if groups[group].head != head {
      groups[group].head = head
      users[user].ready.update(at: groups[group].position, in: &groups)
    } else {
      return
    }
    requeueUser(user)
  }

  private mutating func measureShares(of user: UInt32) {
    users[user].largestMilli = users[user].ready.items.reduce(0) { max($0, groups[$1].weightMilli) }
  }

  mutating func requeueUser(_ user: UInt32) {
    guard let first = users[user].ready.first, isWithinQuota(user) else {
      if users[user].position != nowhere { queue.remove(at: users[user].position, in: &users) }
      return
    }
    let head = groups[first].head
    if users[user].position == nowhere {
      users[user].head = head
      users[user].pass = max(users[user].pass, userTime)
      queue.insert(user, in: &users)
    } else if users[user].head != head {
      users[user].head = head
      queue.update(at: users[user].position, in: &users)
    }
  }

  /// Whether the first task of a user may be given to a worker.
  private func isWithinQuota(_ user: UInt32) -> Bool {
    let limits = users[user].entry
    if limits.maximumRunning == nil && limits.maximumCPUMilli == nil { return true }
    guard let group = users[user].ready.first, let pool = groups[group].ready.first,
      let shape = pools[pool].ready.first
    else { return true }
    return users[user].allows(shapes[shape].key.needs)
  }

  /// Whether a task of this shape may be given to a worker, as far as that is not a matter of workers.
  func isOpen(_ shape: UInt32) -> Bool {
    let pool = shapes[shape].key.pool
    let group = pools[pool].group
    return !pools[pool].isHeld && !groups[group].isHeld
      && users[groups[group].user].allows(shapes[shape].key.needs)
  }

  /// A task of the pool was given to a worker: its workflow and its user have had that much more.
  mutating func serve(_ pool: UInt32, weightMilli: Int64) {
    let group = pools[pool].group
    let user = groups[group].user
    users[user].groupTime = max(users[user].groupTime, groups[group].pass)
    groups[group].pass += weightMilli * Self.cost / groups[group].weightMilli
    let largest = max(users[user].largestMilli, groups[group].weightMilli)
    userTime = max(userTime, users[user].pass)
    users[user].pass +=
      weightMilli * Self.cost / max(1, Int64(users[user].entry.weightMilli) * largest / 1000)
    if groups[group].position != nowhere { users[user].ready.update(at: groups[group].position, in: &groups) }
    if users[user].position != nowhere {
      if let first = users[user].ready.first { users[user].head = groups[first].head }
      queue.update(at: users[user].position, in: &users)
    }
    requeueUser(user)
  }
}
