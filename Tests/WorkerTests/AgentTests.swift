import Logging
import ScitqProtocol
import SwiftProtobuf
import Synchronization
import SystemPackage
import Testing
import Transfer

@testable import ScitqWorker

@Suite(.timeLimit(.minutes(2))) struct AgentTests {
  @Test("a silent command passes through C R U S and leaves nothing behind")
  func silent() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { world in
        server.order(1, "true")
        try await eventually("S") { server.letters(1) == "CRUS" }
        try await eventually("clean") { engine.count == 0 && world.journal.state.held.isEmpty }
        #expect(Files.names(in: folder.appending("store").appending("tasks")).isEmpty)
        #expect(server.last(1).hasExitCode_p)
      }
    }
  }

  @Test("a thousand commands over two slots all end, never more than two at once")
  func many() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2, prefetch: 8)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        for task in 1...1000 as ClosedRange<Int64> { server.order(task, "true") }
        try await eventually("all S", within: .seconds(60)) {
          (1...1000 as ClosedRange<Int64>).allSatisfy { server.letters($0).hasSuffix("US") }
        }
        #expect(engine.mostAtOnce.withLock { $0 } <= 2)
        try await eventually("clean") { engine.count == 0 }
      }
    }
  }

  @Test("the log is complete before the end is told")
  func logs() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "print 20000")
        try await eventually("S") { server.letters(1) == "CRUS" }
        #expect(server.out(1) == (1...20000).map { "line \($0)\n" }.joined())
        #expect(server.last(1).outBytes == Int64(server.out(1).utf8.count))
      }
    }
  }

  @Test("of a log that is too long the middle is left out")
  func longLog() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      server.state.withLock { $0.settings.maxLogBytes = 10_000 }
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "print 20000")
        try await eventually("S") { server.letters(1) == "CRUS" }
        let all = Array((1...20000).map { "line \($0)\n" }.joined().utf8)
        let got = Array(server.out(1).utf8)
        #expect(got.starts(with: all[..<5000]))
        #expect(got.suffix(5000) == all.suffix(5000))
        #expect(server.out(1).contains("\(all.count - 10_000) bytes are left out"))
      }
    }
  }

  @Test("a command that fails ends in V and F with its exit code")
  func fails() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "exit 7")
        try await eventually("F") { server.letters(1) == "CRVF" }
        #expect(server.last(1).exitCode == 7)
        #expect(server.last(1).reason == "exit-code")
      }
    }
  }

  @Test("what no slot is free for is made ready and held; it runs when one is")
  func hold() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 1, prefetch: 2)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.order(2, "true")
        server.order(3, "true") { $0.priority = 1 }
        try await eventually("O") { server.letters(2) == "CO" && server.letters(3) == "CO" }
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
        try await eventually("all") {
          (1...3 as ClosedRange<Int64>).allSatisfy { server.letters($0).hasSuffix("US") }
        }
        #expect(server.last(3).at <= server.last(2).at)
      }
    }
  }

  @Test("a canceled task is killed and becomes X, held or running")
  func cancel() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.order(2, "hold")
        try await eventually("O") { server.letters(2) == "CO" }
        server.revoke(2, .cancel)
        try await eventually("X") { server.letters(2) == "COX" }
        engine.say(AttemptID(task: 1, assignment: 1), "last words")
        server.revoke(1, .cancel)
        try await eventually("X") { server.letters(1) == "CRX" }
        #expect(server.out(1) == "last words")
        try await eventually("clean") { engine.count == 0 }
      }
    }
  }

  @Test("a cancel that races the start always wins", arguments: 0..<30)
  func cancelRace(round: Int) async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        for _ in 0..<round { await Task.yield() }
        server.revoke(1, .cancel)
        try await eventually("X") { server.letters(1).last == "X" }
        #expect(!engine.isRunning(1))
      }
    }
  }

  @Test("an attempt that was superseded is killed and forgotten without a word")
  func superseded() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { world in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.revoke(1, .kill)
        try await eventually("gone") { engine.count == 0 && world.journal.state.held.isEmpty }
        #expect(server.letters(1) == "CR")
      }
    }
  }

  @Test("outputs go up after the server has accepted the end of the command, and not when it is superseded")
  func uploadGrant() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let target = folder.appending("results")
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "write hello") { $0.spec.output = target.appending("one").string + "/" }
        try await eventually("S") { server.letters(1) == "CRUS" }
        #expect(Files.text(target.appending("one").appending("file")) == "hello")
        #expect(server.last(1).outputs.map(\.bytes) == [5])
        server.order(2, "hold") { $0.spec.output = target.appending("two").string + "/" }
        try await eventually("R") { server.letters(2) == "CR" }
        server.state.withLock { _ = $0.superseded.insert(2) }
        try write("zombie", to: folder.appending("store/tasks/2.1/output/file"))
        engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 0))
        try await eventually("gone") { engine.count == 0 }
        #expect(!Files.exists(target.appending("two")))
      }
    }
  }

  @Test("inputs and resources are staged; a missing one fails the task before it runs")
  func staging() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let source = folder.appending("source")
      try write("data", to: source)
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold") {
          $0.spec.inputs = [source.string]
          $0.spec.resources = [source.string]
        }
        try await eventually("R") { server.letters(1) == "CDR" }
        #expect(Files.text(folder.appending("store/tasks/1.1/input/source")) == "data")
        #expect(Files.text(folder.appending("store/tasks/1.1/resource/source")) == "data")
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
        server.order(2, "true") { $0.spec.inputs = [folder.appending("nothing").string] }
        try await eventually("F") { server.letters(2) == "CDF" }
        #expect(server.last(2).reason == "input-missing")
      }
    }
  }

  @Test("a command that takes too long is killed, and the limit is named")
  func runTimeout() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "hold") { $0.spec.runTimeoutMs = 50 }
        try await eventually("F") { server.letters(1) == "CRVF" }
        #expect(server.last(1).reason == "timeout")
        #expect(server.last(1).message.contains("run") && server.last(1).message.contains("50 ms"))
      }
    }
  }

  @Test("a server that is away for a while misses nothing, and hears nothing twice")
  func cutCable() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2, prefetch: 4)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { world in
        server.order(1, "hold")
        server.order(2, "hold")
        try await eventually("R") { server.letters(1) == "CR" && server.letters(2) == "CR" }
        server.order(3, "print 100")
        try await eventually("O") { server.letters(3) == "CO" }
        server.cut(stayAway: true)
        engine.say(AttemptID(task: 1, assignment: 1), "while away")
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 3))
        // Its slot is free whether the server knows or not.
        try await eventually("3 has run") {
          let held = world.journal.state.held[AttemptID(task: 3, assignment: 1)]
          return try held?.lastReport.map { try WireReport(serializedBytes: $0.bytes).status } == "U"
        }
        server.state.withLock { $0.dropsAnswers = 1 }
        server.comeBack()
        try await eventually("told") { server.letters(1) == "CRVF" && server.letters(3) == "CORUS" }
        #expect(server.out(1) == "while away")
        engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 0))
        try await eventually("clean") { server.letters(2) == "CRUS" && engine.count == 0 }
      }
    }
  }

  @Test("an agent that starts again takes its commands up, with logs whole and exit codes right")
  func restart() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2, prefetch: 2)
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        server.order(2, "hold")
        server.order(3, "true")
        try await eventually("R") {
          server.letters(1) == "CR" && server.letters(2) == "CR" && server.letters(3) == "CO"
        }
      }
      engine.say(AttemptID(task: 1, assignment: 1), "between agents")
      engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 4))
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { world in
        try await eventually("F") { server.letters(1) == "CRVF" }
        #expect(server.last(1).exitCode == 4)
        #expect(server.out(1) == "between agents")
        engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 0))
        try await eventually("S") { server.letters(2) == "CRUS" && server.letters(3) == "CORUS" }
        try await eventually("clean") { engine.count == 0 && world.journal.state.held.isEmpty }
      }
    }
  }

  @Test("a command of which there is no trace after a restart is lost, and said so")
  func gone() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
      }
      engine.forgetAll()
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { _ in
        try await eventually("F") { server.letters(1) == "CRVF" }
        #expect(server.last(1).reason == "worker-lost")
      }
    }
  }

  @Test("draining finishes what runs, gives back what does not, and says goodbye")
  func drain() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let world = try World(folder, server, engine)
      let running = Task { await world.agent.run() }
      try await eventually("connected") { server.isConnected && server.state.withLock { $0.beats > 0 } }
      server.order(1, "hold")
      server.order(2, "true")
      try await eventually("O") { server.letters(1) == "CR" && server.letters(2) == "CO" }
      await world.agent.drain()
      try await eventually("given back") { server.state.withLock { $0.leaves } == 1 && engine.count == 1 }
      server.order(3, "true")
      engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
      #expect(await world.agent.waitForEnding() == .left)
      #expect(await running.value == .left)
      #expect(server.letters(1) == "CRUS")
      #expect(server.letters(2) == "CO")
      #expect(server.letters(3) == "")
      #expect(server.state.withLock { $0.leaves } == 2)
      #expect(server.state.withLock { $0.trouble } == [])
      await world.journal.close()
    }
  }

  @Test("a worker that was deleted ends what it did and stops with a sentence")
  func deleted() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let world = try World(folder, server, engine, token: nil)
      let running = Task { await world.agent.run() }
      try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
      server.order(1, "hold")
      try await eventually("R") { server.letters(1) == "CR" }
      server.state.withLock { $0.isDeleted = true }
      server.cut()
      let ending = await world.agent.waitForEnding()
      guard case .refused(let why) = ending else {
        Issue.record("ended with \(ending)")
        return
      }
      #expect(why.contains("no longer knows"))
      #expect(engine.count == 0)
      _ = await running.value
      await world.journal.close()
    }
  }

  @Test("a worker whose host was returned ends well: its ticket is no way back")
  func returned() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let world = try World(folder, server, ScriptedEngine(), token: "ticket")
      let running = Task { await world.agent.run() }
      try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
      server.state.withLock { $0.isDeleted = true }
      server.cut()
      #expect(await world.agent.waitForEnding() == .left)
      _ = await running.value
      await world.journal.close()
    }
  }

  @Test(
    "a command that ends by SIGTERM with its batch job is lost, and one that ends so by itself has failed")
  func batchJob() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2)
      let engine = ProcessEngine(store: folder.appending("store"), executable: Bench.worker)
      let world = try World(folder, server, engine, isBatchJob: true)
      let running = Task { await world.agent.run() }
      try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
      server.order(1, "sh -c 'kill -TERM $$'")
      try await eventually("F") { server.letters(1).hasSuffix("F") }
      #expect(server.last(1).reason == "signal")
      let gate = folder.appending("gate")
      for (task, end) in [(2, "kill -TERM $$"), (3, "exit 3")] as [(Int64, String)] {
        server.order(task, "sh -c 'until [ -e \(gate) ]; do sleep 0.05; done; \(end)'")
      }
      try await eventually("R") { server.letters(2) == "CR" && server.letters(3) == "CR" }
      await world.agent.drain()
      try FileDescriptor.open(gate, .writeOnly, options: .create, permissions: .ownerReadWrite).close()
      try await eventually("F") { server.letters(2).hasSuffix("F") && server.letters(3).hasSuffix("F") }
      #expect(server.last(2).reason == "worker-lost" && server.last(2).exitCode == 143)
      #expect(server.last(3).reason == "exit-code")
      #expect(await world.agent.waitForEnding() == .left)
      _ = await running.value
      await world.journal.close()
    }
  }

  @Test("an option that the server does not allow is refused, and a container without an engine")
  func refused() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "true") { $0.spec.containerOptions = ["--privileged"] }
        server.order(2, "true") { $0.spec.container = "alpine" }
        try await eventually("F") { server.letters(1) == "CF" && server.letters(2) == "CF" }
        #expect(server.last(1).reason == "refused" && server.last(1).message.contains("--privileged"))
        #expect(server.last(2).reason == "refused" && server.last(2).message.contains("alpine"))
      }
    }
  }

  @Test("real processes: every one ends once, with its words and its code")
  func realProcesses() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 4, prefetch: 8)
      let engine = ProcessEngine(store: folder.appending("store"), executable: Bench.worker)
      try await withAgent(folder, server, engine) { world in
        for task in 1...200 as ClosedRange<Int64> {
          server.order(task, task % 10 == 0 ? "sh -c 'echo \(task); exit 3'" : "true")
        }
        try await eventually("all ended", within: .seconds(60)) {
          (1...200 as ClosedRange<Int64>).allSatisfy {
            server.letters($0).hasSuffix($0 % 10 == 0 ? "VF" : "US")
          }
        }
        #expect(server.out(50) == "50\n")
        #expect(server.last(50).exitCode == 3)
        server.order(500, "sleep 600")
        try await eventually("R") { server.letters(500) == "CR" }
        server.revoke(500, .cancel)
        try await eventually("X") { server.letters(500) == "CRX" }
        try await eventually("clean") { world.journal.state.held.isEmpty }
        #expect(try await engine.held().isEmpty)
      }
    }
  }
}
