import Foundation
import GRDB
import Scheduling
import ScitqProtocol
import SwiftProtobuf
import Testing

@testable import ScitqServer

/// Jobs and retries, in the engine over a real database.
@Suite("Jobs and retries")
struct JobTests {
  @Test("an array of 100,000 has one spec, knows its indexes, and only what failed is retried")
  func array() async throws {
    try await EngineWorld.run { world in
      var job = WireNewJob()
      job.task = .bare("t")
      job.size = 100_000
      job.firstIndex = 1
      let id = try await world.submit(job: job)
      #expect(try await world.job(id).status == .pending)
      let figures = try await world.store.read { db in
        try String.fetchOne(
          db,
          sql: """
            SELECT (SELECT count(*) FROM task_spec) || ' ' || (SELECT max(array_index) FROM task) || ' '
              || (SELECT count(*) FROM event)
            """)
      }
      // One spec row; one event for the job and one for all its tasks.
      #expect(figures == "1 100000 2")
      var worker = try await world.join("w", slots: 5)
      for number in 1...5 as ClosedRange<Int64> {
        let attempt = try await worker.attempt(TaskID(id.rawValue + number))
        try await worker.say(attempt, .accepted, .running, number % 2 == 0 ? .uploading : .uploadingFailed)
        try await worker.say(attempt, number % 2 == 0 ? .succeeded : .failed)
      }
      try await world.act(.pause, on: worker.id)
      _ = try await world.act(.cancel, id)
      var retry = WireRetryTask()
      retry.id = id.rawValue
      retry.failedOnly = true
      let asked = retry
      let retried: WireTasksRetried = try await world.engine.ask { .retry(asked, by: world.admin, $0) }
      #expect(retried.count == 3)
      let counts = try await world.job(id).counts
      #expect(counts[.pending] == 3 && counts[.succeeded] == 2)
      #expect(counts.total == 100_000)
    }
  }

  @Test(
    "what waits for a job waits for all of it; index by index, for each its own; in sequence, one after the other"
  )
  func dependencies() async throws {
    try await EngineWorld.run { world in
      var job = WireNewJob()
      job.task = .bare("a")
      job.size = 3
      let first = try await world.submit(job: job)
      let whole = try await world.submit("whole", after: [first])
      var tolerant = WireNewTask.bare("tolerant", after: [first])
      tolerant.acceptFailure = true
      let either = try await world.submit([tolerant])[0]
      var paired = job
      paired.task.eachOf = [first.rawValue]
      let second = try await world.submit(job: paired)
      var sequential = job
      sequential.sequential = true
      let third = try await world.submit(job: sequential)
      paired.size = 4
      let unequal = paired
      await #expect(throws: CallError.self) { try await world.submit(job: unequal) }

      let explained = await world.engine.explain(whole)
      #expect(explained == "waiting for job 1, of which 0 of 3 tasks have succeeded")
      func task(_ job: TaskID, _ number: Int64) -> TaskID { TaskID(job.rawValue + number) }
      #expect(try await world.status(task(third, 1)) == .pending)
      #expect(try await world.status(task(third, 2)) == .waiting)
      var worker = try await world.join("w", slots: 20)
      try await worker.say(
        try await worker.attempt(task(first, 1)), .accepted, .running, .uploading, .succeeded)
      #expect(try await world.status(task(second, 1)) == .assigned)
      #expect(try await world.status(task(second, 2)) == .waiting)
      try await worker.say(
        try await worker.attempt(task(third, 1)), .accepted, .running, .uploading, .succeeded)
      #expect(try await world.status(task(third, 2)) == .assigned)
      try await worker.say(
        try await worker.attempt(task(first, 2)), .accepted, .running, .uploadingFailed, .failed)
      #expect(try await world.status(either) == .waiting)
      try await worker.say(
        try await worker.attempt(task(first, 3)), .accepted, .running, .uploading, .succeeded)
      #expect(try await world.status(either) == .assigned)
      #expect(try await world.status(whole) == .waiting)
      #expect(try await world.job(first).status == .failed)
      let clone = try await world.retry(task(first, 2))
      #expect(try await world.job(first).status == .running)
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      #expect(try await world.status(whole) == .assigned)
      #expect(try await world.job(first).status == .succeeded)
      // Of a job that is over, nothing is left to wait for.
      #expect(try await world.status(try await world.submit("late", after: [first])) == .assigned)
    }
  }

  @Test("a row's values stand in command, inputs and output; a split's outputs do not meet")
  func parameters() async throws {
    try await EngineWorld.run { world in
      var job = WireNewJob()
      job.task = .bare("align {sample} ${HOME} {other} {fq}")
      job.task.spec.output = "s3://b/{sample}/"
      job.columns = ["sample", "fq"]
      let rows = [["A", "{sample}"], ["B", "x"]].map { values in WireJobRow.with { $0.values = values } }
      let id = try await world.submit(job: job, rows: rows)
      func shown(_ task: Int64) async throws -> WireTask {
        try #require(try await world.store.read { db in try TaskQueries(db: db).task(TaskID(task)) })
      }
      let first = try await shown(id.rawValue + 1)
      #expect(first.spec.command == "align A ${HOME} {other} {sample}")
      #expect(first.spec.output == "s3://b/A/")
      #expect(first.arraySize == 2 && first.arrayIndex == 0 && first.jobID == id.rawValue)

      var split = WireNewJob()
      split.task = .bare("t")
      split.task.spec.output = "s3://b/out"
      split.split = true
      let halves = [["s3://b/1", "s3://b/2"], ["s3://b/3"]].map { inputs in
        WireJobRow.with { $0.inputs = inputs }
      }
      let other = try await world.submit(job: split, rows: halves)
      let second = try await shown(other.rawValue + 2)
      #expect(second.spec.inputs == ["s3://b/3"] && second.spec.output == "s3://b/out/1/")
    }
  }

  // MARK: Retries that think

  @Test("a rule doubles the memory and holds the retry back; another stops; the queue has a limit")
  func rules() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 4)
      var task = WireNewTask.bare("t", retry: 3)
      task.spec.needs.memoryBytes = 3 << 30
      var grow = WireRetryRule()
      grow.exit.first = 137
      grow.exit.last = 137
      grow.memoryFactor = 2
      var stop = WireRetryRule()
      stop.reason = "signal"
      stop.stop = true
      task.spec.retryRules = [grow, stop]
      let id = try await world.submit([task])[0]
      func fail(_ id: TaskID, code: Int32, _ reason: FailureReason) async throws {
        let attempt = try await worker.attempt(id)
        try await worker.say(attempt, .accepted, .running)
        worker.sequence += 2
        var failed = WireReport()
        failed.taskID = attempt.task.rawValue
        failed.assignment = attempt.assignment
        failed.reason = reason.rawValue
        failed.hasExitCode_p = true
        failed.exitCode = code
        failed.sequence = worker.sequence - 1
        failed.status = "V"
        var ended = failed
        ended.sequence += 1
        ended.status = "F"
        _ = try await worker.send([failed, ended])
      }
      try await fail(id, code: 137, .exitCode)
      let second = try #require(try await world.row(id).next)
      let shown = try await world.store.read { db in try TaskQueries(db: db).task(second) }
      #expect(shown?.spec.needs.memoryBytes == 6 << 30 && shown?.retry == 2)
      try await fail(second, code: 9, .signal)
      let over = try await world.row(second)
      #expect(over.next == nil && over.status == .failed)

      var slow = WireNewTask.bare("t", retry: 1)
      slow.spec.retryDelayMs = 60_000
      let held = try await world.submit([slow])[0]
      try await fail(held, code: 1, .exitCode)
      let clone = try #require(try await world.row(held).next)
      #expect(try await world.status(clone) == .pending)
      #expect(await world.engine.explain(clone)?.hasPrefix("held back") == true)

      var hasty = WireNewTask.bare("t")
      hasty.spec.needs.memoryBytes = 1 << 40
      hasty.spec.queueTimeoutMs = 1
      let late = try await world.submit([hasty])[0]
      try await Task.sleep(for: .milliseconds(5))
      world.engine.send(.tick)
      try await world.settle()
      let row = try await world.row(late)
      #expect(row.status == .failed && row.reason == "timeout" && row.message?.contains("queue") == true)
    }
  }

  @Test("a worker on which alone a step fails is quarantined, with an event that says so")
  func quarantine() async throws {
    try await EngineWorld.run { world in
      var good = try await world.join("good", slots: 1)
      var bad = try await world.join("bad", slots: 3)
      let tasks = try await world.submit((0..<4).map { _ in .bare("t") })
      for task in tasks {
        let attempt = try await good.attempt(task)
        if try await world.row(task).worker == good.id {
          try await good.say(attempt, .accepted, .running, .uploading, .succeeded)
        }
      }
      for task in tasks where try await world.row(task).worker == bad.id {
        try await bad.say(
          try await bad.attempt(task), .accepted, .running, .uploadingFailed, .failed, reason: .exitCode)
      }
      // The first success came before: it takes one more, elsewhere, meanwhile.
      let more = try await world.submit((0..<4).map { _ in .bare("t") })
      for task in more where try await world.row(task).worker == good.id {
        try await good.say(try await good.attempt(task), .accepted, .running, .uploading, .succeeded)
      }
      for task in more where try await world.row(task).worker == bad.id {
        try await bad.say(
          try await bad.attempt(task), .accepted, .running, .uploadingFailed, .failed, reason: .exitCode)
      }
      try await world.settle()
      let event = try await world.store.read { db in
        try String.fetchOne(db, sql: "SELECT reason FROM event WHERE to_status = 'quarantined'")
      }
      #expect(event?.contains("succeeded elsewhere meanwhile") == true)
      let next = try await world.submit("t")
      #expect(try await world.row(next).worker != bad.id)
    }
  }

  @Test("what is submitted in the very batch that ends what it waits for does not wait")
  func sameBatch() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 9)
      for _ in 0..<20 {
        var job = WireNewJob()
        job.task = .bare("a")
        job.size = 1
        let id = try await world.submit(job: job)
        let task = TaskID(id.rawValue + 1)
        try await worker.say(try await worker.attempt(task), .accepted, .running, .uploading)
        // Both are in the inbox before the engine looks at either.
        let attempt = try await worker.attempt(task)
        worker.sequence += 1
        let (sequence, name, epoch) = (worker.sequence, worker.id, worker.epoch)
        async let end: WireReportsAccepted = world.engine.ask {
          var report = WireReport()
          report.sequence = sequence
          report.taskID = task.rawValue
          report.assignment = attempt.assignment
          report.status = "S"
          return .report(name, epoch: epoch, [report], $0)
        }
        async let after = world.submit("b", after: [id, task])
        _ = try await end
        let dependent = try await after
        try await world.settle()
        #expect(try await world.status(dependent) != .waiting)
        try await worker.say(
          try await worker.attempt(dependent), .accepted, .running, .uploading, .succeeded)
      }
    }
  }
}
