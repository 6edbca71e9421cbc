public import SwiftProtobuf

/// One request, one answer. Declared once, used by both ends.
public struct Call<Request: Message, Response: Message>: Sendable {
  public let method: Method
  init(_ method: Method) { self.method = method }
}

/// One request, answered by a stream of items.
public struct Feed<Request: Message, Item: Message>: Sendable {
  public let method: Method
  init(_ method: Method) { self.method = method }
}

/// A request followed by a stream of items, and one answer.
public struct Upload<Request: Message, Item: Message, Response: Message>: Sendable {
  public let method: Method
  init(_ method: Method) { self.method = method }
}

/// What the server says to a worker unasked.
public struct Push<Payload: Message>: Sendable {
  public let method: Method
  init(_ method: Method) { self.method = method }
}

/// The number of each call in the frame header. A number is never used again for another call.
public enum Method: UInt16, CaseIterable, Sendable {
  // Anybody who reaches the port.
  case login = 1
  case certificate = 2
  case changePassword = 3
  // Users.
  case createTasks = 20
  case listTasks = 21
  case getTask = 22
  case retryTask = 23
  case waitTasks = 25
  case explainTask = 26
  case readLog = 27
  case taskFiles = 28
  case findTask = 29
  case actOnTask = 30
  case editTask = 31
  case readEvents = 32
  case listWorkers = 40
  case workerStats = 41
  case deleteWorkers = 42
  case cleanWorkers = 43
  case updateWorkers = 44
  case actOnWorkers = 45
  case explainWorker = 46
  case listUsers = 60
  case createUser = 61
  case updateUser = 62
  case deleteUser = 63
  case logout = 64
  case revokeTokens = 65
  case serverStatus = 80
  case remotes = 81
  case remoteList = 82
  // Workflows and steps. 24 was the cancellation of one task.
  case createWorkflow = 140
  case listWorkflows = 141
  case getWorkflow = 142
  case updateWorkflow = 143
  case actOnWorkflow = 144
  case waitWorkflows = 145
  case createStep = 150
  case listSteps = 151
  case getStep = 152
  case updateStep = 153
  case actOnStep = 154
  case stepStats = 155
  // Rented hosts.
  case listFlavors = 160
  case enableFlavor = 161
  case deployWorkers = 162
  case listRecruiters = 163
  case createRecruiter = 164
  case updateRecruiter = 165
  case deleteRecruiter = 166
  case explainRecruiter = 167
  case readCost = 168
  // Workers.
  case reconcile = 100
  case report = 101
  case appendLog = 102
  case beat = 103
  case workerRemotes = 104
  case leave = 105
  case cleaned = 106
  // Pushed to workers.
  case orders = 120
  case revocations = 121
  case settings = 122
  case clean = 123
}

extension Call where Request == WireLogin, Response == WireLoggedIn {
  /// Name and password for a token. Needs no credential.
  public static var login: Self { .init(.login) }
}
extension Call where Request == WireEmpty, Response == WireCertificate {
  /// The authority that the server's certificate is signed by, as PEM. Needs no credential.
  public static var certificate: Self { .init(.certificate) }
}
extension Call where Request == WireChangePassword, Response == WireEmpty {
  /// Changes one's own password, proved by the current one; an admin may leave the current one empty for another's.
  public static var changePassword: Self { .init(.changePassword) }
}
extension Upload where Request == WireCreateTasks, Item == WireTaskBatch, Response == WireTasksCreated {
  /// All tasks of the request and its batches are durable when it answers, or none is.
  public static var createTasks: Self { .init(.createTasks) }
}
extension Call where Request == WireListTasks, Response == WireTaskList {
  /// Newest first. At most 1,000 a call.
  public static var listTasks: Self { .init(.listTasks) }
}
extension Call where Request == WireTaskId, Response == WireTask {
  /// One task, with everything known of it.
  public static var getTask: Self { .init(.getTask) }
}
extension Call where Request == WireTaskRef, Response == WireTaskOrJob {
  /// The task or job of this id, or the newest attempt of the task with this index in a job.
  public static var findTask: Self { .init(.findTask) }
}
extension Call where Request == WireRetryTask, Response == WireTasksRetried {
  /// Clones a failed or canceled task (`force`: a succeeded one), or those of a job; answers the clones' ids.
  public static var retryTask: Self { .init(.retryTask) }
}
extension Call where Request == WireActOnTask, Response == WireActedOnTasks {
  /// Cancels, suspends, resumes, starts or deletes a task or a whole job. Answered when the wish is durable: what
  /// runs on a worker may do so for a moment longer.
  public static var actOnTask: Self { .init(.actOnTask) }
}
extension Call where Request == WireEditTask, Response == WireTask {
  /// Changes a task that no worker has.
  public static var editTask: Self { .init(.editTask) }
}
extension Feed where Request == WireReadEvents, Item == WireEvent {
  /// What happened, in its order; with `follow` what happens from now on as well.
  public static var readEvents: Self { .init(.readEvents) }
}
extension Feed where Request == WireWaitTasks, Item == WireTask {
  /// Each task once it has ended for good: the newest attempt, no retry to come.
  public static var waitTasks: Self { .init(.waitTasks) }
}
extension Call where Request == WireTaskId, Response == WireExplanation {
  /// Why the task is where it is, in one sentence.
  public static var explainTask: Self { .init(.explainTask) }
}
extension Feed where Request == WireReadLog, Item == WireLogData {
  /// What a task printed, by byte offset; with `follow` until the task has ended.
  public static var readLog: Self { .init(.readLog) }
}
extension Call where Request == WireTaskId, Response == WireTaskFiles {
  /// What a task has read and written, with sizes and hashes.
  public static var taskFiles: Self { .init(.taskFiles) }
}
extension Call where Request == WireWorkerIds, Response == WireWorkersCleaned {
  /// Removes what no task uses from connected workers; no ids: all of them. Answered when they have done it.
  public static var cleanWorkers: Self { .init(.cleanWorkers) }
}
extension Feed where Request == WireRemoteList, Item == WireFileEntry {
  /// What is on a remote, looked at by the server.
  public static var remoteList: Self { .init(.remoteList) }
}
extension Call where Request == WireCleaned, Response == WireEmpty {
  /// A worker's answer to the push `clean`.
  public static var cleaned: Self { .init(.cleaned) }
}
extension Call where Request == WireListWorkers, Response == WireWorkerList {
  public static var listWorkers: Self { .init(.listWorkers) }
}
extension Call where Request == WireWorkerIds, Response == WireWorkerStatsList {
  /// The last figures each host sent; no ids: all workers.
  public static var workerStats: Self { .init(.workerStats) }
}
extension Call where Request == WireDeleteWorkers, Response == WireEmpty {
  /// Deletes workers: what had not started is given to others, what ran is lost, their credentials die, and rented
  /// hosts are returned.
  public static var deleteWorkers: Self { .init(.deleteWorkers) }
}
extension Call where Request == WireUpdateWorker, Response == WireWorkerList {
  /// Gives workers another step, scope, concurrency or prefetch; answers them as they are now.
  public static var updateWorkers: Self { .init(.updateWorkers) }
}
extension Call where Request == WireActOnWorkers, Response == WireWorkerList {
  /// Drains, pauses or resumes workers; answers them as they are now.
  public static var actOnWorkers: Self { .init(.actOnWorkers) }
}
extension Call where Request == WireWorkerId, Response == WireExplanation {
  /// Why the worker has nothing more to do than it has, in one sentence.
  public static var explainWorker: Self { .init(.explainWorker) }
}
extension Call where Request == WireCreateWorkflow, Response == WireWorkflow {
  public static var createWorkflow: Self { .init(.createWorkflow) }
}
extension Call where Request == WireListWorkflows, Response == WireWorkflowList {
  /// Newest first. At most 1,000 a call.
  public static var listWorkflows: Self { .init(.listWorkflows) }
}
extension Call where Request == WireWorkflowId, Response == WireWorkflow {
  public static var getWorkflow: Self { .init(.getWorkflow) }
}
extension Call where Request == WireUpdateWorkflow, Response == WireWorkflow {
  public static var updateWorkflow: Self { .init(.updateWorkflow) }
}
extension Call where Request == WireActOnWorkflow, Response == WireWorkflow {
  /// Starts, suspends, resumes, cancels or deletes a workflow; answers it as it is (as it was, when it is gone).
  public static var actOnWorkflow: Self { .init(.actOnWorkflow) }
}
extension Feed where Request == WireWaitWorkflows, Item == WireWorkflow {
  /// Each workflow once nothing in it can go on.
  public static var waitWorkflows: Self { .init(.waitWorkflows) }
}
extension Call where Request == WireCreateStep, Response == WireStep {
  public static var createStep: Self { .init(.createStep) }
}
extension Call where Request == WireListSteps, Response == WireStepList {
  /// In the order in which they were made.
  public static var listSteps: Self { .init(.listSteps) }
}
extension Call where Request == WireStepId, Response == WireStep {
  public static var getStep: Self { .init(.getStep) }
}
extension Call where Request == WireUpdateStep, Response == WireStep {
  public static var updateStep: Self { .init(.updateStep) }
}
extension Call where Request == WireActOnStep, Response == WireStep {
  /// Suspends, resumes, cancels or deletes a step; answers it as it is (as it was, when it is gone).
  public static var actOnStep: Self { .init(.actOnStep) }
}
extension Call where Request == WireReadStepStats, Response == WireStepStatsList {
  /// How long each phase took, by step.
  public static var stepStats: Self { .init(.stepStats) }
}
extension Call where Request == WireEmpty, Response == WireEmpty {
  /// Revokes the token that this connection came with.
  public static var logout: Self { .init(.logout) }
}
extension Call where Request == WireUserId, Response == WireEmpty {
  /// Revokes all tokens of a user.
  public static var revokeTokens: Self { .init(.revokeTokens) }
}
extension Call where Request == WireEmpty, Response == WireUserList {
  public static var listUsers: Self { .init(.listUsers) }
}
extension Call where Request == WireCreateUser, Response == WireUserView {
  public static var createUser: Self { .init(.createUser) }
}
extension Call where Request == WireUpdateUser, Response == WireUserView {
  public static var updateUser: Self { .init(.updateUser) }
}
extension Call where Request == WireUserId, Response == WireEmpty {
  public static var deleteUser: Self { .init(.deleteUser) }
}
extension Call where Request == WireEmpty, Response == WireServerStatus {
  public static var serverStatus: Self { .init(.serverStatus) }
}
extension Call where Request == WireEmpty, Response == WireRemotes {
  /// The remotes a user may use, for `scitq file` on the user's own machine.
  public static var remotes: Self { .init(.remotes) }
  /// The remotes of the server's configuration, for a worker.
  public static var workerRemotes: Self { .init(.workerRemotes) }
}
extension Call where Request == WireReconcile, Response == WireReconciled {
  /// The first call on every worker connection. Nothing is pushed before it is answered.
  public static var reconcile: Self { .init(.reconcile) }
}
extension Call where Request == WireReports, Response == WireReportsAccepted {
  public static var report: Self { .init(.report) }
}
extension Call where Request == WireLogChunks, Response == WireLogsStored {
  public static var appendLog: Self { .init(.appendLog) }
}
extension Call where Request == WireBeat, Response == WireEmpty {
  public static var beat: Self { .init(.beat) }
}
extension Call where Request == WireEmpty, Response == WireEmpty {
  /// A worker that has drained says goodbye: what it still had unstarted is given to others at once.
  public static var leave: Self { .init(.leave) }
}
extension Push where Payload == WireOrders {
  public static var orders: Self { .init(.orders) }
}
extension Push where Payload == WireRevocations {
  public static var revocations: Self { .init(.revocations) }
}
extension Push where Payload == WireWorkerSettings {
  public static var settings: Self { .init(.settings) }
}
extension Push where Payload == WireClean {
  public static var clean: Self { .init(.clean) }
}
extension Call where Request == WireListFlavors, Response == WireFlavorList {
  /// The cheapest first, of those that pass the filter.
  public static var listFlavors: Self { .init(.listFlavors) }
}
extension Call where Request == WireEnableFlavor, Response == WireFlavorsEnabled {
  public static var enableFlavor: Self { .init(.enableFlavor) }
}
extension Call where Request == WireDeployWorkers, Response == WireWorkersDeployed {
  /// Orders hosts. Answered when the orders are durable: `listWorkers` tells how far they are.
  public static var deployWorkers: Self { .init(.deployWorkers) }
}
extension Call where Request == WireListRecruiters, Response == WireRecruiterList {
  public static var listRecruiters: Self { .init(.listRecruiters) }
}
extension Call where Request == WireRecruiter, Response == WireRecruiter {
  public static var createRecruiter: Self { .init(.createRecruiter) }
}
extension Call where Request == WireUpdateRecruiter, Response == WireRecruiter {
  public static var updateRecruiter: Self { .init(.updateRecruiter) }
}
extension Call where Request == WireRecruiterRef, Response == WireEmpty {
  /// Its workers stay, and no more come.
  public static var deleteRecruiter: Self { .init(.deleteRecruiter) }
}
extension Call where Request == WireRecruiterRef, Response == WireExplanation {
  /// What it would do now, and why not more.
  public static var explainRecruiter: Self { .init(.explainRecruiter) }
}
extension Call where Request == WireReadCost, Response == WireCostList {
  /// What rented hosts have cost until now.
  public static var readCost: Self { .init(.readCost) }
}
