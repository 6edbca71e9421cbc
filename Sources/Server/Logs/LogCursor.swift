import ScitqProtocol
import Synchronization

/// A reader's place in a log.
actor LogCursor {
  private let store: LogStore
  private let task: TaskID
  private let stream: LogStream?
  private let hasEnded: (@Sendable () async -> Bool)?
  private var position: LogPosition

  init(
    store: LogStore, task: TaskID, stream: LogStream?, position: LogPosition,
    hasEnded: (@Sendable () async -> Bool)? = nil
  ) {
    self.store = store
    self.task = task
    self.stream = stream
    self.position = position
    self.hasEnded = hasEnded
  }

  func next() async throws -> LogPiece? {
    let log = await store.watch(task)
    do {
      let piece = try await search()
      await store.unpin(log)
      return piece
    } catch {
      await store.unpin(log)
      throw error
    }
  }

  private func search() async throws -> LogPiece? {
    while true {
      // In this order: what is appended or finished after the look is noticed by the wait.
      let version = await store.version(of: task)
      var isOver = hasEnded == nil
      if !isOver { isOver = await store.isFinished(task) }
      if !isOver, let hasEnded { isOver = await hasEnded() }
      let (piece, next) = try await store.piece(of: task, at: position, stream: stream, max: 256 * 1024)
      position = next
      if let piece { return piece }
      if isOver { return nil }
      await store.waitForChange(of: task, since: version)
      try Task.checkCancellation()
    }
  }
}

/// Followers that wait for more of a task's log. Apart from the store, so that a canceled one leaves at once.
final class LogWaiters: Sendable {
  private struct State {
    var last: UInt64 = 0
    var waiting: [TaskID: [UInt64: CheckedContinuation<Void, Never>]] = [:]
  }

  private let state = Mutex(State())

  /// Returns when the task is woken, or the caller canceled. The caller has looked, on the actor that wakes, that there is
  /// something to wait for; up to the suspension nothing else runs there, so that no waking is missed.
  func wait(for task: TaskID, isolation: isolated (any Actor)? = #isolation) async {
    let id = state.withLock { state in
      state.last += 1
      return state.last
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        state.withLock { $0.waiting[task, default: [:]][id] = continuation }
        // Canceled before it was listed: nobody else would wake it.
        if Task.isCancelled { leave(task, id) }
      }
    } onCancel: {
      leave(task, id)
    }
  }

  func wake(_ task: TaskID) {
    guard let woken = state.withLock({ $0.waiting.removeValue(forKey: task) }) else { return }
    for continuation in woken.values { continuation.resume() }
  }

  private func leave(_ task: TaskID, _ id: UInt64) {
    let continuation = state.withLock { state in
      let continuation = state.waiting[task]?.removeValue(forKey: id)
      if state.waiting[task]?.isEmpty == true { state.waiting[task] = nil }
      return continuation
    }
    continuation?.resume()
  }
}
