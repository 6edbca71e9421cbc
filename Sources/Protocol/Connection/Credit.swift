import Synchronization

/// How many bytes of one stream may still be sent before the receiver has used some up.
///
/// A message larger than the whole window is let through when the window is full, so that it cannot wait for ever.
package final class Credit: Sendable {
  private struct State {
    var left = Window.initial
    var waiter: CheckedContinuation<Void, Never>?
    var closed = false
  }
  private let state = Mutex(State())

  package init() {}

  /// Waits until there is room. False when the stream is over. One sender at a time.
  package func take(_ count: Int) async -> Bool {
    while true {
      let verdict: Bool? = state.withLock { state in
        if state.closed { return false }
        guard state.left > 0 else { return nil }
        state.left -= count
        return true
      }
      if let verdict { return verdict }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let resume = state.withLock { state in
            if state.closed || state.left > 0 || Task.isCancelled { return true }
            state.waiter = continuation
            return false
          }
          if resume { continuation.resume() }
        }
      } onCancel: {
        close()
      }
      if Task.isCancelled { return false }
    }
  }

  package func give(_ count: Int) {
    let waiter = state.withLock { state in
      state.left += count
      defer { if state.left > 0 { state.waiter = nil } }
      return state.left > 0 ? state.waiter : nil
    }
    waiter?.resume()
  }

  package func close() {
    let waiter = state.withLock { state in
      state.closed = true
      defer { state.waiter = nil }
      return state.waiter
    }
    waiter?.resume()
  }
}
