import ScitqProtocol
import SwiftProtobuf

/// What workers say. Every call is a sign of life.
struct WorkerCalls {
  /// Log bytes that were taken in, and must be on disk before that is said.
  struct StoredLog: Sendable {
    var task: TaskID
    var stream: WireLogStream
    var end: Int64
    var superseded: WireAttemptRef?
  }

  private let session: Session
  private let worker: WorkerID
  private let epoch: Int64

  init(_ session: Session, _ caller: Caller) {
    self.session = session
    if case .worker(let worker, let epoch) = caller {
      self.worker = worker
      self.epoch = epoch
    } else {
      worker = 0
      epoch = 0
    }
  }

  private var context: SessionContext { session.context }

  func answer(_ method: Method, _ payload: [UInt8], _ stored: [StoredLog]?) async throws(CallError) -> [UInt8]
  {
    context.workers.heard(worker, epoch: epoch)
    switch method {
    case .reconcile:
      return try await ScitqServer.answer(Call.reconcile, payload) { (request) async throws(CallError) in
        try await context.engine.ask { .reconcile(worker, epoch: epoch, request.attempts, $0) }
      }
    case .report:
      return try await ScitqServer.answer(Call.report, payload) { (request) async throws(CallError) in
        let reports = await sealed(request.reports)
        guard !reports.isEmpty || request.reports.isEmpty else {
          throw CallError(
            .unavailable, "the log of task \(request.reports[0].taskID) has not arrived: send it again")
        }
        return try await context.engine.ask { .report(worker, epoch: epoch, reports, $0) }
      }
    case .appendLog:
      return try encode(await confirm(stored ?? []))
    case .beat:
      return try await ScitqServer.answer(Call.beat, payload) { request in
        context.workers.heard(worker, epoch: epoch, stats: request.stats, warnings: request.warnings)
        return WireEmpty()
      }
    case .workerRemotes:
      return try await ScitqServer.answer(Call.workerRemotes, payload) { _ in
        RemoteCalls(context: context).all()
      }
    case .cleaned:
      return try await ScitqServer.answer(Call.cleaned, payload) { request in
        context.cleanings.cleaned(request, by: worker)
        return WireEmpty()
      }
    case .leave:
      return try await ScitqServer.answer(Call.leave, payload) { (_) async throws(CallError) in
        try await context.engine.ask { .leave(worker, epoch: epoch, $0) }
        return WireEmpty()
      }
    default:
      throw CallError(.forbidden, "a worker may not call \(method)")
    }
  }

  /// After the answer to reconcile has left: orders may follow it.
  func answered(_ method: Method) {
    if method == .reconcile { context.engine.send(.ready(worker, epoch: epoch)) }
  }

  /// The reports up to the first whose log is not all here: a task ends only when its log is on disk.
  private func sealed(_ reports: [WireReport]) async -> [WireReport] {
    for (index, report) in reports.enumerated() where report.outBytes > 0 || report.errBytes > 0 {
      let whole = await context.logs.seal(
        task: TaskID(report.taskID), out: report.outBytes, err: report.errBytes)
      if !whole { return Array(reports[..<index]) }
    }
    return reports
  }

  // MARK: Logs

  /// Stores what arrived, in order. Runs before the next frame of the connection is looked at.
  func takeLog(_ payload: [UInt8]) async -> [StoredLog]? {
    guard worker != 0, let chunks = try? WireLogChunks(serializedBytes: payload) else { return nil }
    var stored: [StoredLog] = []
    for chunk in chunks.chunks {
      let task = TaskID(chunk.taskID)
      let stream: LogStream = chunk.stream == .err ? .err : .out
      guard await context.engine.holds(AttemptID(task: task, assignment: chunk.assignment), worker) else {
        var attempt = WireAttemptRef()
        attempt.taskID = chunk.taskID
        attempt.assignment = chunk.assignment
        stored.append(StoredLog(task: task, stream: chunk.stream, end: 0, superseded: attempt))
        continue
      }
      let end = await context.logs.append(task: task, stream: stream, offset: chunk.offset, bytes: chunk.data)
      stored.append(StoredLog(task: task, stream: chunk.stream, end: end, superseded: nil))
    }
    return stored
  }

  /// What is said to be stored is on disk: the worker may forget it.
  private func confirm(_ stored: [StoredLog]) async -> WireLogsStored {
    var answer = WireLogsStored()
    for log in stored {
      if let attempt = log.superseded {
        if !answer.superseded.contains(attempt) { answer.superseded.append(attempt) }
        continue
      }
      _ = await context.logs.seal(
        task: log.task, out: log.stream == .err ? 0 : log.end, err: log.stream == .err ? log.end : 0)
      var position = WireLogPosition()
      position.taskID = log.task.rawValue
      position.stream = log.stream
      position.offset = log.end
      answer.positions.append(position)
    }
    return answer
  }
}
