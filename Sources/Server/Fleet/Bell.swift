import Synchronization

/// Wakes one who waits. Struck while nobody does, it wakes the next one at once: no stroke is missed, and many are one.
final class Bell: Sendable {
  private struct State {
    var isStruck = false
    var waiter: CheckedContinuation<Void, Never>?
  }
  private let state = Mutex(State())

  func strike() {
    state.withLock { state -> CheckedContinuation<Void, Never>? in
      defer { state.waiter = nil }
      if state.waiter == nil { state.isStruck = true }
      return state.waiter
    }?.resume()
  }

  /// Returns when it was struck, or the task is canceled. For one at a time.
  func ring() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let now = state.withLock { state -> Bool in
          if state.isStruck || Task.isCancelled {
            state.isStruck = false
            return true
          }
          state.waiter = continuation
          return false
        }
        if now { continuation.resume() }
      }
    } onCancel: {
      state.withLock { state -> CheckedContinuation<Void, Never>? in
        defer { state.waiter = nil }
        return state.waiter
      }?.resume()
    }
  }
}
