import Synchronization

/// Lets one through at a time, in the order they came.
final class Turnstile: Sendable {
  private struct State {
    var taken = false
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())

  func enter() async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      let free = state.withLock { state -> Bool in
        if !state.taken {
          state.taken = true
          return true
        }
        state.waiting.append(continuation)
        return false
      }
      if free { continuation.resume() }
    }
  }

  func leave() {
    let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
      if state.waiting.isEmpty {
        state.taken = false
        return nil
      }
      return state.waiting.removeFirst()
    }
    next?.resume()
  }
}
