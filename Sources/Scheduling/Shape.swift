import ScitqProtocol

/// What tasks have in common that can run on the same workers: they differ in rank only.
struct ShapeKey: Hashable, Sendable {
  var pool: UInt32
  var needs: Needs
  var weightMilli: Int32
  var avoid: WorkerID?
  /// The worker that holds what they read.
  var prefer: WorkerID?
}

/// All tasks of one shape, with a heap of those pending.
struct Shape: Sendable, Ranked {
  /// Where a shape with pending tasks stands in its pool.
  enum Standing: Sendable {
    /// Nothing is pending.
    case idle
    /// To be tried, as far as is known.
    case ready
    /// Workers could take it and all are full. Tried again when one gets room.
    case full
    /// No worker could ever take it. Tried again when the workers change.
    case unfit
  }

  var key: ShapeKey
  /// Tasks of this shape at any status.
  var tasks: Int = 0
  var pending = IndexedHeap<QueueItem>()
  /// The rank of the first pending task; meaningless while idle.
  var head: QueueKey
  var standing = Standing.idle
  /// In its pool's `ready` heap, or in the list of those full or unfit.
  var position: UInt32 = nowhere
  /// In its pool's list of shapes.
  var member: UInt32 = nowhere

  static func precedes(_ elements: [Shape], _ a: Int, _ b: Int) -> Bool {
    elements[a].head.precedes(elements[b].head)
  }
}

/// What a search for a worker goes by.
struct Demand: Sendable {
  var needs: Needs
  var weightMilli: Int64
  /// Index of a worker that is passed over, or `nowhere`.
  var avoid: UInt32

  /// Whether some worker of this part of the tree might do.
  func mightFit(_ summary: HostSummary, _ wanted: Wanted) -> Bool {
    guard
      summary.most.cpuMilli >= needs.cpuMilli, summary.most.memoryMiB >= needs.memoryMiB,
      summary.most.diskMiB >= needs.diskMiB, summary.most.gpu >= needs.gpu,
      summary.most.seconds >= needs.seconds,
      needs.engines.isSubset(of: summary.most.engines), summary.concurrencyMilli >= weightMilli
    else { return false }
    switch wanted {
    case .freeSlot: return summary.freeSlots >= weightMilli
    case .room: return summary.freeRoom >= weightMilli
    case .anyone: return true
    }
  }
}

/// What a worker must have to be found.
enum Wanted: Sendable {
  /// A slot that is free now, so that the command can start at once.
  case freeSlot
  /// Room, be it in its prefetch.
  case room
  /// Nothing but a host that could ever take the task.
  case anyone
}
