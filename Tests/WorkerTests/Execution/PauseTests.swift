import Foundation
import Glibc
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

/// The letter that the kernel gives a process: R S T …
private func state(of pid: pid_t) -> Character {
  let stat = Supervisor.contents(of: "/proc/\(pid)/stat")
  guard let end = stat.lastIndex(of: UInt8(ascii: ")")), end + 2 < stat.endIndex else { return "?" }
  return Character(UnicodeScalar(stat[end + 2]))
}

@Suite("Pausing", .timeLimit(.minutes(3))) struct PauseTests {
  private func engine(_ bench: Bench) -> ProcessEngine {
    ProcessEngine(store: bench.store, executable: Bench.worker)
  }

  /// In its group, out of its group, and out of its ancestry.
  private static let sprawl = """
    setsid sh -c 'sleep 2001 & (setsid sleep 2002 & ) ; touch $TEMP/up; sleep 2003' &
    until [ -e $TEMP/up ]; do sleep 0.01; done
    sleep 2004 &
    touch $TEMP/all
    until [ -e $TEMP/go ]; do sleep 0.01; done
    echo gone on
    """

  private func sprawling(_ task: Int64, _ bench: Bench, _ engine: ProcessEngine) async throws -> Launch {
    let launch = try bench.launch(
      task, Self.sprawl, shell: "sh", environment: ["SCITQ_TASK_ID": String(task)])
    try await engine.create(launch)
    try await engine.start(launch)
    let all = launch.folders.temp.appending("all").string
    #expect(await Bench.eventually { FileManager.default.fileExists(atPath: all) })
    return launch
  }

  @Test("all that a process has started stands still, wherever it has slipped to, and goes on")
  func everything() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let launch = try await sprawling(1, bench, engine)
      let other = try await sprawling(2, bench, engine)
      #expect(try await engine.pause(launch.attempt))
      #expect(try await engine.pause(launch.attempt))
      let own = bench.processes().filter {
        Supervisor.environment(of: $0).contains("SCITQ_TASK_ID=1")
      }
      #expect(own.count >= 6)
      // A process stands still once it is its turn to see the signal.
      #expect(await Bench.eventually { own.allSatisfy { state(of: $0) == "T" } })
      let others = bench.processes().filter { !own.contains($0) }
      #expect(others.allSatisfy { state(of: $0) != "T" })
      #expect(try await engine.held() == [launch.attempt: .paused, other.attempt: .running])

      // The engine is gone as if the agent had been killed.
      let second = self.engine(bench)
      #expect(try await second.held()[launch.attempt] == .paused)
      #expect(try await second.resume(launch.attempt))
      #expect(try await second.resume(launch.attempt))
      #expect(
        FileManager.default.createFile(atPath: launch.folders.temp.appending("go").string, contents: nil))
      #expect(try await second.exit(of: launch.attempt).code == 0)
      let out = try await Bench.collect(second.output(of: launch.attempt, from: LogOffsets())).out
      #expect(Bench.text(out) == "gone on\n")
      #expect(try await !second.pause(launch.attempt))
      #expect(try await !second.resume(launch.attempt))
      #expect(try await !second.pause(AttemptID(task: 99, assignment: 1)))
      await engine.kill(other.attempt, grace: .zero)
    }
  }

  @Test("what stands still hears a kill, with grace and without")
  func kills() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let polite = try bench.launch(
        1, "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done", shell: "sh")
      try await engine.create(polite)
      try await engine.start(polite)
      for try await _ in engine.output(of: polite.attempt, from: LogOffsets()) { break }
      #expect(try await engine.pause(polite.attempt))
      let began = ContinuousClock.now
      await engine.kill(polite.attempt, grace: .seconds(20))
      #expect(ContinuousClock.now - began < .seconds(10))
      #expect(try await engine.exit(of: polite.attempt).code == 3)

      // One who thought again need not wait for the grace that is running.
      let slow = try bench.launch(3, "trap '' TERM; echo up; while :; do sleep 0.05; done", shell: "sh")
      try await engine.create(slow)
      try await engine.start(slow)
      for try await _ in engine.output(of: slow.attempt, from: LogOffsets()) { break }
      async let patient: Void = engine.kill(slow.attempt, grace: .seconds(60))
      await engine.kill(slow.attempt, grace: .zero)
      await patient
      #expect(try await engine.exit(of: slow.attempt).signal == 9)

      let deaf = try bench.launch(2, "trap '' TERM; echo up; while :; do sleep 0.05; done", shell: "sh")
      try await engine.create(deaf)
      try await engine.start(deaf)
      for try await _ in engine.output(of: deaf.attempt, from: LogOffsets()) { break }
      #expect(try await engine.pause(deaf.attempt))
      await engine.kill(deaf.attempt, grace: .zero)
      #expect(try await engine.exit(of: deaf.attempt).signal == 9)
      #expect(await Bench.eventually { bench.processes().isEmpty })
    }
  }
}
