import HeapModule
import ScitqProtocol

/// What is to happen to tasks at some time. Rebuilt from the tasks' rows: nothing of it is kept.
struct Timers: Sendable {
  enum Kind: Sendable {
    /// A retry that was held back may go on.
    case release
    /// It has been ready for as long as it may be.
    case queueLimit
  }

  struct Timer: Sendable, Comparable {
    var at: Int64
    var task: TaskID
    var kind: Kind

    static func < (a: Self, b: Self) -> Bool { a.at == b.at ? a.task < b.task : a.at < b.at }
    static func == (a: Self, b: Self) -> Bool { a.at == b.at && a.task == b.task }
  }

  private var heap = Heap<Timer>()

  mutating func set(_ kind: Kind, of task: TaskID, at: Int64) {
    heap.insert(Timer(at: at, task: task, kind: kind))
  }

  /// Those whose time has come, in its order.
  mutating func due(at now: Int64) -> [Timer] {
    var due: [Timer] = []
    while let first = heap.min, first.at <= now {
      heap.removeMin()
      due.append(first)
    }
    return due
  }
}
