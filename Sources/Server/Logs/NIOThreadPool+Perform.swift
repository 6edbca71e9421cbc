package import NIOPosix

extension NIOThreadPool {
  /// Runs a body that may wait, on one of the pool's threads. Not stopped by cancellation: what is written is written.
  package func perform<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
    await withCheckedContinuation { continuation in
      // Run also by a pool that is shutting down: its caller waits for the answer.
      submit { _ in continuation.resume(returning: body()) }
    }
  }
}
