import ScitqProtocol

// Which shapes, pools and host classes there are, and where a pending task queues.

extension Cluster {
  /// - Parameter owner: whose share its tasks are taken from, where nothing else says it.
  mutating func acquirePool(_ key: PoolKey, owner: UserID) -> UInt32 {
    if let known = poolIndex[key] { return known }
    let group = acquireGroup(groupKey(of: key), owner: owner)
    let pool = pools.insert(Pool(key: key, group: group))
    poolIndex[key] = pool
    groups[group].pools.append(pool)
    if case .step(let step) = key { pools[pool].isHeld = stepEntries[step]?.isHeld ?? false }
    rerank(pool)
    connect(pool)
    return pool
  }

  /// Finds the workers that may be given a pool's tasks.
  mutating func connect(_ pool: UInt32) {
    disconnect(pool)
    var serving: [Serving] = []
    switch pools[pool].key {
    case .loose: serving = [.loose]
    case .step(let step):
      serving = [.step(step)]
      if let workflow = stepEntries[step]?.workflow { serving.append(.workflow(workflow)) }
    }
    serving.append(.everything)
    for serves in serving {
      let crew = acquireCrew(serves)
      crews[crew].pools.insert(pool)
      pools[pool].crews.append(crew)
    }
  }

  private mutating func disconnect(_ pool: UInt32) {
    for crew in pools[pool].crews {
      crews[crew].pools.remove(pool)
      releaseCrewIfEmpty(crew)
    }
    pools[pool].crews = []
  }

  /// A pool that has no tasks left is forgotten.
  mutating func releasePoolIfEmpty(_ pool: UInt32) {
    guard pools[pool].tasks == 0 else { return }
    let group = pools[pool].group
    disconnect(pool)
    groups[group].pools.removeAll { $0 == pool }
    releaseGroupIfEmpty(group)
    poolIndex[pools[pool].key] = nil
    pools.release(pool, leaving: Pool())
  }

  mutating func acquireCrew(_ serves: Serving) -> UInt32 {
    if let known = crewIndex[serves] { return known }
    let crew = crews.insert(Crew(serves: serves))
    crewIndex[serves] = crew
    return crew
  }

  mutating func releaseCrewIfEmpty(_ crew: UInt32) {
    guard crews[crew].workers == 0, crews[crew].pools.isEmpty else { return }
    for hostClass in crews[crew].classes { releaseClass(hostClass) }
    crewIndex[crews[crew].serves] = nil
    crews.release(crew, leaving: Crew(serves: .loose))
  }

  /// The shape, with one task more.
  mutating func acquireShape(_ key: ShapeKey) -> UInt32 {
    if let known = shapeIndex[key] {
      shapes[known].tasks += 1
      return known
    }
    let shape = shapes.insert(
      Shape(
        key: key, tasks: 1, head: QueueKey(priority: 0, order: 0, id: 0),
        member: UInt32(pools[key.pool].shapes.count)))
    shapeIndex[key] = shape
    pools[key.pool].shapes.append(shape)
    pools[key.pool].lightest = min(pools[key.pool].lightest, Int64(key.weightMilli))
    return shape
  }

  mutating func releaseShape(_ shape: UInt32) {
    homesick.remove(shape)
    let key = shapes[shape].key
    let member = shapes[shape].member
    let last = pools[key.pool].shapes.removeLast()
    if last != shape {
      pools[key.pool].shapes[Int(member)] = last
      shapes[last].member = member
    }
    if pools[key.pool].shapes.isEmpty { pools[key.pool].lightest = .max }
    shapeIndex[key] = nil
    shapes.release(shape, leaving: Shape(key: key, head: QueueKey(priority: 0, order: 0, id: 0)))
  }

  /// Puts a pending task in the queue, unless it is held or to be canceled.
  mutating func enqueue(_ slot: UInt32) {
    let task = tasks[slot]
    if !task.flags.isDisjoint(with: [.cancelWished, .held]) { return }
    shapes[task.shape].pending.insert(
      QueueItem(priority: task.priority, slot: slot, order: task.order), in: &tasks)
    headChanged(task.shape)
  }

  /// Takes a task out of the queue, if it is in it.
  mutating func dequeue(_ slot: UInt32) {
    let task = tasks[slot]
    guard task.position != nowhere else { return }
    shapes[task.shape].pending.remove(at: task.position, in: &tasks)
    headChanged(task.shape)
  }

  /// A shape's heap has changed: brings its standing, its rank in the pool and the pool's rank up to date.
  mutating func headChanged(_ shape: UInt32) {
    guard let first = shapes[shape].pending.first else {
      stand(shape, .idle)
      return
    }
    let head = QueueKey(priority: first.priority, order: first.order, id: tasks[first.slot].id)
    if shapes[shape].standing == .idle {
      shapes[shape].head = head
      stand(shape, .ready)
    } else if shapes[shape].head != head {
      shapes[shape].head = head
      if shapes[shape].standing == .ready {
        let pool = shapes[shape].key.pool
        pools[pool].ready.update(at: shapes[shape].position, in: &shapes)
        requeue(pool)
      }
    }
  }

  /// Gives a shape another standing in its pool.
  mutating func stand(_ shape: UInt32, _ standing: Shape.Standing) {
    let old = shapes[shape].standing
    if old == standing { return }
    let pool = shapes[shape].key.pool
    let position = shapes[shape].position
    switch old {
    case .idle: break
    case .ready: pools[pool].ready.remove(at: position, in: &shapes)
    case .full: takeOut(position, from: \.full, of: pool)
    case .unfit: takeOut(position, from: \.unfit, of: pool)
    }
    shapes[shape].standing = standing
    shapes[shape].position = nowhere
    if shapes[shape].key.prefer != nil {
      if standing == .full { homesick.insert(shape) } else if old == .full { homesick.remove(shape) }
    }
    switch standing {
    case .idle: break
    case .ready: pools[pool].ready.insert(shape, in: &shapes)
    case .full:
      shapes[shape].position = UInt32(pools[pool].full.count)
      pools[pool].full.append(shape)
    case .unfit:
      shapes[shape].position = UInt32(pools[pool].unfit.count)
      pools[pool].unfit.append(shape)
    }
    if old == .ready || standing == .ready { requeue(pool) }
  }

  private mutating func takeOut(
    _ position: UInt32, from list: WritableKeyPath<Pool, [UInt32]>, of pool: UInt32
  ) {
    let last = pools[pool][keyPath: list].removeLast()
    if Int(position) < pools[pool][keyPath: list].count {
      pools[pool][keyPath: list][Int(position)] = last
      shapes[last].position = position
    }
  }
}

// MARK: Workers in their classes

extension Cluster {
  /// Makes a worker one that may be given tasks.
  mutating func enlist(_ worker: UInt32) {
    let crew = workers[worker].crew
    let hostClass = acquireClass(HostKind(workers[worker].entry), in: crew)
    workers[worker].hostClass = hostClass
    classes[hostClass].members.insert(worker, in: &workers)
    summarize(hostClass)
    markStale(crew, .everything)
  }

  /// Makes a worker one that is not given tasks, if it was.
  mutating func retire(_ worker: UInt32) {
    guard workers[worker].position != nowhere else { return }
    let hostClass = workers[worker].hostClass
    classes[hostClass].members.remove(at: workers[worker].position, in: &workers)
    workers[worker].hostClass = nowhere
    summarize(hostClass)
    // A task that avoids another worker may now have nowhere else to go.
    markStale(workers[worker].crew, .everything)
  }

  mutating func changeLoad(of worker: UInt32, by milli: Int64) {
    if milli == 0 { return }
    workers[worker].loadMilli += milli
    guard workers[worker].position != nowhere else { return }
    let hostClass = workers[worker].hostClass
    classes[hostClass].members.update(at: workers[worker].position, in: &workers)
    summarize(hostClass)
    if milli < 0 { markStale(workers[worker].crew, .full) }
  }

  /// Writes into the tree what the class's emptiest worker has.
  private mutating func summarize(_ hostClass: UInt32) {
    let summary = summary(of: hostClass)
    crews[classes[hostClass].crew].tree.update(classes[hostClass].leaf, summary)
  }

  private func summary(of hostClass: UInt32) -> HostSummary {
    classes[hostClass].members.first.map { HostSummary(workers[$0]) } ?? HostSummary()
  }

  mutating func markStale(_ crew: UInt32, _ recheck: Crew.Recheck) {
    switch (crews[crew].recheck, recheck) {
    case (_, .nothing), (.everything, _), (.full, .full): return
    case (.nothing, _): stale.append(crew)
    case (.full, _): break
    }
    crews[crew].recheck = recheck
  }

  mutating func markStale(_ some: [UInt32]) {
    for crew in some { markStale(crew, .everything) }
  }

  /// The class of such hosts. A new one costs O(classes of the crew); one that is empty is kept for workers
  /// that come back, until empty ones are the majority.
  private mutating func acquireClass(_ kind: HostKind, in crew: UInt32) -> UInt32 {
    let list = crews[crew].classes
    var low = 0
    var high = list.count
    while low < high {
      let middle = (low + high) / 2
      if classes[list[middle]].kind < kind { low = middle + 1 } else { high = middle }
    }
    if low < list.count, classes[list[low]].kind == kind { return list[low] }

    let hostClass = classes.insert(HostClass(kind: kind, crew: crew))
    var kept = list
    kept.insert(hostClass, at: low)
    let empty = list.filter { classes[$0].members.isEmpty }
    if empty.count > 8, empty.count > list.count / 2 {
      kept.removeAll { $0 != hostClass && classes[$0].members.isEmpty }
      for one in empty { releaseClass(one) }
    }
    for (leaf, one) in kept.enumerated() { classes[one].leaf = leaf }
    crews[crew].tree = HostTree(kept.map(summary))
    crews[crew].classes = kept
    return hostClass
  }

  private mutating func releaseClass(_ hostClass: UInt32) {
    let kind = classes[hostClass].kind
    classes.release(hostClass, leaving: HostClass(kind: kind, crew: nowhere))
  }
}
