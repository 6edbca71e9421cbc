import Foundation
import ScitqProtocol
import Synchronization

/// The whole way of a task that does nothing, many of them: submitted, run, done and durable.
struct NoopBenchmark {
  let rounds: Int
  private let count = 3000

  func run() async throws {
    let report = Report(
      "noop: \(count) tasks `true`, one worker, two slots; floor: that program spawned and reaped, two at a time"
    )
    var rates: [Double] = []
    var floors: [Double] = []
    try await Installation.run { installation in
      try await installation.startWorker(slots: 2, prefetch: 64)
      let connection = try await installation.connect()
      for _ in 0..<rounds {
        floors.append(try await spawnRate(count))
        let time = try await timed { try await connection.runToTheEnd(newTasks(count, command: "true")) }
        rates.append(Double(count) / time.seconds)
      }
      await connection.close()
    }
    report.figure(
      "submitted to done and durable", rates, unit: "tasks/s", floor: floors, goal: "60 % of the floor")
  }

  /// How many processes a second this machine starts and reaps, two at a time.
  private func spawnRate(_ count: Int) async throws -> Double {
    let next = Atomic(0)
    let start = ContinuousClock.now
    let threads = (0..<2).map { _ in
      let (ended, signal) = AsyncStream.makeStream(of: Bool.self)
      Thread.detachNewThread {
        var good = true
        while next.add(1, ordering: .relaxed).newValue <= count, good { good = Self.spawn() }
        signal.yield(good)
        signal.finish()
      }
      return ended
    }
    for ended in threads {
      for await good in ended where !good { throw Trouble("/bin/true cannot be spawned") }
    }
    return Double(count) / (ContinuousClock.now - start).seconds
  }

  private static func spawn() -> Bool {
    var pid: pid_t = 0
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
    defer { free(arguments[0]) }
    guard posix_spawn(&pid, "/bin/true", nil, nil, &arguments, environ) == 0 else { return false }
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 { guard errno == EINTR else { return false } }
    return status == 0
  }
}

/// How soon a task runs on an idle system.
struct LatencyBenchmark {
  let rounds: Int
  private let count = 40

  func run() async throws {
    let report = Report("latency: one task `true` at a time on an idle system, \(count * rounds) of them")
    var starts: [Double] = []
    var ends: [Double] = []
    try await Installation.run { installation in
      try await installation.startWorker(slots: 2, prefetch: 2)
      let connection = try await installation.connect()
      for _ in 0..<count * rounds {
        let submitted = Date().timeIntervalSince1970
        let clock = ContinuousClock.now
        let last = try await connection.runToTheEnd(newTasks(1, command: "true"))
        ends.append((ContinuousClock.now - clock).seconds * 1000)
        let started = Double(try await connection.task(last).runStartedAt) / 1e6
        starts.append((started - submitted) * 1000)
      }
      await connection.close()
    }
    report.figure("submit to running, median", [starts.median], unit: "ms", goal: "10 ms")
    report.figure("submit to running, 99 %", [starts.percentile(0.99)], unit: "ms")
    report.figure("submit to the news of its end, median", [ends.median], unit: "ms")
  }
}

extension Connection {
  /// Submits, and waits until all have succeeded; the id of the last one.
  @discardableResult
  func runToTheEnd(_ tasks: WireCreateTasks) async throws -> Int64 {
    let made = try await create(tasks)
    var request = WireWaitTasks()
    request.ids = Array(made.firstID..<made.firstID + made.count)
    var ended = 0
    for try await task in feed(.waitTasks, request) {
      guard task.status == TaskStatus.succeeded.rawValue else {
        throw Trouble("task \(task.id) ended with \(task.status): \(task.message)")
      }
      ended += 1
    }
    guard ended == Int(made.count) else { throw Trouble("\(ended) of \(made.count) tasks ended") }
    return made.firstID + made.count - 1
  }

  func task(_ id: Int64) async throws -> WireTask {
    var request = WireTaskId()
    request.id = id
    return try await call(.getTask, request)
  }
}
