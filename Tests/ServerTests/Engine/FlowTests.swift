import Foundation
import GRDB
import ScitqProtocol
import SwiftProtobuf
import Testing

@testable import ScitqServer

/// Workflows, steps and suspension, in the engine over a real database.
@Suite("Workflows and suspension")
struct FlowTests {
  private static func task(_ step: Int64, after: [TaskID] = []) -> WireNewTask {
    var task = WireNewTask.bare("t", after: after)
    task.stepID = step
    return task
  }

  // MARK: Drafts

  @Test("a draft of ten thousand tasks becomes real in one go, and not before")
  func draft() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow(draft: true)
      let (a, b) = (try await world.step("a", of: flow), try await world.step("b", of: flow))
      let worker = try await world.join("w", slots: 4)
      try await world.serve(worker.id, step: a)
      let first = try await world.submit((0..<5000).map { _ in Self.task(a) })
      let second = try await world.submit(first.map { Self.task(b, after: [$0]) })
      #expect(try await world.standing(ofWorkflow: flow).status == "I")
      #expect(try await world.status(first[0]) == .inactive)
      try await world.act(.start, onWorkflow: flow)
      let counts = try await world.standing(ofWorkflow: flow).tasks.map { "\($0.status)\($0.count)" }
      #expect(counts == ["W5000", "P4996", "A4"])
      #expect(try await world.status(second[9]) == .waiting)
      await #expect(throws: CallError.self) { try await world.act(.start, onWorkflow: flow) }
      // One event for all that became ready, and one for all that wait.
      let events = try await world.store.read { db in
        try Int.fetchOne(db, sql: "SELECT count(*) FROM event WHERE from_status = 'I'")
      }
      #expect(events == 2)
    }
  }

  // MARK: Status

  @Test("a workflow runs, is blocked by what failed, goes on after a retry, and succeeds")
  func status() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow()
      let step = try await world.step("only", of: flow)
      #expect(try await world.standing(ofWorkflow: flow).status == "R")
      var worker = try await world.join("w")
      try await world.serve(worker.id, step: step)
      let first = try await world.submit([Self.task(step)])[0]
      let second = try await world.submit([Self.task(step, after: [first])])[0]
      try await worker.say(try await worker.attempt(first), .accepted, .running, .uploadingFailed, .failed)
      let blocked = try await world.standing(ofWorkflow: flow)
      #expect(blocked.status == "F")
      #expect(blocked.blockedBy == "blocked by task 1, which failed; 1 task waits")
      let clone = try await world.retry(first)
      #expect(try await world.standing(ofWorkflow: flow).status == "R")
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      try await worker.say(try await worker.attempt(second), .accepted, .running, .uploading, .succeeded)
      let done = try await world.standing(ofWorkflow: flow)
      #expect(done.status == "S" && done.startedAt > 0 && done.endedAt >= done.startedAt)
      await #expect(throws: CallError.self) { try await world.step("only", of: flow) }
    }
  }

  @Test("a workflow is canceled, and deleted with all that is in it")
  func cancelAndDelete() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow()
      let step = try await world.step("s", of: flow)
      var worker = try await world.join("w", slots: 1)
      try await world.serve(worker.id, step: step)
      let tasks = try await world.submit([Self.task(step), Self.task(step)])
      let attempt = try await worker.attempt(tasks[0])
      try await worker.say(attempt, .accepted, .running)
      let outsider = try await world.submit("x", after: [tasks[1]])
      await #expect(throws: CallError.self) { try await world.act(.delete, onWorkflow: flow) }
      try await world.cancel(outsider)
      try await world.act(.cancel, onWorkflow: flow)
      #expect(try await world.status(tasks[1]) == .canceled)
      #expect(try await world.standing(ofWorkflow: flow).status == "R", "one still runs")
      await #expect(throws: CallError.self) { try await world.submit([Self.task(step)]) }
      try await world.act(.delete, onWorkflow: flow)
      // What ran is not the worker's any more.
      #expect(try await worker.say(attempt, .canceled).count == 1)
      try await world.store.read { db in
        for table in ["workflow", "step", "job", "phase_count"] {
          let left = try Int.fetchOne(db, sql: "SELECT count(*) FROM \(table)")
          #expect(left == 0, "\(table)")
        }
        for (table, what) in [("task", "count(*)"), ("task_spec", "count(*)"), ("task_count", "sum(count)")] {
          let left = try Int.fetchOne(db, sql: "SELECT \(what) FROM \(table)")
          #expect(left == 1, "\(table)")
        }
        let step = try Int64.fetchOne(db, sql: "SELECT step_id FROM worker")
        #expect(step == nil)
      }
      #expect(try await world.submit("new").rawValue == 4, "numbers are not given again")
    }
  }

  @Test("a suspended workflow pauses what runs, takes back what has not started, and starts nothing")
  func suspendedWorkflow() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow()
      let step = try await world.step("s", of: flow)
      var worker = try await world.join("w", slots: 2)
      try await world.serve(worker.id, step: step)
      let tasks = try await world.submit((0..<3).map { _ in Self.task(step) })
      let running = try await worker.attempt(tasks[0])
      try await worker.say(running, .accepted, .running)
      try await world.act(.suspend, onWorkflow: flow)
      #expect(try await world.standing(ofWorkflow: flow).status == "Z")
      #expect(try await world.status(tasks[1]) == .pending)
      #expect(await world.engine.explain(tasks[1]) == "its workflow is suspended")
      try await worker.say(running, .suspended)
      #expect(try await world.status(tasks[0]) == .suspended)
      // The task alone cannot go on.
      await #expect(throws: CallError.self) { try await world.act(.resume, tasks[0]) }
      try await world.act(.resume, onWorkflow: flow)
      try await worker.say(running, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(tasks[0]) == .succeeded)
      #expect(try await world.row(tasks[0]).suspendedFor > 0)
      #expect(try await world.status(tasks[1]) == .assigned)
    }
  }

  // MARK: Suspension

  @Test("a task is suspended at every status that can be, and goes on from there")
  func suspension() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 1)
      let running = try await world.submit("a")
      let waiting = try await world.submit("b", after: [running])
      let pending = try await world.submit("c")
      for task in [waiting, pending] {
        try await world.act(.suspend, task)
        #expect(try await world.status(task) == .suspended)
        try await world.act(.resume, task)
      }
      #expect(try await world.status(waiting) == .waiting)
      #expect(try await world.status(pending) == .pending)

      // Before its command has started it is taken back.
      let first = try await worker.attempt(running)
      try await worker.say(first, .accepted)
      try await world.act(.suspend, running)
      #expect(try await world.status(running) == .suspended)
      #expect(try await worker.say(first, .running).count == 1, "superseded")
      try await worker.say(try await worker.attempt(pending), .accepted, .running, .uploading, .succeeded)
      try await world.act(.resume, running)
      let second = try await worker.attempt(running)
      try await worker.say(second, .accepted, .running)

      // While it runs its worker is asked, and says when it is so.
      #expect(try await worker.say(second, .suspended).isEmpty, "a late one is taken, and let go on at once")
      #expect(try await world.status(running) == .suspended)
      try await worker.say(second, .running)
      try await world.act(.suspend, running)
      #expect(try await world.status(running) == .running)
      try await worker.say(second, .suspended)
      #expect(try await world.status(running) == .suspended)
      // Its slot stays taken.
      let other = try await world.submit("d")
      #expect(try await world.status(other) == .pending)
      try await world.act(.resume, running)
      try await worker.say(second, .running, .uploading)
      await #expect(throws: CallError.self) { try await world.act(.suspend, running) }
      try await worker.say(second, .succeeded)
      #expect(try await world.status(waiting) == .pending, "the other has the slot since the upload began")
    }
  }

  @Test("a suspended task gives its slot up when asked to, and a clone waits in its place")
  func release() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 1)
      let task = try await world.submit("a")
      let after = try await world.submit("b", after: [task])
      let attempt = try await worker.attempt(task)
      try await worker.say(attempt, .accepted, .running)
      try await world.act(.suspend, task, release: true)
      try await worker.say(attempt, .canceled)
      let old = try await world.row(task)
      #expect(old.status == .canceled && old.hidden)
      let clone = try #require(old.next)
      #expect(try await world.status(clone) == .suspended)
      try await world.act(.resume, clone)
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(after) == .assigned)
    }
  }

  @Test("a paused task whose worker is lost is cloned, and the clone stays suspended")
  func lostWhilePaused() async throws {
    try await EngineWorld.run(configure: { $0.workers.offlineTimeout = .zero }) { world in
      var worker = try await world.join("w")
      let task = try await world.submit("a")
      let attempt = try await worker.attempt(task)
      try await worker.say(attempt, .accepted, .running)
      try await world.act(.suspend, task)
      try await worker.say(attempt, .suspended)
      try await worker.vanish()
      let old = try await world.row(task)
      #expect(old.status == .failed && old.reason == "worker-lost")
      #expect(try await world.status(try #require(old.next)) == .suspended)
    }
  }

  @Test("a worker that is paused with what runs pauses it, and resumes it")
  func pausedWorker() async throws {
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 1, prefetch: 1)
      let tasks = try await world.submit([.bare("a"), .bare("b")])
      let running = try await worker.attempt(tasks[0])
      try await worker.say(running, .accepted, .running)
      try await world.act(.pause, on: worker.id, running: true)
      try await worker.say(running, .suspended)
      #expect(try await world.status(tasks[0]) == .suspended)
      #expect(try await world.status(tasks[1]) == .pending)
      try await world.act(.resume, on: worker.id)
      try await worker.say(running, .running)
      #expect(try await world.status(tasks[1]) == .assigned)
      try await world.act(.drain, on: worker.id)
      #expect(try await world.status(tasks[1]) == .pending)
      #expect(try await world.status(tasks[0]) == .running)
    }
  }

  @Test("under D one task runs at a time, on the operator's word")
  func debug() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow(strategy: "D")
      let step = try await world.step("s", of: flow)
      var worker = try await world.join("w", slots: 4)
      try await world.serve(worker.id, step: step)
      let tasks = try await world.submit([Self.task(step), Self.task(step)])
      #expect(try await world.status(tasks[0]) == .pending)
      try await world.act(.runNow, tasks[1])
      #expect(try await world.status(tasks[1]) == .assigned)
      await #expect(throws: CallError.self) { try await world.act(.runNow, tasks[0]) }
      try await worker.say(try await worker.attempt(tasks[1]), .accepted, .running, .uploading, .succeeded)
      try await world.act(.runNow, tasks[0])
      #expect(try await world.status(tasks[0]) == .assigned)
    }
  }

  // MARK: Every move

  @Test(
    "of every letter that a worker may send, only the legal ones are taken; the rest are refused with both letters"
  )
  func moves() async throws {
    let legal: [TaskStatus: String] = [
      .assigned: "C", .accepted: "DORF", .downloading: "ORF", .onHold: "RF", .running: "UV", .uploading: "SF",
      .uploadingFailed: "F",
    ]
    let roads: [TaskStatus: [TaskStatus]] = [
      .assigned: [], .accepted: [.accepted], .downloading: [.accepted, .downloading],
      .onHold: [.accepted, .onHold], .running: [.accepted, .running],
      .uploading: [.accepted, .running, .uploading],
      .uploadingFailed: [.accepted, .running, .uploadingFailed],
    ]
    try await EngineWorld.run { world in
      var worker = try await world.join("w", slots: 500)
      for (from, road) in roads {
        for to in TaskStatus.allCases where to != from && to != .suspended {
          let id = try await world.submit("t")
          let attempt = try await worker.attempt(id)
          for status in road { try await worker.say(attempt, status) }
          worker.sequence += 1
          var report = WireReport()
          report.sequence = worker.sequence
          report.taskID = id.rawValue
          report.assignment = attempt.assignment
          report.status = to.rawValue
          let answer = try await worker.answer([report])
          let isLegal = legal[from]?.contains(to.rawValue) == true
          #expect(answer.superseded.isEmpty == isLegal, "\(from.rawValue) to \(to.rawValue)")
          let status = try await world.status(id)
          #expect(status == (isLegal ? to : from), "\(from.rawValue) to \(to.rawValue)")
          if !isLegal {
            let sentence = answer.refusals.first ?? ""
            #expect(
              sentence.contains("(\(from.rawValue))") && sentence.contains("(\(to.rawValue))"), "\(sentence)")
          }
        }
      }
    }
  }
}
