import ScitqProtocol
import Synchronization

/// Tokens that were taken back while connections that came with them are open. Not kept: a connection does not
/// outlive the server, and a new one asks the database.
final class Revocations: Sendable {
  private struct State {
    var tokens: Set<String> = []
    var users: [UserID: ContinuousClock.Instant] = [:]
  }
  private let state = Mutex(State())

  func revoke(token hash: String) { state.withLock { _ = $0.tokens.insert(hash) } }
  func revoke(user: UserID) { state.withLock { $0.users[user] = .now } }

  /// Whether a connection that was opened then, with this token, may go on.
  func stands(token hash: String, of user: UserID, since opened: ContinuousClock.Instant) -> Bool {
    state.withLock { state in
      !state.tokens.contains(hash) && (state.users[user].map { opened > $0 } ?? true)
    }
  }
}
