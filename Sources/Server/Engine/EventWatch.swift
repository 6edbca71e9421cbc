import ScitqProtocol
import Synchronization

/// Tells those who follow the events that there are more, once they are durable. What they are is read from the
/// database, from where each follower stands: a slow one misses nothing, and holds up nobody.
final class EventWatch: Sendable {
  private struct State {
    var last: Int64 = 0
    var followers: [ObjectIdentifier: Follower] = [:]
  }
  private let state = Mutex(State())

  final class Follower: Sendable {
    /// The number of the newest event, whenever it has grown; what was not looked at in time is left out.
    let news: AsyncStream<Int64>
    fileprivate let continuation: AsyncStream<Int64>.Continuation

    fileprivate init() {
      (news, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }
  }

  func advance(to last: Int64) {
    let followers = state.withLock { state -> [Follower] in
      guard last > state.last else { return [] }
      state.last = last
      return Array(state.followers.values)
    }
    for follower in followers { follower.continuation.yield(last) }
  }

  /// Hands a follower to the body, and forgets it afterwards.
  func following<R>(_ body: (Follower) async throws(CallError) -> R) async throws(CallError) -> R {
    let follower = Follower()
    state.withLock { $0.followers[ObjectIdentifier(follower)] = follower }
    defer { _ = state.withLock { $0.followers.removeValue(forKey: ObjectIdentifier(follower)) } }
    return try await body(follower)
  }
}
