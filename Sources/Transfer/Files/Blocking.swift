import NIOPosix
import ScitqProtocol
import Synchronization

/// Tells blocking work on a thread of its own that the task behind it was cancelled.
final class Interruption: Sendable {
  private let flag = Atomic<Bool>(false)

  func set() { flag.store(true, ordering: .relaxed) }

  /// Called between pieces of work.
  func check() throws(TransferFailure) {
    if flag.load(ordering: .relaxed) { throw .interrupted }
  }
}

/// Threads for file work that blocks; they live as long as the process.
private let fileThreads: NIOThreadPool = {
  let pool = NIOThreadPool(numberOfThreads: 8)
  pool.start()
  return pool
}()

/// Runs blocking work off the threads that tasks share. Returns only when the work has ended, also when cancelled.
func blocking<T: Sendable>(
  _ body: @escaping @Sendable (Interruption) throws(TransferFailure) -> T
) async throws(TransferFailure) -> T {
  let interruption = Interruption()
  do {
    let result = try await withTaskCancellationHandler {
      try await fileThreads.runIfActive { () -> Result<T, TransferFailure> in
        Result { () throws(TransferFailure) -> T in
          try interruption.check()
          return try body(interruption)
        }
      }
    } onCancel: {
      interruption.set()
    }
    return try result.get()
  } catch let failure as TransferFailure {
    throw failure
  } catch {
    throw .interrupted
  }
}
