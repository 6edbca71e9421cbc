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
  case cancelTask = 24
  case waitTasks = 25
  case explainTask = 26
  case readLog = 27
  case taskFiles = 28
  case listWorkers = 40
  case workerStats = 41
  case deleteWorkers = 42
  case cleanWorkers = 43
  case listUsers = 60
  case createUser = 61
  case updateUser = 62
  case deleteUser = 63
  case serverStatus = 80
  case remotes = 81
  case remoteList = 82
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
extension Call where Request == WireRetryTask, Response == WireTaskId {
  /// Clones a failed or canceled task (`force`: a succeeded one); answers the clone's id.
  public static var retryTask: Self { .init(.retryTask) }
}
extension Call where Request == WireCancelTask, Response == WireTask {
  /// Asks for the end of a task. Answered when the wish is durable: the task may still be running then.
  public static var cancelTask: Self { .init(.cancelTask) }
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
extension Call where Request == WireWorkerIds, Response == WireEmpty {
  /// Deletes workers: what had not started is given to others, what ran is lost, their credentials die.
  public static var deleteWorkers: Self { .init(.deleteWorkers) }
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
