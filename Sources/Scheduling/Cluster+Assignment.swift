import ScitqProtocol

extension Cluster {
  /// Gives pending tasks to workers: moves them to assigned and raises their assignment numbers.
  ///
  /// The order: priority of the first task; then the user, and of his workflows the one, that was given least by
  /// weight; then, in a workflow that goes step by step, the earlier step; then place. Each task goes, of the
  /// assignable workers that serve its step and whose host suffices, to one with a free slot before one with room
  /// in its prefetch only; of these to one that serves nothing but the step before one that serves its workflow,
  /// and those before one that serves everything; then to the smallest kind of host; of equal ones to the
  /// emptiest; of these to the first by id. A task that prefers a worker waits for room there, unless another
  /// would have nothing to do. A task that fits nowhere now is passed over and holds up nobody. Afterwards nothing
  /// that is pending fits anywhere, unless `limit` was reached, but for what its user's limits or a preference
  /// keep back.
  ///
  /// - Parameter limit: the most that are assigned; what is left is for the next call.
  /// - Complexity: O(log tasks + log kinds of hosts) for each, and once a call O(shapes) for each step whose
  ///   workers got room, where tasks of equal needs and weight have one shape.
  package mutating func assign(limit: Int) -> [Assignment] {
    refresh()
    var made: [Assignment] = []
    while made.count < limit, let user = queue.first, let group = users[user].ready.first,
      let pool = groups[group].ready.first, let shape = pools[pool].ready.first
    {
      guard let worker = findWorker(shape) else {
        stand(shape, isFit(shape) ? .full : .unfit)
        continue
      }
      guard give(shape, to: worker, &made) else { break }
    }
    if made.count < limit, !homesick.isEmpty { comfort(limit, &made) }
    return made
  }

  /// Gives the first task of a shape to a worker.
  private mutating func give(_ shape: UInt32, to worker: UInt32, _ made: inout [Assignment]) -> Bool {
    guard let slot = shapes[shape].pending.first?.slot else { return false }
    let pool = shapes[shape].key.pool
    tasks[slot].assignment += 1
    let weight = weight(of: slot)
    serve(pool, weightMilli: weight)
    change(slot, to: .assigned, worker: worker)
    // It may have taken the pool's last room.
    requeue(pool)
    made.append(
      Assignment(task: tasks[slot].id, worker: workers[worker].entry.id, number: tasks[slot].assignment))
    return true
  }

  /// What waits for one worker goes to others that would have nothing to do.
  private mutating func comfort(_ limit: Int, _ made: inout [Assignment]) {
    let waiting = homesick.sorted { shapes[$0].head.precedes(shapes[$1].head) }
    for shape in waiting {
      while made.count < limit, shapes[shape].standing == .full, isOpen(shape) {
        var demand = demand(of: shapes[shape].key)
        let pool = shapes[shape].key.pool
        guard pools[pool].crews.contains(where: { crews[$0].tree.mostFreeSlots >= demand.weightMilli }) else {
          break
        }
        var worker = search(demand, in: pool, for: .freeSlot)
        if worker == nil, demand.avoid != nowhere, search(demand, in: pool, for: .anyone) == nil {
          demand.avoid = nowhere
          worker = search(demand, in: pool, for: .freeSlot)
        }
        guard let worker, give(shape, to: worker, &made) else { break }
      }
    }
  }

  /// Makes ready what may fit again since workers have changed.
  private mutating func refresh() {
    for crew in stale {
      let recheck = crews[crew].recheck
      crews[crew].recheck = .nothing
      if recheck == .nothing { continue }
      for pool in crews[crew].pools { refresh(pool, recheck) }
    }
    stale.removeAll(keepingCapacity: true)
  }

  private mutating func refresh(_ pool: UInt32, _ recheck: Crew.Recheck) {
    // Only what has somewhere to go is queued again: a worker that comes must not stir up what it cannot take.
    for shape in pools[pool].full {
      if findWorker(shape) != nil {
        stand(shape, .ready)
      } else if recheck == .everything, !isFit(shape) {
        stand(shape, .unfit)
      }
    }
    if recheck == .everything {
      for shape in pools[pool].unfit where isFit(shape) { stand(shape, .ready) }
    }
    requeue(pool)
  }

  /// The worker that the first pending task of a shape goes to now, or nil.
  func findWorker(_ shape: UInt32) -> UInt32? {
    let key = shapes[shape].key
    var demand = demand(of: key)
    if let home = home(of: key) { return workers[home].freeRoom >= demand.weightMilli ? home : nil }
    if let worker = findRoom(demand, in: key.pool) { return worker }
    // The worker it avoids is better than none at all, but not better than waiting for another.
    guard demand.avoid != nowhere, search(demand, in: key.pool, for: .anyone) == nil else { return nil }
    demand.avoid = nowhere
    return findRoom(demand, in: key.pool)
  }

  /// The worker that tasks of this shape wait for: it holds what they read, and could take them.
  func home(of key: ShapeKey) -> UInt32? {
    guard let prefer = key.prefer, let worker = workerIndex[prefer], workers[worker].entry.isAssignable,
      pools[key.pool].crews.contains(workers[worker].crew),
      workers[worker].entry.couldTake(key.needs, weightMilli: Int64(key.weightMilli))
    else { return nil }
    return worker
  }

  /// Whether some assignable worker could take tasks of this shape if it were empty.
  func isFit(_ shape: UInt32) -> Bool {
    var demand = demand(of: shapes[shape].key)
    demand.avoid = nowhere
    return search(demand, in: shapes[shape].key.pool, for: .anyone) != nil
  }

  func demand(of key: ShapeKey) -> Demand {
    Demand(
      needs: key.needs, weightMilli: Int64(key.weightMilli),
      avoid: key.avoid.flatMap { workerIndex[$0] } ?? nowhere)
  }

  private func findRoom(_ demand: Demand, in pool: UInt32) -> UInt32? {
    search(demand, in: pool, for: .freeSlot) ?? search(demand, in: pool, for: .room)
  }

  /// The first worker, by crew, kind of host and then the emptiest, that has what is wanted.
  private func search(_ demand: Demand, in pool: UInt32, for wanted: Wanted) -> UInt32? {
    for crew in pools[pool].crews where !crews[crew].tree.nodes.isEmpty {
      if let worker = search(demand, of: crew, for: wanted, under: 1) { return worker }
    }
    return nil
  }

  private func search(_ demand: Demand, of crew: UInt32, for wanted: Wanted, under node: Int) -> UInt32? {
    guard demand.mightFit(crews[crew].tree.nodes[node], wanted) else { return nil }
    let leaves = crews[crew].tree.leaves
    if node < leaves {
      return search(demand, of: crew, for: wanted, under: 2 * node)
        ?? search(demand, of: crew, for: wanted, under: 2 * node + 1)
    }
    let members = classes[crews[crew].classes[node - leaves]].members.items
    guard let first = members.first else { return nil }
    if first != demand.avoid { return first }
    // The next emptiest is one of its children.
    var second = nowhere
    for child in members.dropFirst().prefix(4)
    where second == nowhere || workers.precedes(child, second) {
      second = child
    }
    guard second != nowhere, demand.mightFit(HostSummary(workers[second]), wanted) else { return nil }
    return second
  }
}
