package import ScitqProtocol

/// One task waits for another. In two lists at once: what waits for the prerequisite, and what the dependent
/// waits for; linked both ways, so that taking one out costs the same in a list of a million.
struct Edge: Sendable {
  var prerequisite: TaskID
  /// Index of the task that waits.
  var dependent: UInt32
  var nextDependent = nowhere
  var previousDependent = nowhere
  var nextPrerequisite = nowhere
  var previousPrerequisite = nowhere
}

/// A task that others wait for. Held while they do, also after it has ended: it may be retried.
struct Prerequisite: Sendable {
  var first = nowhere
  var last = nowhere
  /// How it ended, if it did.
  var ended: TaskStatus?
}

/// What the end of a prerequisite brings about.
package struct Settlement: Hashable, Sendable {
  /// Tasks that have nothing left to wait for and went from waiting to pending, in the order in which they
  /// were added.
  package var freed: [TaskID] = []
  /// Tasks that asked to be canceled now. They still wait: canceling them is the engine's to do.
  package var toCancel: [TaskID] = []
  /// All tasks with fewer unmet prerequisites than before, the freed ones included.
  package var changed: [TaskID] = []

  package init() {}
}

extension Cluster {
  /// What still waits for a task, in the order in which it was added.
  package func dependents(of prerequisite: TaskID) -> [TaskID] {
    var ids: [TaskID] = []
    var edge = prerequisites[prerequisite]?.first ?? nowhere
    while edge != nowhere {
      ids.append(tasks[edges[edge].dependent].id)
      edge = edges[edge].nextDependent
    }
    return ids
  }

  /// What a task still waits for, the last named first.
  package func unmetPrerequisites(of dependent: TaskID) -> [TaskID] {
    guard let slot = tasks.find(dependent) else { return [] }
    var ids: [TaskID] = []
    var edge = tasks[slot].firstEdge
    while edge != nowhere {
      ids.append(edges[edge].prerequisite)
      edge = edges[edge].nextPrerequisite
    }
    return ids
  }

  /// A prerequisite has ended for good: with success, or with no retry to come. O(what waits for it).
  ///
  /// Success meets it for all that wait; failure for those that accept it. Cancellation meets nothing. The
  /// others go on waiting, and are blocked by it until `replace` puts a clone in its place.
  /// - Precondition: `outcome` is final, and the prerequisite is not in the cluster.
  package mutating func settle(_ prerequisite: TaskID, outcome: TaskStatus, on worker: WorkerID? = nil)
    -> Settlement
  {
    precondition(outcome.isFinal, "task \(prerequisite) is settled while it is \(outcome.word)")
    precondition(tasks.find(prerequisite) == nil, "task \(prerequisite) is settled before it has ended")
    var settlement = Settlement()
    guard let record = prerequisites[prerequisite] else { return settlement }
    prerequisites[prerequisite]?.ended = outcome
    var edge = record.first
    while edge != nowhere {
      let next = edges[edge].nextDependent
      let slot = edges[edge].dependent
      let task = tasks[slot]
      if outcome == .succeeded || outcome == .failed && task.flags.contains(.acceptFailure) {
        unlink(edge)
        tasks[slot].unmet -= 1
        // One that was named twice is told once.
        if settlement.changed.last != task.id { settlement.changed.append(task.id) }
        if tasks[slot].unmet == 0 {
          if outcome == .succeeded, let worker { prefer(worker, slot) }
        }
        if tasks[slot].unmet == 0, task.status == .waiting {
          change(slot, to: .pending)
          settlement.freed.append(task.id)
        }
      } else if task.flags.contains(.cancelsWithPrerequisite), settlement.toCancel.last != task.id {
        settlement.toCancel.append(task.id)
      }
      edge = next
    }
    return settlement
  }

  /// Nobody knows any more how a prerequisite ended: it goes on.
  package mutating func unsettle(_ prerequisite: TaskID) { prerequisites[prerequisite]?.ended = nil }

  /// A task that is not in the queue is to go where what it reads is.
  private mutating func prefer(_ worker: WorkerID, _ slot: UInt32) {
    let old = tasks[slot].shape
    var key = shapes[old].key
    guard groups[pools[key.pool].group].strategy == .thread, key.avoid != worker, key.prefer != worker else {
      return
    }
    key.prefer = worker
    tasks[slot].shape = acquireShape(key)
    shapes[old].tasks -= 1
    if shapes[old].tasks == 0 { releaseShape(old) }
  }

  /// A clone takes the place of a task that has ended: what waited for that waits for the clone.
  ///
  /// - Parameters:
  ///   - clone: as for `add`; to keep its place in the queue it has its predecessor's `order`.
  ///   - prerequisites: those of its predecessor that are not met.
  /// - Precondition: `old` is not in the cluster; otherwise as for `add`.
  /// - Complexity: O(what waits for it).
  package mutating func replace(
    _ old: TaskID, with clone: TaskEntry, waitingFor prerequisites: [TaskID] = []
  ) {
    precondition(tasks.find(old) == nil, "task \(old) is replaced before it has ended")
    add(clone, waitingFor: prerequisites)
    guard let moved = self.prerequisites.removeValue(forKey: old) else { return }
    var edge = moved.first
    while edge != nowhere {
      edges[edge].prerequisite = clone.id
      edge = edges[edge].nextDependent
    }
    guard var record = self.prerequisites[clone.id] else {
      self.prerequisites[clone.id] = Prerequisite(first: moved.first, last: moved.last)
      return
    }
    edges[record.last].nextDependent = moved.first
    edges[moved.first].previousDependent = record.last
    record.last = moved.last
    self.prerequisites[clone.id] = record
  }

  /// How a prerequisite stands: its status in the cluster, or how it ended. Nil when nothing is known of it.
  func standing(of prerequisite: TaskID) -> TaskStatus? {
    tasks.find(prerequisite).map { tasks[$0].status } ?? prerequisites[prerequisite]?.ended
  }

  mutating func link(_ dependent: UInt32, waitingFor prerequisite: TaskID) {
    var record = prerequisites[prerequisite] ?? Prerequisite()
    let edge = edges.insert(
      Edge(
        prerequisite: prerequisite, dependent: dependent, previousDependent: record.last,
        nextPrerequisite: tasks[dependent].firstEdge))
    if record.last == nowhere { record.first = edge } else { edges[record.last].nextDependent = edge }
    record.last = edge
    prerequisites[prerequisite] = record
    if tasks[dependent].firstEdge != nowhere { edges[tasks[dependent].firstEdge].previousPrerequisite = edge }
    tasks[dependent].firstEdge = edge
  }

  mutating func unlink(_ index: UInt32) {
    let edge = edges[index]
    if edge.previousDependent == nowhere || edge.nextDependent == nowhere {
      var record = prerequisites[edge.prerequisite] ?? Prerequisite()
      if edge.previousDependent == nowhere { record.first = edge.nextDependent }
      if edge.nextDependent == nowhere { record.last = edge.previousDependent }
      prerequisites[edge.prerequisite] = record.first == nowhere ? nil : record
    }
    if edge.previousDependent != nowhere { edges[edge.previousDependent].nextDependent = edge.nextDependent }
    if edge.nextDependent != nowhere { edges[edge.nextDependent].previousDependent = edge.previousDependent }
    if edge.previousPrerequisite == nowhere {
      tasks[edge.dependent].firstEdge = edge.nextPrerequisite
    } else {
      edges[edge.previousPrerequisite].nextPrerequisite = edge.nextPrerequisite
    }
    if edge.nextPrerequisite != nowhere {
      edges[edge.nextPrerequisite].previousPrerequisite = edge.previousPrerequisite
    }
    edges.release(index, leaving: Edge(prerequisite: 0, dependent: nowhere))
  }
}
