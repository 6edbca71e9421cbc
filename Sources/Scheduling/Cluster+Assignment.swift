import ScitqProtocol

extension Cluster {
  /// Gives pending tasks to workers: moves them to assigned and raises their assignment numbers.
  ///
  /// Goes through the queue by priority, then place. Each task goes, of the assignable workers of its step
  /// whose host suffices, to one with a free slot before one with room in its prefetch only; of these to the
  /// smallest kind of host; of equal ones to the emptiest; of these to the first by id. A task that fits
  /// nowhere now is passed over and holds up nobody. Afterwards nothing that is pending fits anywhere, unless
  /// `limit` was reached.
  ///
  /// - Parameter limit: the most that are assigned; what is left is for the next call.
  /// - Complexity: O(log tasks + log kinds of hosts) for each, and once a call O(shapes) for each step whose
  ///   workers got room, where tasks of equal needs and weight have one shape.
  package mutating func assign(limit: Int) -> [Assignment] {
    refresh()
    var made: [Assignment] = []
    while made.count < limit, let pool = queue.first, let shape = pools[pool].ready.first {
      guard let worker = findWorker(shape) else {
        stand(shape, isFit(shape) ? .full : .unfit)
        continue
      }
      guard let slot = shapes[shape].pending.first?.slot else { break }
      tasks[slot].assignment += 1
      change(slot, to: .assigned, worker: worker)
      // It may have taken the pool's last room.
      requeue(pool)
      made.append(
        Assignment(
          task: tasks[slot].id, worker: workers[worker].entry.id, number: tasks[slot].assignment))
    }
    return made
  }

  /// Makes ready what may fit again since workers have changed.
  private mutating func refresh() {
    for pool in stale {
      let recheck = pools[pool].recheck
      pools[pool].recheck = .nothing
      if recheck == .nothing { continue }
      // Only what has somewhere to go is queued again: a worker that comes must not stir up what it cannot
      // take.
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
    stale.removeAll(keepingCapacity: true)
  }

  /// The worker that the first pending task of a shape goes to now, or nil.
  func findWorker(_ shape: UInt32) -> UInt32? {
    let key = shapes[shape].key
    var demand = demand(of: key)
    if let worker = findRoom(demand, in: key.pool) { return worker }
    // The worker it avoids is better than none at all, but not better than waiting for another.
    guard demand.avoid != nowhere, search(demand, in: key.pool, for: .anyone) == nil else { return nil }
    demand.avoid = nowhere
    return findRoom(demand, in: key.pool)
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

  /// The first worker, by kind of host and then the emptiest, that has what is wanted.
  private func search(_ demand: Demand, in pool: UInt32, for wanted: Wanted) -> UInt32? {
    if pools[pool].tree.nodes.isEmpty { return nil }
    return search(demand, in: pool, for: wanted, under: 1)
  }

  private func search(_ demand: Demand, in pool: UInt32, for wanted: Wanted, under node: Int) -> UInt32? {
    guard demand.mightFit(pools[pool].tree.nodes[node], wanted) else { return nil }
    let leaves = pools[pool].tree.leaves
    if node < leaves {
      return search(demand, in: pool, for: wanted, under: 2 * node)
        ?? search(demand, in: pool, for: wanted, under: 2 * node + 1)
    }
    let members = classes[pools[pool].classes[node - leaves]].members.items
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
