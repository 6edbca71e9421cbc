import ScitqProtocol
import Synchronization

/// Tells those who wait for a task that it has moved, once the move is durable.
///
/// A waiter registers first and looks at the database then, so that no end falls between the two.
final class TaskWatch: Sendable {
  private struct State {
    var nextToken: UInt64 = 0
    var waiters: [TaskID: [UInt64: AsyncStream<Void>.Continuation]] = [:]
  }
  private let state = Mutex(State())

  /// One element each time the task has ended, or a batch of such times.
  func ends(of task: TaskID) -> AsyncStream<Void> {
    AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
      let token = state.withLock { state in
        state.nextToken += 1
        state.waiters[task, default: [:]][state.nextToken] = continuation
        return state.nextToken
      }
      continuation.onTermination = { [weak self] _ in
        self?.state.withLock { state in
          state.waiters[task]?[token] = nil
          if state.waiters[task]?.isEmpty == true { state.waiters[task] = nil }
        }
      }
    }
  }

  func ended(_ tasks: some Sequence<TaskID>) {
    let waiting = state.withLock { state -> [AsyncStream<Void>.Continuation] in
      guard !state.waiters.isEmpty else { return [] }
      return tasks.flatMap { task in state.waiters[task].map { Array($0.values) } ?? [] }
    }
    for continuation in waiting { continuation.yield() }
  }
}
