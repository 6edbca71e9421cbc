import ScitqProtocol

/// How often and how long a transient failure is met with another try.
package struct RetryPolicy: Sendable {
  package var tries: Int
  package var first: Duration
  package var longest: Duration

  /// Six tries over more than half a minute: a store may be away for 20 s.
  package static let standard = RetryPolicy(tries: 6, first: .seconds(1), longest: .seconds(20))

  package init(tries: Int, first: Duration, longest: Duration) {
    self.tries = tries
    self.first = first
    self.longest = longest
  }

  /// Runs `body` until it succeeds, fails for good, or the tries are used up. Waits double each time, give or
  /// take a quarter, so that a fleet does not come back at one moment.
  func run<T: Sendable>(
    onRetry: (TransferFailure, Int) -> Void,
    isolation: isolated (any Actor)? = #isolation,
    _ body: () async throws(TransferFailure) -> T
  ) async throws(TransferFailure) -> T {
    var wait = first
    var attempt = 1
    while true {
      do throws(TransferFailure) {
        return try await body()
      } catch {
        guard error.isTransient, attempt < tries, !Task.isCancelled else {
          if Task.isCancelled { throw .interrupted }
          throw error
        }
        onRetry(error, attempt)
        do { try await Task.sleep(for: wait * Double.random(in: 0.75...1.25)) } catch { throw .interrupted }
        wait = min(wait * 2, longest)
        attempt += 1
      }
    }
  }
}

/// Lets a bounded number of transfers run at a time; the others wait in order of arrival.
actor Gate {
  private var free: Int
  private var waiting: [(id: UInt64, continuation: CheckedContinuation<Bool, Never>)] = []
  private var nextId: UInt64 = 0

  init(width: Int) { free = width }

  /// Runs `body` when a place is free. Throws `.interrupted` when the task is cancelled while it waits.
  nonisolated func through<T: Sendable>(
    _ body: @Sendable () async throws(TransferFailure) -> T
  ) async throws(TransferFailure) -> T {
    guard await enter() else { throw .interrupted }
    do throws(TransferFailure) {
      let value = try await body()
      await leave()
      return value
    } catch {
      await leave()
      throw error
    }
  }

  private func enter() async -> Bool {
    if free > 0 {
      free -= 1
      return true
    }
    let id = nextId
    nextId += 1
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        if Task.isCancelled {
          continuation.resume(returning: false)
        } else {
          waiting.append((id, continuation))
        }
      }
    } onCancel: {
      // An actor cannot be entered from here without a task; this one ends as soon as it has looked.
      Task { await self.giveUp(id) }
    }
  }

  private func giveUp(_ id: UInt64) {
    guard let index = waiting.firstIndex(where: { $0.id == id }) else { return }
    waiting.remove(at: index).continuation.resume(returning: false)
  }

  private func leave() {
    if waiting.isEmpty { free += 1 } else { waiting.removeFirst().continuation.resume(returning: true) }
  }
}
