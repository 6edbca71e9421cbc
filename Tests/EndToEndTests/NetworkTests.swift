import Foundation
import Testing

/// A cable that is cut between a worker and the server: real TCP, and nobody says a word.
@Suite("The network", .serialized)
struct NetworkTests {
  @Test("a cable that is cut for less than the lease leaves an event, and nothing else")
  func short() async throws {
    try await World.server().worker("far", slots: 1).behindCable()
      .configured("workers:\n  beat_interval: 500ms\n  offline_timeout: 60s").run { world in
        let id = try await world.create(
          "--shell", "sh", "--command", "for i in $(seq 1 80); do echo line $i; sleep 0.1; done")
        try await world.task(id, reaches: "R")
        try await world.cable(of: "far").cut()
        try await until("the silence is noticed") { try await world.happened("worker", "silent") }
        try #require(try await world.task(id).status == "R")
        try await world.cable(of: "far").mend()
        try await until("it is heard again") { try await world.happened("worker", "heard") }
        try await world.succeeded(id)
        #expect(try await world.log(id).text == (1...80).map { "line \($0)" }.joined(separator: "\n"))
        #expect(try await world.assignment(id) == "1")
        #expect(try await !world.happened("worker", "lost"))
        #expect(try await world.history(id) == "PACRUS")
      }
  }

  @Test("one that is cut for longer loses the worker; its task is cloned, and the late worker is superseded")
  func long() async throws {
    try await World.server().worker("far", slots: 1).behindCable().worker("near", slots: 1).later()
      .configured("workers:\n  beat_interval: 500ms\n  offline_timeout: 4s").run { world in
        let output = world.folder.appending(path: "out")
        let gate = world.folder.appending(path: "gate").path
        // Both attempts write who they are; one of them may bring it home.
        let id = try await world.create(
          "--shell", "sh", "--output", output.path + "/", "--command",
          "echo $SCITQ_TASK_ID > $OUTPUT/who; while [ ! -e '\(gate)' ]; do sleep 0.1; done")
        try await world.task(id, reaches: "R")
        try await world.cable(of: "far").cut()
        try await until("the worker is lost") { try await world.worker("far")?.status == "lost" }
        let lost = try await world.task(id)
        #expect(lost.status == "F" && lost.reason == "worker-lost", "\(lost)")
        let clone = try #require(lost.nextTaskId)
        try await world.startWorker("near")
        try await world.task(clone, reaches: "R")
        // Both end now, one of them where nobody hears it.
        try Data().write(to: URL(filePath: gate))
        try await world.succeeded(clone)
        try await world.cable(of: "far").mend()
        try await until("the late worker is back, and has forgotten its attempt") {
          try await world.worker("far")?.status == "running" && world.attempts(of: "far").isEmpty
        }
        let who = try String(contentsOf: output.appending(path: "who"), encoding: .utf8)
        #expect(who == "\(clone)\n")
        #expect(try await world.task(id).status == "F")
        #expect(try await world.task(clone).status == "S")
      }
  }
}

extension World {
  /// Whether something of this kind is among the events.
  func happened(_ object: String, _ what: String) async throws -> Bool {
    try await sql("SELECT count(*) FROM event WHERE object = '\(object)' AND to_status = '\(what)'") != "0"
  }

  /// The folders of attempts that a worker still has.
  nonisolated func attempts(of worker: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: store(of: worker).appending(path: "tasks").path))
      ?? []
  }
}
