import Dispatch
import Foundation
import Synchronization

/// Turns ^C, TERM and HUP into the cancellation of work that has something to clean up.
enum Interruption {
  /// Runs the body. After a signal the body is canceled and awaited, and `Interrupted` thrown; a second signal ends the
  /// process at once.
  static func during<R: Sendable>(_ body: @escaping @Sendable () async throws -> R) async throws -> R {
    let (signals, sink) = AsyncStream<Void>.makeStream()
    let seen = Mutex(0)
    let numbers = [SIGINT, SIGTERM, SIGHUP]
    let sources = numbers.map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        let count = seen.withLock { count in
          count += 1
          return count
        }
        if count > 1 { _exit(130) }
        sink.yield()
      }
      source.resume()
      return source
    }
    defer {
      for source in sources { source.cancel() }
      for number in numbers { signal(number, SIG_DFL) }
    }
    return try await withThrowingTaskGroup(of: R?.self) { group in
      group.addTask { try await body() }
      group.addTask {
        for await _ in signals { throw Interrupted() }
        return nil
      }
      defer { group.cancelAll() }
      while let result = try await group.next() {
        if let result { return result }
      }
      throw CancellationError()
    }
  }
}
