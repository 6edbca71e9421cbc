import NIOPosix
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// SIGTERM and SIGINT as a stream, one element for each.
///
/// They are caught, not ignored or blocked: both of those would be handed on to the commands this agent starts, and a
/// command that ignores SIGTERM cannot be ended kindly.
enum SignalTrap {
  private static let pipeEnd = Atomic<Int32>(-1)
  private static let reader = NIOThreadPool(numberOfThreads: 1)

  /// To be called once.
  static func signals() -> AsyncStream<Void> {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { return AsyncStream { $0.finish() } }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    pipeEnd.store(ends[1], ordering: .sequentiallyConsistent)
    for number in [SIGTERM, SIGINT] {
      signal(number) { _ in
        // Nothing but calls that are safe within a signal handler.
        var byte: UInt8 = 1
        _ = write(SignalTrap.pipeEnd.load(ordering: .sequentiallyConsistent), &byte, 1)
      }
    }
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    let source = ends[0]
    reader.start()
    reader.submit { _ in
      var byte: UInt8 = 0
      while true {
        let count = read(source, &byte, 1)
        if count == 1 {
          continuation.yield()
        } else if count == 0 || errno != EINTR {
          return continuation.finish()
        }
      }
    }
    return stream
  }
}
