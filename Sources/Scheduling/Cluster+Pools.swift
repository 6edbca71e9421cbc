import ScitqProtocol

// Which shapes, pools and host classes there are, and where a pending task queues.

extension Cluster {
  mutating func acquirePool(_ step: StepID?) -> UInt32 {
    if let known = poolIndex[step] { return known }
    let pool = pools.insert(Pool(step: step))
    poolIndex[step] = pool
    return pool
  }

  /// A step that has neither tasks nor workers left is forgotten.
  mutating func releasePoolIfEmpty(_ pool: UInt32) {
    guard pools[pool].tasks == 0, pools[pool].workers == 0 else { return }
    for hostClass in pools[pool].classes { releaseClass(hostClass) }
    poolIndex[pools[pool].step] = nil
    pools.release(pool, leaving: Pool())
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

  /// Puts a pending task in the queue, unless it is to be canceled.
  mutating func enqueue(_ slot: UInt32) {
    let task = tasks[slot]
    if task.flags.contains(.cancelWished) { return }
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

  /// Brings the pool's place among the pools up to date: queued while it has a shape to try and any room at
  /// all.
  mutating func requeue(_ pool: UInt32) {
    let isQueued = pools[pool].position != nowhere
    guard let first = pools[pool].ready.first, pools[pool].tree.mostFreeRoom >= pools[pool].lightest else {
      if isQueued { queue.remove(at: pools[pool].position, in: &pools) }
      return
    }
    let head = shapes[first].head
    if !isQueued {
      pools[pool].head = head
      queue.insert(pool, in: &pools)
    } else if pools[pool].head != head {
      pools[pool].head = head
      queue.update(at: pools[pool].position, in: &pools)
    }
  }
}

// MARK: Workers in their classes

extension Cluster {
  /// Makes a worker one that may be given tasks.
  mutating func enlist(_ worker: UInt32) {
    let pool = workers[worker].pool
    let hostClass = acquireClass(HostKind(workers[worker].entry), in: pool)
    workers[worker].hostClass = hostClass
    classes[hostClass].members.insert(worker, in: &workers)
    summarize(hostClass)
    markStale(pool, .everything)
  }

  /// Makes a worker one that is not given tasks, if it was.
  mutating func retire(_ worker: UInt32) {
    guard workers[worker].position != nowhere else { return }
    let hostClass = workers[worker].hostClass
    classes[hostClass].members.remove(at: workers[worker].position, in: &workers)
    workers[worker].hostClass = nowhere
    summarize(hostClass)
    // A task that avoids another worker may now have nowhere else to go.
    markStale(workers[worker].pool, .everything)
  }

  mutating func changeLoad(of worker: UInt32, by milli: Int64) {
    if milli == 0 { return }
    workers[worker].loadMilli += milli
    guard workers[worker].position != nowhere else { return }
    let hostClass = workers[worker].hostClass
    classes[hostClass].members.update(at: workers[worker].position, in: &workers)
    summarize(hostClass)
    if milli < 0 { markStale(workers[worker].pool, .full) }
  }

  /// Writes into the tree what the class's emptiest worker has.
  private mutating func summarize(_ hostClass: UInt32) {
    let summary = summary(of: hostClass)
    pools[classes[hostClass].pool].tree.update(classes[hostClass].leaf, summary)
  }

  private func summary(of hostClass: UInt32) -> HostSummary {
    classes[hostClass].members.first.map { HostSummary(workers[$0]) } ?? HostSummary()
  }

  mutating func markStale(_ pool: UInt32, _ recheck: Pool.Recheck) {
    switch (pools[pool].recheck, recheck) {
    case (_, .nothing), (.everything, _), (.full, .full): return
    case (.nothing, _): stale.append(pool)
    case (.full, _): break
    }
    pools[pool].recheck = recheck
  }

  /// The class of such hosts. A new one costs O(classes of the pool); one that is empty is kept for workers
  /// that come back, until empty ones are the majority.
  private mutating func acquireClass(_ kind: HostKind, in pool: UInt32) -> UInt32 {
    let list = pools[pool].classes
    var low = 0
    var high = list.count
    while low < high {
      let middle = (low + high) / 2
      if classes[list[middle]].kind < kind { low = middle + 1 } else { high = middle }
    }
    if low < list.count, classes[list[low]].kind == kind { return list[low] }

    let hostClass = classes.insert(HostClass(kind: kind, pool: pool))
    var kept = list
    kept.insert(hostClass, at: low)
    let empty = list.filter { classes[$0].members.isEmpty }
    if empty.count > 8, empty.count > list.count / 2 {
      kept.removeAll { $0 != hostClass && classes[$0].members.isEmpty }
      for one in empty { releaseClass(one) }
    }
    for (leaf, one) in kept.enumerated() { classes[one].leaf = leaf }
    pools[pool].tree = HostTree(kept.map(summary))
    pools[pool].classes = kept
    return hostClass
  }

  private mutating func releaseClass(_ hostClass: UInt32) {
    let kind = classes[hostClass].kind
    classes.release(hostClass, leaving: HostClass(kind: kind, pool: nowhere))
  }
}
