import Foundation
import ScitqProtocol
import Subprocess
import SystemPackage
import Testing

@testable import ScitqWorker

/// Asked once: whether docker answers and has a busybox.
private let dockerIsThere: Bool = {
  let socket = ProcessInfo.processInfo.environment["DOCKER_HOST"] ?? "unix:///var/run/docker.sock"
  guard socket.hasPrefix("unix://") else { return true }
  return access(String(socket.dropFirst(7)), R_OK) == 0
}()

@Suite("Containers of docker", .enabled(if: dockerIsThere), .timeLimit(.minutes(5)))
struct DockerEngineTests {
  /// Runs the body with an engine of a store of its own, and removes what it left.
  private func withDocker(_ body: (Bench, DockerEngine) async throws -> Void) async throws {
    try #require(await DockerEngine.available("docker"))
    try await withBench { bench in
      let engine = DockerEngine(storeID: bench.storeID)
      do { try await body(bench, engine) } catch {
        for attempt in try await engine.held().keys { await engine.remove(attempt) }
        throw error
      }
      for attempt in try await engine.held().keys { await engine.remove(attempt) }
    }
  }

  private let quiet = ["--network", "none"]

  @Test("exit codes and both streams are told as they are, also bytes that are no text")
  func exits() async throws {
    try await withDocker { bench, engine in
      let zero = try await bench.run(
        bench.launch(1, #"printf 'a\377\000b\r\n\nend'; printf 'err' >&2"#, shell: "sh", options: quiet),
        on: engine)
      #expect(zero.0 == Exit(code: 0))
      #expect(zero.out == [0x61, 0xff, 0, 0x62, 0x0d, 0x0a, 0x0a] + Array("end".utf8))
      #expect(Bench.text(zero.err) == "err")
      for code in [3, 127, 126, 137] as [Int32] {
        let exit = try await bench.run(
          bench.launch(Int64(code), "sh -c 'exit \(code)'", options: quiet), on: engine
        ).0
        #expect(exit == Exit(code: code))
      }
      let missing = try await bench.run(bench.launch(10, "no-such-program", options: quiet), on: engine)
      #expect(missing.0 == Exit(code: 127))
      #expect(Bench.text(missing.err).contains("no-such-program"))
      let data = try await bench.run(bench.launch(11, "/etc/passwd", options: quiet), on: engine)
      #expect(data.0 == Exit(code: 126))
    }
  }

  @Test("out of memory is the engine's own flag, and 137 alone is not it")
  func outOfMemory() async throws {
    try await withDocker { bench, engine in
      let hungry = try bench.launch(
        1, "dd if=/dev/zero of=/dev/null bs=300M count=1", options: quiet, memory: 32 << 20)
      let exit = try await bench.run(hungry, on: engine).0
      #expect(exit.outOfMemory)
      #expect(exit.code == 137)
    }
  }

  @Test("environment, folders and words arrive, and no value is among the arguments")
  func environment() async throws {
    try await withDocker { bench, engine in
      let awkward = [
        "PLAIN": "s3cret", "LINES": "one\ntwo", "EMPTY": "", "SPACES": "  x  ", "PATH": "/bin",
        "LONG": String(repeating: "l", count: 70_000),
      ]
      let launch = try bench.launch(
        1,
        #"printf '%s|' "$PLAIN" "$LINES" "$EMPTY" "$SPACES" ${#LONG}; echo in >/input/a; echo out >/output/b; echo t >/tmp/c; echo x >/resource/d || echo x >/scripts/e || echo kept"#,
        shell: "sh", environment: awkward, options: quiet)
      let call = try ContainerCall(launch, name: "n", storeID: "s", podman: false)
      #expect(
        !call.arguments.contains { $0.contains("s3cret") || $0.contains("one\ntwo") || $0.contains("lll") })
      let told = try await bench.run(launch, on: engine)
      #expect(Bench.text(told.out) == "s3cret|one\ntwo||  x  |70000|kept\n")
      #expect(FileManager.default.fileExists(atPath: launch.folders.output.appending("b").string))
      #expect(FileManager.default.fileExists(atPath: launch.folders.temp.appending("c").string))
      let words = try await bench.run(
        bench.launch(2, #"printf '<%s>' "a b" 'c"d'"#, options: quiet), on: engine)
      #expect(Bench.text(words.out) == #"<a b><c"d>"#)
    }
  }

  @Test("a line of 50 MB without an end arrives byte for byte, and so do 200,000 lines")
  func bigOutput() async throws {
    try await withDocker { bench, engine in
      let line = try await bench.run(
        bench.launch(1, "head -c 50000000 /dev/zero | tr '\\0' 'x'", shell: "sh", options: quiet), on: engine)
      #expect(line.out.count == 50_000_000)
      #expect(line.out.allSatisfy { $0 == UInt8(ascii: "x") })
      let lines = try await bench.run(
        bench.launch(2, "seq 1 200000 >&2", shell: "sh", options: quiet), on: engine)
      #expect(lines.err == Array((1...200_000).map { "\($0)\n" }.joined().utf8))
    }
  }

  @Test("an engine object made anew finds what runs, takes up its output at an offset and its exit code")
  func resumes() async throws {
    try await withDocker { bench, first in
      let go = try bench.launch(
        1, "echo begin; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo end; exit 5", shell: "sh",
        options: quiet)
      let idle = try bench.launch(2, "true", options: quiet)
      try await first.create(go)
      try await first.create(idle)
      try await first.start(go)
      for try await _ in first.output(of: go.attempt, from: LogOffsets()) { break }

      let second = DockerEngine(storeID: bench.storeID)
      #expect(try await second.held() == [go.attempt: .running, idle.attempt: .created])
      try await second.create(go)
      try await second.start(go)
      async let exit = second.exit(of: go.attempt)
      async let rest = Bench.collect(
        second.output(of: go.attempt, from: LogOffsets(out: 3)), from: LogOffsets(out: 3))
      #expect(FileManager.default.createFile(atPath: go.folders.temp.appending("go").string, contents: nil))
      let (ended, remaining) = try await (exit, rest)
      #expect(ended == Exit(code: 5))
      #expect(Bench.text(remaining.out) == "in\nend\n")

      // Ended is ended: neither this engine nor a third starts it again.
      let third = DockerEngine(storeID: bench.storeID)
      #expect(try await third.held()[go.attempt] == .ended)
      try await third.start(go)
      #expect(try await third.exit(of: go.attempt) == Exit(code: 5))
      #expect(
        try await Bench.text(Bench.collect(third.output(of: go.attempt, from: LogOffsets())).out)
          == "begin\nend\n")
      #expect(try await DockerEngine(storeID: "another").held() == [:])
    }
  }

  @Test("a command that ignores TERM is gone after the grace; one that does not, at once")
  func kills() async throws {
    try await withDocker { bench, engine in
      let deaf = try bench.launch(
        1, "trap '' TERM; echo ready; while :; do sleep 1000; done", shell: "sh", options: quiet)
      try await engine.create(deaf)
      await engine.kill(deaf.attempt, grace: .seconds(1))
      try await engine.start(deaf)
      for try await _ in engine.output(of: deaf.attempt, from: LogOffsets()) { break }
      await engine.kill(deaf.attempt, grace: .seconds(1))
      #expect(try await engine.exit(of: deaf.attempt).code == 137)
      let polite = try bench.launch(2, "sleep 1000", options: quiet)
      try await engine.create(polite)
      try await engine.start(polite)
      let began = ContinuousClock.now
      await engine.kill(polite.attempt, grace: .seconds(10))
      #expect(ContinuousClock.now - began < .seconds(9))
      #expect(try await engine.exit(of: polite.attempt).code == 143)
      await engine.kill(AttemptID(task: 77, assignment: 1), grace: .seconds(1))
    }
  }

  @Test(
    "a container stands still, is found so by the next engine, goes on, and hears a kill while it does not")
  func pauses() async throws {
    try await withDocker { bench, first in
      let launch = try bench.launch(
        1, "echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 5", shell: "sh", options: quiet)
      try await first.create(launch)
      #expect(try await !first.pause(launch.attempt))
      try await first.start(launch)
      #expect(try await first.pause(launch.attempt))
      #expect(try await first.pause(launch.attempt))
      let second = DockerEngine(storeID: bench.storeID)
      #expect(try await second.held() == [launch.attempt: .paused])
      try await second.start(launch)
      #expect(try await second.resume(launch.attempt))
      #expect(try await second.resume(launch.attempt))
      #expect(
        FileManager.default.createFile(atPath: launch.folders.temp.appending("go").string, contents: nil))
      #expect(try await second.exit(of: launch.attempt).code == 5)
      #expect(try await !second.pause(launch.attempt))
      #expect(try await !second.resume(launch.attempt))
      #expect(try await !second.pause(AttemptID(task: 77, assignment: 1)))

      let polite = try bench.launch(
        2, "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done", shell: "sh", options: quiet)
      try await second.create(polite)
      try await second.start(polite)
      for try await _ in second.output(of: polite.attempt, from: LogOffsets()) { break }
      #expect(try await second.pause(polite.attempt))
      let began = ContinuousClock.now
      await second.kill(polite.attempt, grace: .seconds(20))
      #expect(ContinuousClock.now - began < .seconds(10))
      #expect(try await second.exit(of: polite.attempt).code == 3)

      let deaf = try bench.launch(
        3, "trap '' TERM; echo up; while :; do sleep 0.05; done", shell: "sh", options: quiet)
      try await second.create(deaf)
      try await second.start(deaf)
      for try await _ in second.output(of: deaf.attempt, from: LogOffsets()) { break }
      async let patient: Void = second.kill(deaf.attempt, grace: .seconds(60))
      #expect(try await second.pause(deaf.attempt))
      await second.kill(deaf.attempt, grace: .zero)
      await patient
      #expect(try await second.exit(of: deaf.attempt).code == 137)
    }
  }

  @Test("an image that is nowhere is a failure of the image, with the engine's own sentence")
  func noImage() async throws {
    try await withDocker { bench, engine in
      let launch = try bench.launch(1, "true", image: "127.0.0.1:1/no/such:image")
      await withTaskGroup(of: ExecutionFailure?.self) { group in
        for _ in 0..<3 {
          group.addTask {
            do throws(ExecutionFailure) { try await engine.prepare(launch) } catch { return error }
            return nil
          }
        }
        for await failure in group {
          #expect(failure?.reason == .image)
          #expect(failure?.message.contains("127.0.0.1:1/no/such:image") == true)
        }
      }
      let wrong = try bench.launch(2, "true", options: ["--no-such-option"])
      let failure = await #expect(throws: ExecutionFailure.self) { try await engine.create(wrong) }
      #expect(failure?.reason == .engine)
      #expect(failure?.message.contains("no-such-option") == true)
    }
  }

  @Test("short containers side by side each keep their last byte")
  func many() async throws {
    try await withDocker { bench, engine in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 1...12 as ClosedRange<Int64> {
          group.addTask {
            let result = try await bench.run(
              bench.launch(
                task, "seq 1 \(task * 100); printf last; exit \(task)", shell: "sh",
                options: ["--network", "none"]), on: engine)
            #expect(result.0 == Exit(code: Int32(task)))
            #expect(Bench.text(result.out) == (1...(task * 100)).map { "\($0)\n" }.joined() + "last")
          }
        }
        try await group.waitForAll()
      }
    }
  }

  @Test("the program's own last words are told from a container's")
  func ownWords() {
    #expect(LogReading.ownWords(in: Array("a line\nunexpected EOF\n".utf8)) == 7)
    #expect(LogReading.ownWords(in: Array("an ordinary line\n".utf8)) == nil)
    let early = Array("unexpected EOF\n".utf8) + [UInt8](repeating: 0x61, count: 2000)
    #expect(LogReading.ownWords(in: early) == nil)
  }
}
