import ScitqProtocol
import SwiftProtobuf
import Synchronization
import SystemPackage

@testable import ScitqWorker

/// The server's side of a worker's conversation, in memory: it keeps what it is told as the real one would, refuses
/// what the real one would refuse, and can be cut off.
final class FakeServer: Sendable {
  struct State {
    /// The letters each attempt has passed through.
    var letters: [TaskID: String] = [:]
    var last: [TaskID: WireReport] = [:]
    var logs: [TaskID: (out: [UInt8], err: [UInt8])] = [:]
    var sequence: Int64 = 0
    var superseded: Set<TaskID> = []
    var leaves = 0
    var beats = 0
    /// What people were told of the host, each once, in order.
    var warnings: [String] = []
    var hello: WireHello?
    var isAway = false
    var isDeleted = false
    var link: FakeLink?
    var settings = WireWorkerSettings()
    var remotes = WireRemotes()
    var cleaned: [WireCleaned] = []
    var trouble: [String] = []
    /// Reports that were taken but whose answer was lost with the connection.
    var dropsAnswers = 0
  }

  let state: Mutex<State>

  init(concurrency: UInt32 = 1, prefetch: UInt32 = 0) {
    var state = State()
    state.settings.concurrency = concurrency
    state.settings.prefetch = prefetch
    state.settings.beatIntervalMs = 20
    state.settings.leaseMs = 5000
    state.settings.killGraceMs = 1000
    self.state = Mutex(state)
  }

  var connector: Connector {
    { hello, onPush async throws(CallError) in
      let link = FakeLink(self, onPush)
      try self.state.withLock { state throws(CallError) in
        if state.isAway { throw CallError(.unavailable, "the server is away") }
        if state.isDeleted { throw CallError(.unauthenticated, "unknown credential") }
        state.link = link
        state.hello = hello
      }
      return link
    }
  }

  func order(_ task: Int64, _ command: String, _ change: (inout WireTaskOrder) -> Void = { _ in }) {
    var order = WireTaskOrder()
    order.taskID = task
    order.assignment = 1
    order.attempt = 1
    order.weight = 1
    order.spec.command = command
    change(&order)
    var orders = WireOrders()
    orders.orders = [order]
    state.withLock { $0.link }?.onPush(.orders(orders))
  }

  func revoke(_ task: Int64, _ action: WireRevokeAction, atOnce: Bool = false) {
    var one = WireRevocation()
    one.attempt.taskID = task
    one.attempt.assignment = 1
    one.action = action
    one.atOnce = atOnce
    var list = WireRevocations()
    list.revocations = [one]
    state.withLock { $0.link }?.onPush(.revocations(list))
  }

  func push(_ pushed: Pushed) { state.withLock { $0.link }?.onPush(pushed) }

  func cut(stayAway: Bool = false) {
    let link = state.withLock { state in
      state.isAway = stayAway
      let link = state.link
      state.link = nil
      return link
    }
    link?.end()
  }

  func comeBack() { state.withLock { $0.isAway = false } }

  func letters(_ task: Int64) -> String { state.withLock { $0.letters[TaskID(task)] ?? "" } }
  func last(_ task: Int64) -> WireReport { state.withLock { $0.last[TaskID(task)] ?? WireReport() } }
  func out(_ task: Int64) -> String {
    state.withLock { String(decoding: $0.logs[TaskID(task)]?.out ?? [], as: UTF8.self) }
  }
  var isConnected: Bool { state.withLock { $0.link != nil } }

  fileprivate func answer(_ method: ScitqProtocol.Method, _ request: any Message) throws(CallError)
    -> any Message
  {
    try state.withLock { state throws(CallError) in
      switch (method, request) {
      case (.reconcile, let request as WireReconcile):
        var answer = WireReconciled()
        for one in request.attempts {
          var reference = WireAttemptRef()
          reference.taskID = one.taskID
          reference.assignment = one.assignment
          let id = TaskID(one.taskID)
          if state.superseded.contains(id) {
            answer.kill.append(reference)
          } else if let last = state.letters[id]?.last, "SFX".contains(last) {
            answer.forget.append(reference)
          } else {
            answer.keep.append(reference)
          }
        }
        return answer
      case (.workerRemotes, _): return state.remotes
      case (.cleaned, let request as WireCleaned):
        state.cleaned.append(request)
        return WireEmpty()
      case (.beat, _):
        state.beats += 1
        if let beat = request as? WireBeat {
          for warning in beat.warnings where !state.warnings.contains(warning) {
            state.warnings.append(warning)
          }
        }
        return WireEmpty()
      case (.leave, _):
        state.leaves += 1
        return WireEmpty()
      case (.report, let request as WireReports):
        var answer = WireReportsAccepted()
        for report in request.reports {
          answer.sequence = max(answer.sequence, report.sequence)
          if report.sequence <= state.sequence { continue }
          state.sequence = report.sequence
          let id = TaskID(report.taskID)
          if state.superseded.contains(id) {
            var reference = WireAttemptRef()
            reference.taskID = report.taskID
            reference.assignment = report.assignment
            answer.superseded.append(reference)
            continue
          }
          take(report, &state)
        }
        if state.dropsAnswers > 0 {
          state.dropsAnswers -= 1
          throw CallError(.unavailable, "the answer was lost")
        }
        return answer
      case (.appendLog, let request as WireLogChunks):
        var answer = WireLogsStored()
        for chunk in request.chunks {
          let id = TaskID(chunk.taskID)
          var log = state.logs[id] ?? ([], [])
          let isOut = chunk.stream == .out
          var bytes = isOut ? log.out : log.err
          if chunk.offset <= bytes.count {
            bytes += Array(chunk.data).dropFirst(bytes.count - Int(chunk.offset))
          } else {
            state.trouble.append("task \(id): a hole in the log at \(bytes.count)")
          }
          if isOut { log.out = bytes } else { log.err = bytes }
          state.logs[id] = log
          var position = WireLogPosition()
          position.taskID = chunk.taskID
          position.stream = chunk.stream
          position.offset = Int64(bytes.count)
          answer.positions.append(position)
        }
        return answer
      default: throw CallError(.invalid, "no such call")
      }
    }
  }

  private func take(_ report: WireReport, _ state: inout State) {
    let id = TaskID(report.taskID)
    let before = state.letters[id]?.last ?? "A"
    let legal: [Character: String] = [
      "A": "CX", "C": "DORFX", "D": "ORFX", "O": "RFX", "R": "UVXZ", "Z": "RX", "U": "SFX", "V": "FX",
    ]
    if !(legal[before] ?? "").contains(report.status) {
      state.trouble.append("task \(id): \(before) to \(report.status)")
    }
    if "SFX".contains(report.status) {
      let log = state.logs[id] ?? ([], [])
      if report.outBytes != log.out.count || report.errBytes != log.err.count {
        state.trouble.append("task \(id): ended with \(log.out.count) bytes of \(report.outBytes)")
      }
    }
    state.letters[id, default: ""] += report.status
    state.last[id] = report
  }
}

final class FakeLink: ServerLink {
  private let server: FakeServer
  let onPush: @Sendable (Pushed) -> Void
  private let closed = Mutex<(isClosed: Bool, waiters: [CheckedContinuation<Void, Never>])>((false, []))

  init(_ server: FakeServer, _ onPush: @escaping @Sendable (Pushed) -> Void) {
    self.server = server
    self.onPush = onPush
  }

  var welcome: WireWelcome {
    var welcome = WireWelcome()
    welcome.worker.workerID = 1
    welcome.worker.name = "one"
    welcome.worker.credential = "secret"
    welcome.worker.settings = server.state.withLock { $0.settings }
    return welcome
  }

  func call<Request: Message, Response: Message>(
    _ call: Call<Request, Response>, _ request: Request
  ) async throws(CallError) -> Response {
    await Task.yield()
    if closed.withLock({ $0.isClosed }) { throw CallError(.unavailable, "the connection ended") }
    return try server.answer(call.method, request) as! Response
  }

  func close() async { end() }

  func end() {
    let waiters = closed.withLock { closed in
      let waiters = closed.waiters
      closed = (true, [])
      return waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  func waitUntilClosed() async -> CallError? {
    await withCheckedContinuation { continuation in
      let now = closed.withLock { closed in
        if !closed.isClosed { closed.waiters.append(continuation) }
        return closed.isClosed
      }
      if now { continuation.resume() }
    }
    return CallError(.unavailable, "the connection ended")
  }
}

/// Runs made-up commands, and outlives agents as the real engines do: `true`, `exit N`, `print N` (N lines, then
/// exit 0), `write TEXT` (a file in the output folder), `hold` (until released or killed).
final class ScriptedEngine: ExecutionEngine {
  private struct Attempt {
    var launch: Launch
    var isStarted = false
    var isPaused = false
    var out: [UInt8] = []
    var exit: Exit?
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private let attempts = Mutex<[AttemptID: Attempt]>([:])
  let mostAtOnce = Mutex(0)

  func prepare(_ launch: Launch) async throws(ExecutionFailure) {}

  func create(_ launch: Launch) async throws(ExecutionFailure) {
    attempts.withLock { if $0[launch.attempt] == nil { $0[launch.attempt] = Attempt(launch: launch) } }
  }

  func start(_ launch: Launch) async throws(ExecutionFailure) {
    let words = launch.command.split(separator: " ")
    let fresh = attempts.withLock { attempts -> Bool in
      let fresh = attempts[launch.attempt]?.isStarted == false
      attempts[launch.attempt]?.isStarted = true
      let running = attempts.values.count { $0.isStarted && $0.exit == nil }
      mostAtOnce.withLock { $0 = max($0, running) }
      return fresh
    }
    guard fresh else { return }
    switch words[0] {
    case "true": end(launch.attempt, Exit(code: 0))
    case "exit": end(launch.attempt, Exit(code: Int32(words[1])!))
    case "print":
      say(launch.attempt, (1...Int(words[1])!).map { "line \($0)\n" }.joined())
      end(launch.attempt, Exit(code: 0))
    case "write":
      try? write(String(words[1]), to: launch.folders.output.appending("file"))
      end(launch.attempt, Exit(code: 0))
    default: break
    }
  }

  func say(_ id: AttemptID, _ text: String) {
    attempts.withLock { $0[id]?.out += Array(text.utf8) }
  }

  func end(_ id: AttemptID, _ exit: Exit) {
    let waiters = attempts.withLock { attempts -> [CheckedContinuation<Void, Never>] in
      guard attempts[id] != nil, attempts[id]!.exit == nil else { return [] }
      attempts[id]!.exit = exit
      attempts[id]!.isPaused = false
      let waiters = attempts[id]!.waiters
      attempts[id]!.waiters = []
      return waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  func isRunning(_ task: Int64) -> Bool {
    attempts.withLock {
      $0.contains { $0.key.task == TaskID(task) && $0.value.isStarted && $0.value.exit == nil }
    }
  }

  func isPaused(_ task: Int64) -> Bool {
    attempts.withLock { $0.contains { $0.key.task == TaskID(task) && $0.value.isPaused } }
  }

  /// The graces of all kills of started attempts, in their order.
  let graces = Mutex<[Duration]>([])

  var count: Int { attempts.withLock { $0.count } }

  /// As if the host had been started anew.
  func forgetAll() {
    let waiters = attempts.withLock { attempts in
      defer { attempts = [:] }
      return attempts.values.flatMap(\.waiters)
    }
    for waiter in waiters { waiter.resume() }
  }

  private func ended(_ id: AttemptID) async -> Exit? {
    await withCheckedContinuation { continuation in
      let now = attempts.withLock { attempts -> Bool in
        guard let attempt = attempts[id], attempt.exit == nil else { return true }
        attempts[id]!.waiters.append(continuation)
        return false
      }
      if now { continuation.resume() }
    }
    return attempts.withLock { $0[id]?.exit }
  }

  func output(of attempt: AttemptID, from offsets: LogOffsets) -> AsyncThrowingStream<OutputChunk, any Error>
  {
    let (stream, continuation) = AsyncThrowingStream<OutputChunk, any Error>.makeStream()
    let reader = Task {
      _ = await ended(attempt)
      let bytes = attempts.withLock { $0[attempt]?.out ?? [] }
      var at = Int(offsets.out)
      while at < bytes.count {
        let end = min(bytes.count, at + 1000)
        continuation.yield(OutputChunk(stream: .out, offset: Int64(at), bytes: Array(bytes[at..<end])))
        at = end
      }
      continuation.finish()
    }
    continuation.onTermination = { _ in reader.cancel() }
    return stream
  }

  func delivered(_ attempt: AttemptID, upTo offsets: LogOffsets) async {}

  func exit(of attempt: AttemptID) async throws(ExecutionFailure) -> Exit {
    guard let exit = await ended(attempt) else { throw ExecutionFailure(.engine, "it is gone") }
    return exit
  }

  func kill(_ attempt: AttemptID, grace: Duration) async {
    if attempts.withLock({ $0[attempt]?.isStarted == true && $0[attempt]?.exit == nil }) {
      graces.withLock { $0.append(grace) }
      end(attempt, Exit(code: 143, signal: 15))
    }
  }

  func pause(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool { turn(attempt, isPaused: true) }
  func resume(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool { turn(attempt, isPaused: false) }

  private func turn(_ id: AttemptID, isPaused: Bool) -> Bool {
    attempts.withLock { attempts in
      guard let attempt = attempts[id], attempt.isStarted, attempt.exit == nil else { return false }
      attempts[id]!.isPaused = isPaused
      return true
    }
  }

  func remove(_ attempt: AttemptID) async { _ = attempts.withLock { $0.removeValue(forKey: attempt) } }

  func held() async throws(ExecutionFailure) -> [AttemptID: HeldState] {
    attempts.withLock {
      $0.mapValues { !$0.isStarted ? .created : $0.exit != nil ? .ended : $0.isPaused ? .paused : .running }
    }
  }
}
