import GRDB
import Scheduling
import ScitqProtocol

/// What the engine can be asked to do. Each is answered only when what it changed is durable.
enum Command: Sendable {
  typealias Reply<Value: Sendable> = @Sendable (Result<Value, CallError>) -> Void

  case submit(Submission, Reply<WireTasksCreated>)
  case retry(WireRetryTask, by: User, Reply<WireTasksRetried>)
  case act(WireActOnTask, by: User, Reply<WireActedOnTasks>)
  case edit(WireEditTask, by: User, Reply<Void>)
  case flow(FlowCommand, by: User, Reply<Int64>)
  case connect(
    WireWorkerIdentity, software: String, credential: String?, ticket: InstanceID?, Reply<WireWorkerWelcome>)
  case reconcile(WorkerID, epoch: Int64, [WireHeldAttempt], Reply<WireReconciled>)
  /// The worker has its reconciliation: orders may follow.
  case ready(WorkerID, epoch: Int64)
  case disconnected(WorkerID, epoch: Int64)
  case report(WorkerID, epoch: Int64, [WireReport], Reply<WireReportsAccepted>)
  case leave(WorkerID, epoch: Int64, Reply<Void>)
  case deleteWorkers([WorkerID], undeployed: Bool, by: User, Reply<Void>)
  case updateWorkers(WireUpdateWorker, by: User, Reply<Void>)
  case actOnWorkers(WireActOnWorkers, by: User, Reply<Void>)
  case changeFleet(FleetCommand, by: User, Reply<FleetCommand.Outcome>)
  /// What a provider answered. Answered with the hosts that no row stands for.
  case fleet(FleetReport, Reply<[Instance]>)
  /// A change that moves no task: accounts.
  case write(@Sendable (Database) throws -> Void, [Batch.Event], Reply<Void>)
  /// What has ended long ago is forgotten.
  case prune([TaskID], Reply<Void>)
  /// A user's share or limits have changed.
  case user(UserEntry)
  /// It was looked whether the output of a task exists: where there is one, or nil.
  case checked(TaskID, existing: String?)
  /// Time has passed: look at the leases and timers.
  case tick

  /// Refuses it.
  func fail(_ error: CallError) {
    switch self {
    case .submit(_, let reply): reply(.failure(error))
    case .retry(_, _, let reply): reply(.failure(error))
    case .act(_, _, let reply): reply(.failure(error))
    case .edit(_, _, let reply): reply(.failure(error))
    case .flow(_, _, let reply): reply(.failure(error))
    case .connect(_, _, _, _, let reply): reply(.failure(error))
    case .reconcile(_, _, _, let reply): reply(.failure(error))
    case .report(_, _, _, let reply): reply(.failure(error))
    case .leave(_, _, let reply): reply(.failure(error))
    case .deleteWorkers(_, _, _, let reply): reply(.failure(error))
    case .updateWorkers(_, _, let reply): reply(.failure(error))
    case .actOnWorkers(_, _, let reply): reply(.failure(error))
    case .changeFleet(_, _, let reply): reply(.failure(error))
    case .fleet(_, let reply): reply(.failure(error))
    case .write(_, _, let reply): reply(.failure(error))
    case .prune(_, let reply): reply(.failure(error))
    case .ready, .disconnected, .user, .checked, .tick: break
    }
  }
}

/// What can be asked of workflows and steps. Answered with the id of the one that was made or changed.
enum FlowCommand: Sendable {
  case createWorkflow(WireCreateWorkflow)
  case updateWorkflow(WireUpdateWorkflow)
  case actOnWorkflow(WireActOnWorkflow)
  case createStep(WireCreateStep)
  case updateStep(WireUpdateStep)
  case actOnStep(WireActOnStep)
}

/// Tasks to be made together, already checked for what one can check without the database.
struct Submission: Sendable {
  var owner: User
  var key: String
  var tasks: [WireNewTask]
  /// Instead of tasks.
  var job: Job?

  struct Job: Sendable {
    var header: WireNewJob
    var rows: [WireJobRow]
    var size: Int64
  }
}
