import ScitqProtocol

/// Tasks of one step, or those of a user that have none.
struct Pool: Sendable, Ranked {
  var key = PoolKey.loose(0)
  var group: UInt32 = nowhere
  /// Workers that may be given its tasks, those that have nothing else to serve first.
  var crews: [UInt32] = []
  /// Tasks by status.
  var counts = StatusCounts()
  var tasks = 0
  /// What of the workers its tasks hold.
  var usage: (running: Int32, cpuMilli: Int64) = (0, 0)
  /// Its step is suspended.
  var isHeld = false

  /// Shapes to be tried.
  var ready = IndexedHeap<UInt32>()
  /// Shapes whose workers are all full.
  var full: [UInt32] = []
  /// Shapes that no worker could take.
  var unfit: [UInt32] = []
  /// All shapes.
  var shapes: [UInt32] = []
  /// No shape here weighs less. With less room than that nothing needs to be tried.
  var lightest = Int64.max

  /// Smaller goes first among the pools of a group.
  var rank: Int64 = 0
  /// The rank of the first ready shape.
  var head = QueueKey(priority: 0, order: 0, id: 0)
  /// In its group's queue.
  var position: UInt32 = nowhere

  var step: StepID? {
    if case .step(let step) = key { step } else { nil }
  }

  static func precedes(_ elements: [Pool], _ a: Int, _ b: Int) -> Bool {
    let (x, y) = (elements[a].head, elements[b].head)
    if x.priority != y.priority { return x.priority > y.priority }
    if elements[a].rank != elements[b].rank { return elements[a].rank < elements[b].rank }
    return x.precedes(y)
  }
}

/// Workers that serve the same.
struct Crew: Sendable {
  var serves: Serving
  /// All of them, assignable or not.
  var workers = 0
  /// Whose tasks they may be given.
  var pools: Set<UInt32> = []
  /// Host classes, smallest first, and the tree over them.
  var classes: [UInt32] = []
  var tree = HostTree()
  var recheck = Recheck.nothing

  /// Which shapes are tried again before anything is assigned.
  enum Recheck: Sendable {
    case nothing, full, everything
  }
}

/// A worker and what it has.
struct WorkerRecord: Sendable, Ranked {
  var entry: WorkerEntry
  var crew: UInt32
  var hostClass: UInt32 = nowhere
  /// Σ weight of its tasks that hold room.
  var loadMilli: Int64 = 0
  /// Indexes of all its tasks.
  var tasks: [UInt32] = []
  /// In its class's heap while it may be given tasks.
  var position: UInt32 = nowhere

  var freeSlots: Int64 { entry.runningMilli - loadMilli }
  var freeRoom: Int64 { entry.roomMilli - loadMilli }

  static func precedes(_ elements: [WorkerRecord], _ a: Int, _ b: Int) -> Bool {
    let x = elements[a].loadMilli
    let y = elements[b].loadMilli
    return x == y ? elements[a].entry.id < elements[b].entry.id : x < y
  }
}

/// Workers that differ in load and id only. The emptiest stands first: what does not fit there fits none of
/// them.
struct HostClass: Sendable {
  var kind: HostKind
  var crew: UInt32
  var members = IndexedHeap<UInt32>()
  /// In its crew's `classes`.
  var leaf = 0
}

/// What makes workers equal, in the order in which hosts are filled: without GPUs first, then by memory.
struct HostKind: Hashable, Sendable, Comparable {
  var capacity: Needs
  var concurrency: Int32
  var prefetch: Int32
  var reducedRoom: Int32

  init(_ worker: WorkerEntry) {
    capacity = worker.capacity
    concurrency = worker.concurrency
    prefetch = worker.prefetch
    reducedRoom = worker.reducedRoom
  }

  static func < (a: HostKind, b: HostKind) -> Bool {
    let x = a.capacity
    let y = b.capacity
    return if x.gpu != y.gpu {
      x.gpu < y.gpu
    } else if x.memoryMiB != y.memoryMiB {
      x.memoryMiB < y.memoryMiB
    } else if x.cpuMilli != y.cpuMilli {
      x.cpuMilli < y.cpuMilli
    } else if x.diskMiB != y.diskMiB {
      x.diskMiB < y.diskMiB
    } else if x.seconds != y.seconds {
      x.seconds < y.seconds
    } else if x.engines != y.engines {
      x.engines.rawValue < y.engines.rawValue
    } else if a.concurrency != b.concurrency {
      a.concurrency < b.concurrency
    } else if a.prefetch != b.prefetch {
      a.prefetch < b.prefetch
    } else {
      a.reducedRoom < b.reducedRoom
    }
  }
}

/// The most that any worker of some classes has, each figure by itself.
struct HostSummary: Sendable {
  var most = Needs(cpuMilli: -1, memoryMiB: -1, diskMiB: -1, gpu: -1, seconds: -1)
  var concurrencyMilli: Int64 = -1
  var freeSlots = Int64.min
  var freeRoom = Int64.min

  /// Of nobody.
  init() {}

  init(_ worker: WorkerRecord) {
    most = worker.entry.capacity
    concurrencyMilli = Int64(worker.entry.concurrency) * 1000
    freeSlots = worker.freeSlots
    freeRoom = worker.freeRoom
  }

  init(_ a: HostSummary, _ b: HostSummary) {
    most = Needs(
      cpuMilli: max(a.most.cpuMilli, b.most.cpuMilli), memoryMiB: max(a.most.memoryMiB, b.most.memoryMiB),
      diskMiB: max(a.most.diskMiB, b.most.diskMiB), gpu: max(a.most.gpu, b.most.gpu),
      seconds: max(a.most.seconds, b.most.seconds),
      engines: a.most.engines.union(b.most.engines))
    concurrencyMilli = max(a.concurrencyMilli, b.concurrencyMilli)
    freeSlots = max(a.freeSlots, b.freeSlots)
    freeRoom = max(a.freeRoom, b.freeRoom)
  }
}

/// A tree of maxima over a crew's host classes, smallest host first, so that the smallest one that does is
/// found without looking at those that do not.
struct HostTree: Sendable {
  /// The root is 1; the children of n are 2n and 2n + 1.
  private(set) var nodes: [HostSummary] = []
  private(set) var leaves = 0

  init() {}

  init(_ summaries: [HostSummary]) {
    leaves = 1
    while leaves < summaries.count { leaves *= 2 }
    nodes = [HostSummary](repeating: HostSummary(), count: leaves * 2)
    for (index, summary) in summaries.enumerated() { nodes[leaves + index] = summary }
    for index in stride(from: leaves - 1, to: 0, by: -1) {
      nodes[index] = HostSummary(nodes[2 * index], nodes[2 * index + 1])
    }
  }

  var mostFreeSlots: Int64 { nodes.isEmpty ? Int64.min : nodes[1].freeSlots }
  var mostFreeRoom: Int64 { nodes.isEmpty ? Int64.min : nodes[1].freeRoom }

  mutating func update(_ leaf: Int, _ summary: HostSummary) {
    var index = leaves + leaf
    nodes[index] = summary
    while index > 1 {
      index /= 2
      nodes[index] = HostSummary(nodes[2 * index], nodes[2 * index + 1])
    }
  }
}
