import ScitqProtocol
import Synchronization

/// Tells those who wait for tasks that they have ended, once that is durable.
///
/// A waiter names its tasks first and looks at the database then, so that no end falls between the two.
final class TaskWatch: Sendable {
  private struct State {
    var watchers: [TaskID: [Watch]] = [:]
    /// What each still waits for.
    var tasks: [ObjectIdentifier: Set<TaskID>] = [:]
  }
  private let state = Mutex(State())

  /// The ends of some tasks, which may become more, for one who waits for them.
  final class Watch: Sendable {
    /// Those of its tasks that have ended, as many at a time as became durable together. Each once.
    let ends: AsyncStream<[TaskID]>
    fileprivate let continuation: AsyncStream<[TaskID]>.Continuation

    fileprivate init() { (ends, continuation) = AsyncStream.makeStream() }
  }

  /// Hands a watch to the body, and forgets it afterwards.
  func watching<R>(_ body: (Watch) async throws(CallError) -> R) async throws(CallError) -> R {
    let watch = Watch()
    defer {
      state.withLock { state in
        for task in state.tasks.removeValue(forKey: ObjectIdentifier(watch)) ?? [] {
          state.watchers[task]?.removeAll { $0 === watch }
          if state.watchers[task]?.isEmpty == true { state.watchers[task] = nil }
        }
      }
    }
    return try await body(watch)
  }

  func add(_ tasks: some Sequence<TaskID>, to watch: Watch) {
    state.withLock { state in
      for task in tasks where state.tasks[ObjectIdentifier(watch), default: []].insert(task).inserted {
        state.watchers[task, default: []].append(watch)
      }
    }
  }

  func ended(_ tasks: some Sequence<TaskID>) {
    state.withLock { state in
      guard !state.watchers.isEmpty else { return }
      var ended: [ObjectIdentifier: (watch: Watch, tasks: [TaskID])] = [:]
      for task in tasks {
        for watch in state.watchers.removeValue(forKey: task) ?? [] {
          state.tasks[ObjectIdentifier(watch)]?.remove(task)
          ended[ObjectIdentifier(watch), default: (watch, [])].tasks.append(task)
        }
      }
      for (watch, tasks) in ended.values { watch.continuation.yield(tasks) }
    }
  }
}
