import Logging
import ScitqProtocol
import Synchronization
import Transfer

/// What every session works with.
struct SessionContext: Sendable {
  let configuration: Configuration
  let store: Store
  let engine: Engine
  let logs: LogStore
  let accounts: Accounts
  let watch: TaskWatch
  let events: EventWatch
  let workers: WorkerRegistry
  let cleanings: Cleanings
  let tickets: Tickets
  /// With all remotes of the configuration.
  let transfer: Transfer
  let authorityPEM: String
  let startedAt: Int64
  let logger: Logger
}

/// Who is at the other end.
enum Caller: Sendable {
  case anonymous
  /// With the hash of the token, and since when.
  case user(User, token: String, since: ContinuousClock.Instant)
  case worker(WorkerID, epoch: Int64)
}

/// How many connections there are.
final class SessionCount: Sendable {
  private let count = Mutex(0)
  private let limit: Int

  init(limit: Int) { self.limit = limit }

  func enter() -> Bool {
    count.withLock { count in
      guard count < limit else { return false }
      count += 1
      return true
    }
  }

  func leave() { count.withLock { $0 -= 1 } }
}
