import Logging
import NIOPosix
import Synchronization

/// Compresses finished logs one after the other, each as one piece of work on the thread pool, so that it never holds
/// more than one of its threads.
final class LogCompressor: Sendable {
  private struct State {
    var waiting: [TaskLog] = []
    var isRunning = false
    var idle: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())
  private let pool: NIOThreadPool
  private let logger: Logger

  init(pool: NIOThreadPool, logger: Logger) {
    self.pool = pool
    self.logger = logger
  }

  /// Takes a log that is finished. It stays pinned until it is done.
  func add(_ log: TaskLog) {
    log.pins.add(1, ordering: .relaxed)
    let start = state.withLock { state in
      state.waiting.append(log)
      defer { state.isRunning = true }
      return !state.isRunning
    }
    if start { submitNext() }
  }

  /// Returns when nothing waits and nothing runs.
  func settle() async {
    await withCheckedContinuation { continuation in
      let isIdle = state.withLock { state in
        if state.isRunning { state.idle.append(continuation) }
        return !state.isRunning
      }
      if isIdle { continuation.resume() }
    }
  }

  private func submitNext() {
    pool.submit { poolState in
      guard case .active = poolState else { return self.abandon() }
      let log = self.state.withLock { $0.waiting.removeFirst() }
      do {
        try log.compress()
      } catch {
        self.logger.warning(
          "A log could not be compressed and stays as it is.",
          metadata: ["task": "\(log.task)", "error": "\(error)"])
      }
      log.closeFiles()
      log.pins.subtract(1, ordering: .relaxed)
      let (goesOn, idle) = self.state.withLock { state in
        state.isRunning = !state.waiting.isEmpty
        defer { if !state.isRunning { state.idle = [] } }
        return (state.isRunning, state.isRunning ? [] : state.idle)
      }
      for continuation in idle { continuation.resume() }
      if goesOn { self.submitNext() }
    }
  }

  /// The pool has stopped: logs stay uncompressed.
  private func abandon() {
    let (logs, idle) = state.withLock { state in
      defer { state = State() }
      return (state.waiting, state.idle)
    }
    for log in logs { log.pins.subtract(1, ordering: .relaxed) }
    for continuation in idle { continuation.resume() }
  }
}
