import Foundation
import GRDB
import Logging
import ScitqProtocol
import Testing

@testable import ScitqServer

@Suite("What ended long ago")
struct RetentionTests {
  @Test("is forgotten, but for what somebody waits for; a workflow goes as a whole")
  func prune() async throws {
    try await EngineWorld.run { world in
      let flow = try await world.workflow()
      let step = try await world.step("s", of: flow)
      var worker = try await world.join("w", slots: 9)
      try await world.serve(worker.id, scope: "G")
      let done = try await world.submit("a")
      let failed = try await world.submit("b")
      let waiting = try await world.submit("c", after: [failed])
      let running = try await world.submit("d")
      var task = WireNewTask.bare("e")
      task.stepID = step
      let inFlow = try await world.submit([task])[0]
      for id in [done, inFlow] {
        try await worker.say(try await worker.attempt(id), .accepted, .running, .uploading, .succeeded)
      }
      try await worker.say(
        try await worker.attempt(failed), .accepted, .running, .uploadingFailed, .failed, reason: .exitCode)
      try await world.settle()

      var rules = ScitqServer.Configuration.Retention()
      rules.keepFinishedFor = .seconds(60)
      rules.keepEventsFor = .seconds(60)
      let retention = Retention(
        store: world.store, engine: world.engine, configuration: rules, logger: Logger(label: "test"))
      func left() async throws -> [Int64] {
        try await world.store.read { db in try Int64.fetchAll(db, sql: "SELECT id FROM task ORDER BY id") }
      }
      let all = try await left()
      try await retention.prune(at: microsecondsNow())
      #expect(try await left() == all, "none of it is old enough")

      try await retention.prune(at: microsecondsNow() + 61_000_000)
      #expect(try await left() == [failed, waiting, running].map(\.rawValue))
      let rest = try await world.store.read { db in
        try String.fetchOne(
          db,
          sql: """
            SELECT (SELECT count(*) FROM workflow) || ' ' || (SELECT count(*) FROM step) || ' '
              || (SELECT sum(count) FROM task_count) || ' ' || (SELECT count(*) FROM task_spec)
            """)
      }
      #expect(rest == "0 0 3 3")
      // Numbers are not given again, and what waited goes on when it can.
      let clone = try await world.retry(failed)
      #expect(clone.rawValue == inFlow.rawValue + 1)
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(waiting) == .assigned)
    }
  }
}
