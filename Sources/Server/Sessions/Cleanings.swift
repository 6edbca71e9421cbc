import ScitqProtocol
import Synchronization

/// Workers that were asked to clean up, and who waits for their answers.
final class Cleanings: Sendable {
  private struct State {
    var last: Int64 = 0
    var waiting: [Int64: (worker: WorkerID, answer: CheckedContinuation<WireCleaned?, Never>)] = [:]
  }
  private let state = Mutex(State())

  /// Asks one worker, and waits for its answer; nil when it did not come in time.
  func clean(_ worker: WorkerID, over wire: Wire, limit: Duration) async -> WireCleaned? {
    let number = state.withLock { state in
      state.last += 1
      return state.last
    }
    return await withTaskGroup(of: Void.self, returning: WireCleaned?.self) { group in
      group.addTask {
        try? await Task.sleep(for: limit)
        self.end(number, nil)
      }
      defer { group.cancelAll() }
      return await withCheckedContinuation { answer in
        state.withLock { $0.waiting[number] = (worker, answer) }
        var push = WireClean()
        push.number = number
        wire.push(.clean, push)
      }
    }
  }

  /// An answer of a worker; one that nobody waits for, or that is another's, is dropped.
  func cleaned(_ answer: WireCleaned, by worker: WorkerID) {
    guard state.withLock({ $0.waiting[answer.number]?.worker }) == worker else { return }
    end(answer.number, answer)
  }

  private func end(_ number: Int64, _ answer: WireCleaned?) {
    state.withLock { $0.waiting.removeValue(forKey: number) }?.answer.resume(returning: answer)
  }
}
