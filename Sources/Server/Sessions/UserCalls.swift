import Foundation
import GRDB
import Scheduling
import ScitqProtocol

/// What users ask.
struct UserCalls {
  let session: Session
  let user: User
  private let token: String
  let stream: OpenStream

  /// - Parameter token: the hash of the one that the connection came with.
  init(_ session: Session, _ user: User, _ token: String, _ stream: OpenStream) {
    self.session = session
    self.user = user
    self.token = token
    self.stream = stream
  }

  var context: SessionContext { session.context }

  /// What changes something. A read-only user may change nothing but their own password.
  private static let changes: Set<ScitqProtocol.Method> = [
    .createTasks, .retryTask, .actOnTask, .editTask, .createWorkflow, .updateWorkflow, .actOnWorkflow,
    .createStep, .updateStep, .actOnStep, .createRecruiter, .updateRecruiter, .deleteRecruiter,
  ]

  /// Nil when the answer was a stream.
  func answer(_ method: ScitqProtocol.Method, _ payload: [UInt8]) async throws(CallError) -> [UInt8]? {
    if user.role == .readOnly, Self.changes.contains(method) {
      throw CallError(.forbidden, "\(user.username) may only look: the role read-only changes nothing")
    }
    switch method {
    case .createTasks: return try encode(try await createTasks(try parse(payload)))
    case .listTasks:
      return try await ScitqServer.answer(Call.listTasks, payload) { (request) async throws(CallError) in
        try await read { (db) throws(CallError) in try TaskQueries(db: db).list(request) }
      }
    case .getTask:
      return try await ScitqServer.answer(Call.getTask, payload) { (request) async throws(CallError) in
        try await task(TaskID(request.id))
      }
    case .findTask:
      return try await ScitqServer.answer(Call.findTask, payload) { (request) async throws(CallError) in
        try await find(request)
      }
    case .retryTask:
      return try await ScitqServer.answer(Call.retryTask, payload) { (request) async throws(CallError) in
        try await context.engine.ask { .retry(request, by: user, $0) }
      }
    case .actOnTask:
      return try await ScitqServer.answer(Call.actOnTask, payload) { (request) async throws(CallError) in
        var done: WireActedOnTasks = try await context.engine.ask { .act(request, by: user, $0) }
        if let task = try await find(TaskID(request.id)) { done.task = task }
        return done
      }
    case .editTask:
      return try await ScitqServer.answer(Call.editTask, payload) { (request) async throws(CallError) in
        try SubmissionCheck.check(request)
        try await context.engine.ask { .edit(request, by: user, $0) }
        return try await task(TaskID(request.id))
      }
    case .readEvents:
      try await readEvents(try parse(payload))
      return nil
    case .waitTasks:
      try await waitTasks(try parse(payload))
      return nil
    case .explainTask:
      return try await ScitqServer.answer(Call.explainTask, payload) { (request) async throws(CallError) in
        var explanation = WireExplanation()
        explanation.sentence = try await explain(TaskID(request.id))
        return explanation
      }
    case .taskFiles:
      return try await ScitqServer.answer(Call.taskFiles, payload) { (request) async throws(CallError) in
        let id = TaskID(request.id)
        let found: WireTaskFiles? = try await read { (db) throws(CallError) in
          do { return try TaskQueries(db: db).files(id) } catch { throw Engine.unavailable(error) }
        }
        guard let found else { throw Engine.noTask(id) }
        return found
      }
    case .readLog:
      try await readLog(try parse(payload))
      return nil
    default: return try await answerFlows(method, payload)
    }
  }

  func administer(_ method: ScitqProtocol.Method, _ payload: [UInt8]) async throws(CallError)
    -> [UInt8]?
  {
    let accounts = context.accounts
    switch method {
    case .listWorkers: return try encode(try await listWorkers())
    case .workerStats:
      return try await ScitqServer.answer(Call.workerStats, payload) { (request) async throws(CallError) in
        try await workerStats(request.ids.map(WorkerID.init(rawValue:)))
      }
    case .deleteWorkers:
      try needAdmin("delete workers")
      return try await ScitqServer.answer(Call.deleteWorkers, payload) { (request) async throws(CallError) in
        try await context.engine.ask {
          .deleteWorkers(
            request.ids.map(WorkerID.init(rawValue:)), undeployed: request.undeployed, by: user, $0)
        }
        return WireEmpty()
      }
    case .updateWorkers:
      try needAdmin("change workers")
      return try await ScitqServer.answer(Call.updateWorkers, payload) { (request) async throws(CallError) in
        try await context.engine.ask { .updateWorkers(request, by: user, $0) }
        return try await workers(request.ids)
      }
    case .actOnWorkers:
      try needAdmin("change workers")
      return try await ScitqServer.answer(Call.actOnWorkers, payload) { (request) async throws(CallError) in
        try await context.engine.ask { .actOnWorkers(request, by: user, $0) }
        return try await workers(request.ids)
      }
    case .explainWorker:
      return try await ScitqServer.answer(Call.explainWorker, payload) { (request) async throws(CallError) in
        _ = try await workers([request.id])
        var explanation = WireExplanation()
        explanation.sentence = await context.engine.explain(worker: WorkerID(request.id))
        return explanation
      }
    case .logout:
      try await accounts.logout(token, user)
      return try encode(WireEmpty())
    case .revokeTokens:
      return try await ScitqServer.answer(Call.revokeTokens, payload) { (request) async throws(CallError) in
        if request.id != user.id.rawValue { try needAdmin("revoke another's tokens") }
        try await accounts.revokeTokens(of: UserID(request.id), by: user)
        return WireEmpty()
      }
    case .listUsers:
      var list = WireUserList()
      list.users = try await accounts.list().map(\.view)
      return try encode(list)
    case .createUser:
      try needAdmin("create users")
      return try await ScitqServer.answer(Call.createUser, payload) { (request) async throws(CallError) in
        try await accounts.create(request, by: user).view
      }
    case .updateUser:
      try needAdmin("change users")
      return try await ScitqServer.answer(Call.updateUser, payload) { (request) async throws(CallError) in
        try await accounts.update(request, by: user).view
      }
    case .deleteUser:
      try needAdmin("delete users")
      return try await ScitqServer.answer(Call.deleteUser, payload) { (request) async throws(CallError) in
        try await accounts.delete(UserID(request.id), by: user)
        return WireEmpty()
      }
    case .serverStatus: return try encode(try await serverStatus())
    case .remotes: return try encode(try await RemoteCalls(context: context).handed(to: user))
    case .remoteList:
      try await RemoteCalls(context: context).list(try parse(payload), for: user, on: stream)
      return nil
    case .cleanWorkers:
      try needAdmin("clean workers")
      return try await ScitqServer.answer(Call.cleanWorkers, payload) { (request) async throws(CallError) in
        try await cleanWorkers(request.ids.map(WorkerID.init(rawValue:)))
      }
    default:
      if let answer = try await answerFleet(method, payload) { return answer }
      throw CallError(.forbidden, "a user may not call \(method): it is for workers")
    }
  }

  func needAdmin(_ what: String) throws(CallError) {
    if !user.isAdmin { throw CallError(.forbidden, "\(user.username) may not \(what): that takes an admin") }
  }

  func read<T: Sendable>(
    _ body: @escaping @Sendable (Database) throws(CallError) -> T
  ) async throws(CallError) -> T {
    do { return try await context.store.read { db in try body(db) } } catch let error as CallError {
      throw error
    } catch { throw Engine.unavailable(error) }
  }

  func task(_ id: TaskID) async throws(CallError) -> WireTask {
    let found = try await find(id)
    guard let found else { throw Engine.noTask(id) }
    return found
  }

  func find(_ id: TaskID) async throws(CallError) -> WireTask? {
    do { return try await context.store.read { db in try TaskQueries(db: db).task(id) } } catch {
      throw Engine.unavailable(error)
    }
  }

  // MARK: Tasks

  private func createTasks(_ request: WireCreateTasks) async throws(CallError) -> WireTasksCreated {
    var tasks = request.tasks
    var rows: [WireJobRow] = []
    let most = context.configuration.limits.maxTasksPerCall
    if request.more {
      while let item = try await stream.next() {
        let batch: WireTaskBatch = try parse(item)
        tasks.append(contentsOf: batch.tasks)
        rows.append(contentsOf: batch.rows)
        guard max(tasks.count, rows.count) <= most else { break }
      }
    }
    guard max(tasks.count, rows.count) <= most, request.job.size <= most else {
      throw CallError(.exhausted, "more than \(most) tasks in one call; give them in several")
    }
    let check = SubmissionCheck(configuration: context.configuration, user: user)
    var submission = Submission(owner: user, key: request.idempotencyKey, tasks: tasks)
    if request.hasJob {
      submission.job = try check.check(request.job, rows, beside: tasks)
    } else {
      try check.check(tasks)
    }
    return try await context.engine.ask { .submit(submission, $0) }
  }

  /// Sends each task once it has ended for good. A retried one is followed to its newest attempt.
  private func waitTasks(_ request: WireWaitTasks) async throws(CallError) {
    let ids = try await expanded(request.ids)
    try await untilGone { () async throws(CallError) in
      try await context.watch.watching { (watch) async throws(CallError) in
        try await send(ends: ids, watch)
      }
    }
  }

  /// Jobs are waited for by waiting for their tasks.
  private func expanded(_ ids: [Int64]) async throws(CallError) -> [TaskID] {
    try await read { (db) throws(CallError) in
      do {
        return try ids.flatMap { id in
          try db.job(TaskID(id)) == nil ? [TaskID(id)] : db.tasks(of: TaskID(id))
        }
      } catch { throw Engine.unavailable(error) }
    }
  }

  private func send(ends ids: [TaskID], _ watch: TaskWatch.Watch) async throws(CallError) {
    var open = Set(ids)
    var ends = watch.ends.makeAsyncIterator()
    var looked = Array(open).sorted()
    context.watch.add(looked, to: watch)
    while true {
      while !looked.isEmpty {
        let some = Array(looked.prefix(Self.lookedUpAtOnce))
        looked.removeFirst(some.count)
        for task in try await tasks(some) {
          let id = TaskID(task.id)
          if task.nextTaskID != 0 {
            let next = TaskID(task.nextTaskID)
            context.watch.add([next], to: watch)
            open.insert(next)
            looked.append(next)
            open.remove(id)
          } else if TaskStatus(rawValue: task.status)?.isFinal == true, open.remove(id) != nil {
            guard await stream.send(task) else { return }
          }
        }
      }
      if open.isEmpty { return }
      guard let ended = await ends.next() else { return }
      looked = ended
    }
  }

  /// Between two such reads others get their turn.
  private static let lookedUpAtOnce = 500

  private func tasks(_ ids: [TaskID]) async throws(CallError) -> [WireTask] {
    let found: [WireTask]
    do {
      found = try await context.store.read { db in
        let queries = TaskQueries(db: db)
        return try ids.compactMap { try queries.task($0) }
      }
    } catch { throw Engine.unavailable(error) }
    if found.count < ids.count {
      let known = Set(found.map(\.id))
      for id in ids where !known.contains(id.rawValue) { throw Engine.noTask(id) }
    }
    return found
  }

  private func explain(_ id: TaskID) async throws(CallError) -> String {
    if let sentence = await context.engine.explain(id) { return sentence }
    let job: JobRow? = try await read { (db) throws(CallError) in
      do { return try db.job(id) } catch { throw Engine.unavailable(error) }
    }
    if let job {
      let counts = job.counts.wire.map { "\($0.count) \(TaskStatus(rawValue: $0.status)?.word ?? $0.status)" }
      return "job \(id) is \(job.status.word): of \(job.size) tasks, \(counts.joined(separator: ", "))"
    }
    let task = try await task(id)
    let status = TaskStatus(rawValue: task.status) ?? .failed
    var sentence = "task \(id) has ended: it is \(status.word)"
    if !task.reason.isEmpty, status != .succeeded { sentence += " (\(task.reason))" }
    if !task.message.isEmpty, status != .succeeded { sentence += ": \(task.message)" }
    if task.nextTaskID != 0 { sentence += "; it was retried as task \(task.nextTaskID)" }
    return sentence
  }

  private func readLog(_ request: WireReadLog) async throws(CallError) {
    let id = TaskID(request.id)
    _ = try await task(id)
    let one: LogStream? = request.stream == .out ? .out : request.stream == .err ? .err : nil
    do {
      var position = LogPosition()
      if request.tailLines > 0 {
        position = try await context.logs.tail(task: id, lines: Int(clamping: request.tailLines), stream: one)
      }
      let pieces =
        request.follow
        ? context.logs.follow(task: id, stream: one, from: position) {
          // The log goes on until the task has ended, whatever the log itself knows.
          let task = try? await self.find(id)
          return task.map { TaskStatus(rawValue: $0.status)?.isFinal ?? true } ?? true
        }
        : context.logs.merged(task: id, stream: one, from: position)
      // A reader that has gone ends the wait for more.
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await stream.untilCanceled() }
        group.addTask {
          for try await piece in pieces {
            var data = WireLogData()
            data.stream = piece.stream == .err ? .err : .out
            data.offset = piece.offset
            data.data = Data(piece.bytes)
            guard await stream.send(data) else { break }
          }
        }
        try await group.next()
        group.cancelAll()
      }
    } catch {
      throw CallError(.unavailable, "the log of task \(id) cannot be read: \(error)")
    }
  }
}
