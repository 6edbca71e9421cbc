import GRDB
import ScitqProtocol

/// What the engine can be asked to do. Each is answered only when what it changed is durable.
enum Command: Sendable {
  typealias Reply<Value: Sendable> = @Sendable (Result<Value, CallError>) -> Void

  case submit(Submission, Reply<WireTasksCreated>)
  case retry(WireRetryTask, by: User, Reply<TaskID>)
  case cancel(TaskID, by: User, Reply<Void>)
  case connect(WireWorkerIdentity, software: String, credential: String?, Reply<WireWorkerWelcome>)
  case reconcile(WorkerID, epoch: Int64, [WireHeldAttempt], Reply<WireReconciled>)
  /// The worker has its reconciliation: orders may follow.
  case ready(WorkerID, epoch: Int64)
  case disconnected(WorkerID, epoch: Int64)
  case report(WorkerID, epoch: Int64, [WireReport], Reply<WireReportsAccepted>)
  case leave(WorkerID, epoch: Int64, Reply<Void>)
  case deleteWorkers([WorkerID], by: User, Reply<Void>)
  /// A change that moves no task: accounts.
  case write(@Sendable (Database) throws -> Void, Reply<Void>)
  /// It was looked whether the output of a task exists: where there is one, or nil.
  case checked(TaskID, existing: String?)
  /// Time has passed: look at the leases.
  case tick

  /// Refuses it.
  func fail(_ error: CallError) {
    switch self {
    case .submit(_, let reply): reply(.failure(error))
    case .retry(_, _, let reply): reply(.failure(error))
    case .cancel(_, _, let reply): reply(.failure(error))
    case .connect(_, _, _, let reply): reply(.failure(error))
    case .reconcile(_, _, _, let reply): reply(.failure(error))
    case .report(_, _, _, let reply): reply(.failure(error))
    case .leave(_, _, let reply): reply(.failure(error))
    case .deleteWorkers(_, _, let reply): reply(.failure(error))
    case .write(_, let reply): reply(.failure(error))
    case .ready, .disconnected, .checked, .tick: break
    }
  }
}

/// Tasks to be made together, already checked for what one can check without the database.
struct Submission: Sendable {
  var owner: User
  var key: String
  var tasks: [WireNewTask]
}
