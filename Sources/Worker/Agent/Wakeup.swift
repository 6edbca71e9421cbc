/// Something to wait for once: whoever waits goes on when it is woken, or when its task is canceled.
/// What was waited for is looked up again afterwards; a wake-up before the wait is not lost.
struct Wakeup: Sendable {
  private let stream: AsyncStream<Void>
  private let continuation: AsyncStream<Void>.Continuation

  init() {
    (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
  }

  func wake() { continuation.yield() }

  /// For one waiter at a time.
  func wait() async {
    for await _ in stream { return }
  }
}

/// Bounds how many do something side by side, first come first served. Owned by an actor.
struct Places {
  /// Below zero while more are taken than there are to be.
  private(set) var free: Int
  private var count: Int
  private var waiting: [(number: UInt64, wakeup: Wakeup)] = []
  private var arrivals: UInt64 = 0

  init(_ count: Int) {
    free = count
    self.count = count
  }

  /// More or fewer from now on; those who have a place keep it.
  mutating func resize(to count: Int) {
    free += count - self.count
    self.count = count
    while free > 0, !waiting.isEmpty {
      free -= 1
      waiting.removeFirst().wakeup.wake()
    }
  }

  /// A place at once, or a number and something to wait for; the place is taken when it wakes.
  mutating func take() -> (number: UInt64, wakeup: Wakeup)? {
    if free > 0 {
      free -= 1
      return nil
    }
    arrivals += 1
    let one = (arrivals, Wakeup())
    waiting.append(one)
    return one
  }

  mutating func giveBack() {
    if waiting.isEmpty || free < 0 {
      free += 1
    } else {
      waiting.removeFirst().wakeup.wake()
    }
  }

  /// After a canceled wait: leaves the queue. False when the place had been given meanwhile, and is to be given back.
  mutating func abandon(_ number: UInt64) -> Bool {
    guard let index = waiting.firstIndex(where: { $0.number == number }) else { return false }
    waiting.remove(at: index)
    return true
  }
}
