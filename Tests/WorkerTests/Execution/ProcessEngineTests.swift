import Foundation
import Glibc
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

@Suite("Processes under the supervisor", .timeLimit(.minutes(3)))
struct ProcessEngineTests {
  private func engine(_ bench: Bench) -> ProcessEngine {
    ProcessEngine(store: bench.store, executable: Bench.worker)
  }

  @Test("exit codes, signals and both streams are told as they are")
  func exits() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let (zero, out, err) = try await bench.run(
        bench.launch(1, "echo out; echo err >&2", shell: "sh"), on: engine)
      #expect(zero == Exit(code: 0))
      #expect(Bench.text(out) == "out\n")
      #expect(Bench.text(err) == "err\n")
      #expect(try await bench.run(bench.launch(2, "exit 3", shell: "bash"), on: engine).0 == Exit(code: 3))
      let killed = try await bench.run(bench.launch(3, "kill -9 $$", shell: "/bin/sh"), on: engine)
      #expect(killed.0 == Exit(code: 137, signal: 9))
      #expect(try await bench.run(bench.launch(4, "exit 137", shell: "sh"), on: engine).0 == Exit(code: 137))
    }
  }

  @Test("a command that is not there ends with 127, one that cannot be executed with 126, and says why")
  func notExecutable() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let missing = try await bench.run(bench.launch(1, "no-such-program-anywhere"), on: engine)
      #expect(missing.0 == Exit(code: 127))
      #expect(Bench.text(missing.err).contains("no-such-program-anywhere"))
      let absent = try await bench.run(bench.launch(2, "/no/such/file"), on: engine)
      #expect(absent.0 == Exit(code: 127))
      let data = try await bench.run(bench.launch(3, "/etc/passwd"), on: engine)
      #expect(data.0 == Exit(code: 126))
      #expect(!data.err.isEmpty)
    }
  }

  @Test("words, environment and folders arrive; the agent's own variables do not")
  func environment() async throws {
    setenv("SCITQ_TEST_SECRET", "agent's own", 1)
    try await withBench { bench in
      let engine = engine(bench)
      let words = try await bench.run(
        bench.launch(1, #"printf '<%s>' "a b" 'c"d' e\ f"#, environment: ["X": "1"]), on: engine)
      #expect(Bench.text(words.out) == #"<a b><c"d><e f>"#)
      let launch = try bench.launch(
        2,
        "pwd; echo $INPUT; echo $OUTPUT; echo $TEMP; echo $RESOURCE; echo $SCRIPTS; echo \"$X\"; env | grep -c SECRET; cat",
        shell: "sh", environment: ["X": "two\nlines = é"])
      let told = try await bench.run(launch, on: engine)
      let folders = launch.folders
      #expect(
        Bench.text(told.out)
          == ([
            folders.temp.removingLastComponent(), folders.input, folders.output, folders.temp,
            folders.resource,
            folders.scripts,
          ].map(\.string) + ["two", "lines = é", "0", ""]).joined(separator: "\n"))
      #expect(told.0 == Exit(code: 0))
    }
  }

  @Test("a script of any length is run, an unbalanced command is refused")
  func scripts() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let long = "# " + String(repeating: "x", count: 3 << 20) + "\necho done\n"
      #expect(try await Bench.text(bench.run(bench.launch(1, long, shell: "sh"), on: engine).out) == "done\n")
      let open = try bench.launch(2, "echo 'a")
      let failure = await #expect(throws: ExecutionFailure.self) { try await engine.create(open) }
      #expect(failure?.reason == .refused)
      #expect(failure?.message.contains("single quote") == true)
    }
  }

  @Test("a line of 50 MB without an end arrives byte for byte, and so do 200,000 lines")
  func bigOutput() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let line = try await bench.run(
        bench.launch(1, "head -c 50000000 /dev/zero | tr '\\0' 'x'", shell: "sh"), on: engine)
      #expect(line.out.count == 50_000_000)
      #expect(line.out.allSatisfy { $0 == UInt8(ascii: "x") })
      let lines = try await bench.run(bench.launch(2, "seq 1 200000 >&2", shell: "sh"), on: engine)
      #expect(Bench.text(lines.err) == (1...200_000).map { "\($0)\n" }.joined())
    }
  }

  @Test("an engine that is away blocks nobody and loses nothing; output resumes at an offset")
  func resumes() async throws {
    try await withBench { bench in
      let launch = try bench.launch(1, "seq 1 300000; echo over >&2; exit 7", shell: "sh")
      let whole = (1...300_000).map { "\($0)\n" }.joined()
      do {
        let first = engine(bench)
        try await first.create(launch)
        try await first.start(launch)
        var seen = 0
        for try await chunk in first.output(of: launch.attempt, from: LogOffsets()) {
          seen += chunk.bytes.count
          if seen > 10_000 { break }
        }
      }
      // The engine is gone as if the agent had been killed; the command ends all the same.
      let second = engine(bench)
      #expect(try await Bench.eventually { try await second.held() == [launch.attempt: .ended] })
      #expect(try await second.exit(of: launch.attempt) == Exit(code: 7))
      let from = LogOffsets(out: 123_456, err: 2)
      let rest = try await Bench.collect(second.output(of: launch.attempt, from: from), from: from)
      #expect(Bench.text(rest.out) == String(whole.dropFirst(123_456)))
      #expect(Bench.text(rest.err) == "er\n")
      let all = try await Bench.collect(second.output(of: launch.attempt, from: LogOffsets()))
      #expect(Bench.text(all.out) == whole)
      // What was delivered need not be kept; what was not is.
      await second.delivered(launch.attempt, upTo: LogOffsets(out: 1_000_000))
      let kept = LogOffsets(out: 1_000_000)
      let tail = try await Bench.collect(second.output(of: launch.attempt, from: kept), from: kept)
      #expect(Bench.text(tail.out) == String(whole.dropFirst(1_000_000)))
      await second.remove(launch.attempt)
      #expect(try await second.held() == [:])
    }
  }

  @Test("a start that is repeated, by the same engine or the next, starts nothing twice")
  func startsOnce() async throws {
    try await withBench { bench in
      let launch = try bench.launch(1, "echo x >>$OUTPUT/ran", shell: "sh")
      let first = engine(bench)
      try await first.create(launch)
      try await first.start(launch)
      try await first.start(launch)
      #expect(try await first.exit(of: launch.attempt) == Exit(code: 0))
      let second = engine(bench)
      try await second.create(launch)
      try await second.start(launch)
      #expect(try await second.exit(of: launch.attempt) == Exit(code: 0))
      #expect(
        try String(contentsOfFile: launch.folders.output.appending("ran").string, encoding: .utf8) == "x\n")
    }
  }

  @Test("a kill reaches the whole group, and one that ignores TERM is gone after the grace")
  func kills() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let polite = try bench.launch(1, "sleep 1000 & sleep 1000; wait", shell: "sh")
      try await engine.create(polite)
      try await engine.start(polite)
      #expect(await Bench.eventually { bench.processes().count >= 3 })
      await engine.kill(polite.attempt, grace: .seconds(10))
      let politeEnd = try await engine.exit(of: polite.attempt)
      #expect(politeEnd.code == 143 && politeEnd.signal == 15)
      #expect(await Bench.eventually { bench.processes().isEmpty })

      let deaf = try bench.launch(2, "trap '' TERM; echo ready; while :; do sleep 1000; done", shell: "sh")
      try await engine.create(deaf)
      try await engine.start(deaf)
      for try await _ in engine.output(of: deaf.attempt, from: LogOffsets()) { break }
      let began = ContinuousClock.now
      await engine.kill(deaf.attempt, grace: .milliseconds(300))
      #expect(ContinuousClock.now - began >= .milliseconds(290))
      let deafEnd = try await engine.exit(of: deaf.attempt)
      #expect(deafEnd.code == 137 && deafEnd.signal == 9)
      #expect(await Bench.eventually { bench.processes().isEmpty })
      // What is over, or was never there, is killed already.
      await engine.kill(deaf.attempt, grace: .seconds(10))
      await engine.kill(AttemptID(task: 99, assignment: 1), grace: .seconds(10))
    }
  }

  @Test("what a command leaves behind ends with it and does not hold its output open")
  func leftovers() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let result = try await bench.run(bench.launch(1, "sleep 1000 & echo gone", shell: "sh"), on: engine)
      #expect(Bench.text(result.out) == "gone\n")
      #expect(await Bench.eventually { bench.processes().isEmpty })
    }
  }

  @Test("attempts of a supervisor that was killed are lost and do not run on")
  func supervisorKilled() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let launch = try bench.launch(1, "echo begun; sleep 1000", shell: "sh")
      try await engine.create(launch)
      try await engine.start(launch)
      for try await _ in engine.output(of: launch.attempt, from: LogOffsets()) { break }
      let pid = try #require(bench.supervisor())
      kill(pid, SIGKILL)
      let failure = await #expect(throws: ExecutionFailure.self) { try await engine.exit(of: launch.attempt) }
      #expect(failure?.reason == .workerLost)
      #expect(try await engine.held() == [:])
      #expect(await Bench.eventually { bench.processes().isEmpty })
      #expect(try await bench.run(bench.launch(2, "true"), on: engine).0 == Exit(code: 0))
    }
  }

  @Test("a task that needs no folder runs without one, in a store however deep")
  func bare() async throws {
    try await withBench(depth: 6) { bench in
      let result = try await bench.run(bench.launch(1, "echo fine", folders: false), on: engine(bench))
      #expect(Bench.text(result.out) == "fine\n")
    }
  }

  @Test("what slips out of its group ends with the command too, and other commands go on")
  func strays() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let other = try bench.launch(1, "setsid sleep 1001 & sleep 1002", shell: "sh")
      let one = try bench.launch(
        2,
        """
        setsid sh -c 'sleep 1003 & touch $TEMP/up; sleep 1004' &
        until [ -e $TEMP/up ]; do sleep 0.01; done
        """, shell: "sh")
      for launch in [other, one] {
        try await engine.create(launch)
        try await engine.start(launch)
      }
      #expect(try await engine.exit(of: one.attempt) == Exit(code: 0, leftProcesses: true))
      #expect(await Bench.eventually { bench.processes().count == 3 })
      await engine.kill(other.attempt, grace: .zero)
      #expect(await Bench.eventually { bench.processes().isEmpty })
    }
  }

  @Test("a thousand commands, sixteen at a time, all end with 0")
  func thousand() async throws {
    try await withBench { bench in
      let engine = engine(bench)
      let launches = try (1...1000).map { try bench.launch(Int64($0), "true", folders: false) }
      let good = try await withThrowingTaskGroup(of: Bool.self) { group in
        var next = 0
        var good = 0
        while next < 16 {
          let launch = launches[next]
          group.addTask { try await bench.run(launch, on: engine).0 == Exit(code: 0) }
          next += 1
        }
        while let one = try await group.next() {
          good += one ? 1 : 0
          guard next < launches.count else { continue }
          let launch = launches[next]
          group.addTask { try await bench.run(launch, on: engine).0 == Exit(code: 0) }
          next += 1
        }
        return good
      }
      #expect(good == 1000)
      #expect(try await engine.held() == [:])
      let status = try String(contentsOfFile: "/proc/\(#require(bench.supervisor()))/status", encoding: .utf8)
      #expect(status.contains("Threads:\t1\n"))
      let open = try FileManager.default.contentsOfDirectory(
        atPath: "/proc/\(#require(bench.supervisor()))/fd")
      #expect(open.count < 20)
    }
  }
}
