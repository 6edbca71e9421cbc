import ScitqProtocol

/// A task's rank in a queue: priority first, then place, then id.
struct QueueKey: Hashable, Sendable {
  var priority: Int32
  var order: Int64
  var id: TaskID

  func precedes(_ other: QueueKey) -> Bool {
    if priority != other.priority { return priority > other.priority }
    if order != other.order { return order < other.order }
    return id < other.id
  }
}

/// A pending task in its shape's heap: its rank stands beside its index, so that comparing seldom leaves the
/// heap.
struct QueueItem: Sendable {
  var priority: Int32
  var slot: UInt32
  var order: Int64
}

/// A task in 56 bytes. What many tasks have in common is in their shape.
struct TaskSlot: Sendable {
  var id: TaskID
  var order: Int64
  var assignment: Int64
  var priority: Int32
  var unmet: Int32
  var shape: UInt32
  /// Index of the worker that has it, or `nowhere`.
  var worker: UInt32
  /// In its shape's heap while pending, else in its worker's list.
  var position: UInt32 = nowhere
  /// The first edge to a prerequisite.
  var firstEdge: UInt32 = nowhere
  /// Index of the job that it is part of, or `nowhere`.
  var job: UInt32 = nowhere
  var status: TaskStatus
  var flags: Flags

  struct Flags: OptionSet, Sendable {
    let rawValue: UInt8
    static let acceptFailure = Flags(rawValue: 1)
    static let cancelsWithPrerequisite = Flags(rawValue: 2)
    static let cancelWished = Flags(rawValue: 4)
    static let suspendWished = Flags(rawValue: 8)
    /// Kept out of the queue.
    static let held = Flags(rawValue: 16)
  }

  var key: QueueKey { QueueKey(priority: priority, order: order, id: id) }
}

/// All tasks that can still move, by index and by id.
struct TaskTable: Sendable, HeapOrder {
  private(set) var slots: [TaskSlot] = []
  private var free: [UInt32] = []
  private var index: [TaskID: UInt32] = [:]

  var count: Int { index.count }

  subscript(_ slot: UInt32) -> TaskSlot {
    _read { yield slots[Int(slot)] }
    _modify { yield &slots[Int(slot)] }
  }

  func find(_ id: TaskID) -> UInt32? { index[id] }

  /// Ids in no particular order.
  var ids: some Collection<TaskID> { index.keys }

  mutating func insert(_ task: TaskSlot) -> UInt32 {
    let slot: UInt32
    if let reused = free.popLast() {
      slot = reused
      slots[Int(slot)] = task
    } else {
      slot = UInt32(slots.count)
      slots.append(task)
    }
    let previous = index.updateValue(slot, forKey: task.id)
    precondition(previous == nil, "task \(task.id) is in the cluster already")
    return slot
  }

  mutating func remove(_ slot: UInt32) {
    index[slots[Int(slot)].id] = nil
    free.append(slot)
    // What a burst has taken is given back once all of it has gone.
    if index.isEmpty, slots.count > 1024 { self = TaskTable() }
  }

  func precedes(_ a: QueueItem, _ b: QueueItem) -> Bool {
    if a.priority != b.priority { return a.priority > b.priority }
    if a.order != b.order { return a.order < b.order }
    return slots[Int(a.slot)].id < slots[Int(b.slot)].id
  }

  mutating func place(_ item: QueueItem, at position: UInt32) { slots[Int(item.slot)].position = position }
}
