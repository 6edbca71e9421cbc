import Logging
import ScitqProtocol

/// How the agent leaves a host that goes away before long.
extension Agent {
  /// Drains because the host goes, and has the beats say so.
  package func leave(because warning: String) {
    if departure == nil {
      departure = warning
      logger.warning("\(warning)")
    }
    drain()
  }

  /// Looks before the server is told that there is a worker. A service manager may start the agent again on a
  /// host from which it has just gone: it is to take no task in the moment before it would have asked.
  func leaveAtOnceIfTold(_ watch: inout EvictionWatch?, _ time: WallTime?) async {
    if let notice = await watch?.look() { leave(because: notice.warning) }
    if let time, time.left(at: Clock.microseconds()) == nil { leave(because: time.warning) }
  }

  /// Waits for the notice of the host's cloud.
  func heed(_ watch: EvictionWatch) async {
    var watch = watch
    if let notice = await watch.next() { leave(because: notice.warning) }
  }

  /// Waits for the end of the host's time.
  func heed(_ time: WallTime) async {
    while !Task.isCancelled {
      guard let left = time.left(at: Clock.microseconds()) else { return leave(because: time.warning) }
      // In steps, since the end stands on the wall clock, which may be set.
      try? await Task.sleep(for: min(left, .seconds(30)))
    }
  }
}
