import ScitqProtocol
import Synchronization
import SystemPackage
import Testing

@testable import ScitqWorker

private func id(_ task: Int64) -> AttemptID { AttemptID(task: TaskID(task), assignment: 1) }

@Suite("Suspension", .timeLimit(.minutes(2))) struct SuspensionTests {
  @Test("a running command is paused and goes on as a person wants, and keeps its slot")
  func pausesAndGoesOn() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
        #expect(engine.isPaused(1))
        server.order(2, "true")
        try await eventually("O") { server.letters(2) == "CO" }
        // The server says it again after each reconcile.
        server.revoke(1, .suspend)
        server.revoke(1, .resume)
        try await eventually("R") { server.letters(1) == "CRZR" }
        #expect(!engine.isPaused(1))
        server.revoke(1, .resume)
        engine.end(id(1), Exit(code: 0))
        try await eventually("S") { server.letters(1) == "CRZRUS" && server.letters(2) == "CORUS" }
      }
    }
  }

  @Test("a pause that is longer than the run limit is not counted")
  func limitStandsStill() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { world in
        // Long enough that a busy machine does not spend it before the pause.
        server.order(1, "hold") { $0.spec.runTimeoutMs = 10_000 }
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
        let until = ContinuousClock.now + .milliseconds(10_500)
        try await eventually("the limit has passed") { ContinuousClock.now > until }
        #expect(server.letters(1) == "CRZ")
        server.revoke(1, .resume)
        try await eventually("R") { server.letters(1) == "CRZR" }
        #expect(try #require(world.journal.state.held[id(1)]).ran < 10_000_000)
        engine.end(id(1), Exit(code: 0))
        try await eventually("S") { server.letters(1) == "CRZRUS" }
      }
    }
  }

  @Test("what ran before a pause still counts after it, through a restart of the agent")
  func limitGoesOn() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold") { $0.spec.runTimeoutMs = 12_000 }
        try await eventually("R") { server.letters(1) == "CR" }
        let began = ContinuousClock.now
        try await eventually("most of the time is spent") { ContinuousClock.now - began > .seconds(4) }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
      }
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { _ in
        #expect(engine.isPaused(1))
        server.revoke(1, .resume)
        try await eventually("R") { server.letters(1).hasPrefix("CRZR") }
        let again = ContinuousClock.now
        try await eventually("F") { server.letters(1) == "CRZRVF" }
        #expect(server.last(1).reason == "timeout")
        // Less than the whole limit, by most of what was spent before.
        #expect(ContinuousClock.now - again < .milliseconds(11_000))
      }
    }
  }

  @Test("a suspended task can be canceled")
  func cancel() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
        server.revoke(1, .cancel)
        try await eventually("X") { server.letters(1) == "CRZX" }
        try await eventually("clean") { engine.count == 0 }
        #expect(engine.graces.withLock { $0 } == [.seconds(1)])
      }
    }
  }

  @Test("a cancel at once leaves no grace")
  func atOnce() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .cancel, atOnce: true)
        try await eventually("X") { server.letters(1) == "CRX" }
        #expect(engine.graces.withLock { $0 } == [.zero])
      }
    }
  }

  @Test("a wish that races the start is met as soon as the command runs", arguments: 0..<20)
  func raceWithStart(round: Int) async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        for _ in 0..<round { await Task.yield() }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
      }
    }
  }

  @Test("a wish that races the end says nothing, or is taken back first", arguments: 0..<20)
  func raceWithEnd(round: Int) async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .suspend)
        for _ in 0..<round { await Task.yield() }
        engine.end(id(1), Exit(code: 0))
        try await eventually("S") { server.letters(1).last == "S" }
        #expect(["CRUS", "CRZRUS"].contains(server.letters(1)))
      }
    }
  }

  @Test("what ends while it stands still runs again first, as there is no way from Z to the end")
  func endsSuspended() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        for task in 1...2 as ClosedRange<Int64> {
          server.order(task, "hold")
          server.revoke(task, .suspend)
          try await eventually("Z") { server.letters(task) == "CRZ" }
        }
        engine.end(id(1), Exit(code: 137, outOfMemory: true))
        try await eventually("F") { server.letters(1) == "CRZRVF" }
        #expect(server.last(1).reason == "out-of-memory")
      }
      engine.forgetAll()
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { _ in
        try await eventually("F") { server.letters(2) == "CRZRVF" }
        #expect(server.last(2).reason == "worker-lost")
      }
    }
  }

  @Test("a held task that is suspended waits for its slot and stands still with it")
  func held() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        server.order(2, "hold")
        try await eventually("O") { server.letters(1) == "CR" && server.letters(2) == "CO" }
        server.revoke(2, .suspend)
        engine.end(id(1), Exit(code: 0))
        try await eventually("Z") { server.letters(2) == "CORZ" }
      }
    }
  }

  @Test("after a restart what was suspended is suspended, and what stands still for no reason goes on")
  func restart() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        server.order(2, "hold")
        try await eventually("R") { server.letters(1) == "CR" && server.letters(2) == "CR" }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
      }
      // As if the agent had been killed between the engine's word and its own.
      _ = try await engine.resume(id(1))
      _ = try await engine.pause(id(2))
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { _ in
        try await eventually("as they were") { engine.isPaused(1) && !engine.isPaused(2) }
        #expect(server.letters(1) == "CRZ" && server.letters(2) == "CR")
        server.revoke(1, .resume)
        try await eventually("R") { server.letters(1) == "CRZR" }
      }
    }
  }

  @Test("real processes: suspended for longer than the limit, through a killed agent, and finished")
  func realProcesses() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let store = folder.appending("store")
      let mark = folder.appending("mark")
      let first = ProcessEngine(store: store, executable: Bench.worker)
      try await withAgent(folder, server, first) { _ in
        server.order(
          1, "until [ -e \(mark) ]; do sleep 0.05; done; echo $SCITQ_ARRAY_INDEX/$SCITQ_ARRAY_SIZE"
        ) {
          $0.spec.shell = "sh"
          $0.spec.runTimeoutMs = 3000
          $0.inArray = true
          $0.arrayIndex = 4
          $0.arraySize = 7
        }
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .suspend)
        try await eventually("Z") { server.letters(1) == "CRZ" }
        try write("", to: mark)
      }
      let until = ContinuousClock.now + .milliseconds(3200)
      try await eventually("the limit has passed") { ContinuousClock.now > until }
      server.state.withLock { $0.beats = 0 }
      let second = ProcessEngine(store: store, executable: Bench.worker)
      try await withAgent(folder, server, second) { _ in
        #expect(try await second.held() == [id(1): .paused])
        server.revoke(1, .resume)
        try await eventually("S") { server.letters(1) == "CRZRUS" }
        #expect(server.out(1) == "4/7\n")
      }
    }
  }
}
