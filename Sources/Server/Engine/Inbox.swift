import Synchronization

/// What waits for the engine. Anybody puts in, one takes out, everything that is there at once.
final class Inbox: Sendable {
  private struct State {
    var commands: [Command] = []
    var waiter: CheckedContinuation<Void, Never>?
    var closed = false
  }
  private let state = Mutex(State())

  /// False when the engine has stopped.
  func put(_ command: Command) -> Bool {
    let (taken, waiter) = state.withLock { state -> (Bool, CheckedContinuation<Void, Never>?) in
      guard !state.closed else { return (false, nil) }
      state.commands.append(command)
      defer { state.waiter = nil }
      return (true, state.waiter)
    }
    waiter?.resume()
    return taken
  }

  /// Up to `most` commands in order of arrival; nil when the inbox is closed and empty.
  func take(_ most: Int) async -> [Command]? {
    while true {
      let (commands, closed) = state.withLock { state -> ([Command], Bool) in
        if state.commands.count <= most {
          defer { state.commands = [] }
          return (state.commands, state.closed)
        }
        defer { state.commands.removeFirst(most) }
        return (Array(state.commands.prefix(most)), state.closed)
      }
      if !commands.isEmpty { return commands }
      if closed { return nil }
      await withCheckedContinuation { continuation in
        let resume = state.withLock { state in
          if !state.commands.isEmpty || state.closed { return true }
          state.waiter = continuation
          return false
        }
        if resume { continuation.resume() }
      }
    }
  }

  func close() {
    let waiter = state.withLock { state in
      state.closed = true
      defer { state.waiter = nil }
      return state.waiter
    }
    waiter?.resume()
  }
}
