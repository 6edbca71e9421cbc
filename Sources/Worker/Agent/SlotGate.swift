package import ScitqProtocol

/// Who may run next on this host.
///
/// A task takes its weight of the host's slots, and what it needs of cpu, memory and gpus. Highest priority first,
/// then in the order of arrival; nobody passes a task that waits before it, so a big one is not starved by small
/// ones. A task that would be alone may always run, whatever it weighs and needs.
package struct SlotGate: Sendable {
  /// What one task takes.
  package struct Load: Sendable, Hashable {
    package var weight: Double
    package var cpu: Double
    package var memory: Int64
    package var gpu: UInt32

    package init(weight: Double, cpu: Double = 0, memory: Int64 = 0, gpu: UInt32 = 0) {
      self.weight = weight > 0 ? weight : 1
      self.cpu = cpu
      self.memory = memory
      self.gpu = gpu
    }
  }

  private struct Waiting {
    var id: AttemptID
    var load: Load
    var priority: Int32
    var number: UInt64
  }

  /// Slots: the sum of weights that may run side by side.
  package var slots: Double
  /// What the host has.
  package var host: Load

  package private(set) var running: [AttemptID: Load] = [:]
  private var weight = 0.0
  private var cpu = 0.0
  private var memory: Int64 = 0
  private var gpu: UInt32 = 0
  /// The next one last.
  private var waiting: [Waiting] = []
  private var arrivals: UInt64 = 0

  package init(slots: Double, host: Load) {
    self.slots = slots
    self.host = host
  }

  package var waitingCount: Int { waiting.count }

  /// Takes a slot at once if one is free and nobody waits before this task.
  package mutating func enter(_ id: AttemptID, _ load: Load) -> Bool {
    if running[id] != nil { return true }
    guard waiting.isEmpty, hasRoom(for: load) else { return false }
    take(id, load)
    return true
  }

  /// For a command that runs already, found after a restart: it has its slot whether there is room or not.
  package mutating func enterAnyway(_ id: AttemptID, _ load: Load) {
    if running[id] == nil { take(id, load) }
  }

  package mutating func wait(_ id: AttemptID, _ load: Load, priority: Int32) {
    arrivals += 1
    let one = Waiting(id: id, load: load, priority: priority, number: arrivals)
    // Behind everybody of the same or a higher priority; the next to run stands last.
    var low = 0
    var high = waiting.count
    while low < high {
      let middle = (low + high) / 2
      if waiting[middle].priority < priority { low = middle + 1 } else { high = middle }
    }
    waiting.insert(one, at: low)
  }

  /// Gives a slot back, or leaves the queue.
  package mutating func leave(_ id: AttemptID) {
    if let load = running.removeValue(forKey: id) {
      weight -= load.weight
      cpu -= load.cpu
      memory -= load.memory
      gpu -= load.gpu
      if running.isEmpty {
        // Sums of fractions do not come back to zero by themselves.
        weight = 0
        cpu = 0
      }
    } else {
      waiting.removeAll { $0.id == id }
    }
  }

  /// Those who may run now, in their order; they have their slots.
  package mutating func admit() -> [AttemptID] {
    var admitted: [AttemptID] = []
    while let next = waiting.last, hasRoom(for: next.load) {
      waiting.removeLast()
      take(next.id, next.load)
      admitted.append(next.id)
    }
    return admitted
  }

  private mutating func take(_ id: AttemptID, _ load: Load) {
    running[id] = load
    weight += load.weight
    cpu += load.cpu
    memory += load.memory
    gpu += load.gpu
  }

  private func hasRoom(for load: Load) -> Bool {
    if running.isEmpty { return true }
    let hair = 1e-9
    return weight + load.weight <= slots + hair
      && cpu + load.cpu <= host.cpu + hair
      && memory + load.memory <= host.memory
      && UInt64(gpu) + UInt64(load.gpu) <= UInt64(host.gpu)
  }
}
