import Foundation
import Testing

/// `kill -9`, at the worst moment, of each program in turn.
@Suite("Crashes", .serialized)
struct CrashTests {
  @Test("the server dies with 20 tasks running and 1,000 waiting, and nothing is lost or run twice")
  func server() async throws {
    try await World.server().worker(slots: 20).run { world in
      let runs = world.folder.appending(path: "runs").path
      let gate = world.folder.appending(path: "gate")
      try FileManager.default.createDirectory(atPath: runs, withIntermediateDirectories: true)
      // Each run leaves a line: a second run of a task would leave a second.
      let mark = "echo run >> '\(runs)'/$SCITQ_TASK_ID"
      let long = try await world.create(
        commands: (0..<20).map { index in
          let opens = "'\(gate.path)-\(index % 2)'"
          return "\(mark); seq 500; while [ ! -e \(opens) ]; do sleep 0.1; done; seq 501 1000"
        }, "--shell", "sh")
      try await until("20 tasks run") { try await world.counts()["R"] == 20 }
      let short = try await world.create(
        commands: Array(repeating: "\(mark); echo done", count: 1_000), "--shell", "sh")
      try #require(try await world.counts()["P"] == 1_000)

      try await world.killServer()
      // Ten of them end while there is no server to tell.
      try Data().write(to: URL(filePath: gate.path + "-0"))
      let released = zip(long, 0...).filter { $0.1 % 2 == 0 }.map(\.0)
      try await until("ten commands have ended") {
        !released.contains { world.processRuns(with: "SCITQ_TASK_ID=\($0)") }
      }
      try await world.startServer()
      try Data().write(to: URL(filePath: gate.path + "-1"))

      try await until("all have succeeded", within: .seconds(180)) {
        try await world.counts() == ["S": 1_020]
      }
      let expected = Data((1...1_000).map { "\($0)\n" }.joined().utf8)
      for id in long {
        let output = try await world.log(id)
        try #require(output.out == expected, "the log of task \(id) has \(output.out.count) bytes")
        try #require(try await world.assignment(id) == "1")
      }
      for id in [long, short].joined() {
        let lines = try String(contentsOfFile: "\(runs)/\(id)", encoding: .utf8)
        try #require(lines == "run\n", "task \(id) ran \(lines.count / 4) times")
      }
    }
  }

  @Test(
    "the agent dies while a container runs, and takes the same attempt up again", arguments: [true, false])
  func agent(inContainer: Bool) async throws {
    let plan = inContainer ? World.server().dockerWorker(slots: 2) : World.server().worker(slots: 2)
    try await plan.run { world in
      var arguments = [
        "--shell", "sh", "--command",
        "for i in $(seq 1 60); do echo line $i; sleep 0.1; done; echo end >&2; exit 7",
      ]
      if inContainer { arguments += ["--container", "alpine"] }
      let through = try await world.create(arguments)
      // This one ends while there is no agent.
      var quick = ["--shell", "sh", "--command", "echo first; sleep 2; echo last"]
      if inContainer { quick += ["--container", "alpine"] }
      let ended = try await world.create(quick)
      try await until("both print") {
        let first = try await world.log(through).text
        let second = try await world.log(ended).text
        return first.contains("line 3\n") && second.contains("first")
      }
      try #require(try await world.task(through).status == "R")
      let assignment = try await world.assignment(through)
      try await world.killWorker("worker")
      try await until("the second command has ended", within: .seconds(20)) {
        try await world.isOver(ended, inContainer: inContainer)
      }
      try await world.startWorker("worker")

      try await world.succeeded(ended)
      try #require(try await world.log(ended).text == "first\nlast")
      let after = try await world.failed(through)
      try #require(try await world.assignment(through) == assignment)
      try #require(after.exitCode == 7)
      try #require(after.reason == "exit-code")
      try #require(after.nextTaskId == nil)
      let expected = (1...60).map { "line \($0)\n" }.joined()
      try #require(String(decoding: try await world.log(through, "--stdout").out, as: UTF8.self) == expected)
      try #require(try await world.log(through, "--stderr").text == "end")
    }
  }

  @Test(
    "an agent that is gone for longer than its lease: a clone runs elsewhere, and the old attempt uploads nothing"
  )
  func lease() async throws {
    let plan = World.server().configured("workers:\n  offline_timeout: 3s\n  beat_interval: 500ms")
      .worker("one", slots: 1).worker("two", slots: 1).objectStore()
    try await plan.run { world in
      let gate = world.folder.appending(path: "gate").path
      let command = """
        echo $SCITQ_TASK_ID > $OUTPUT/who.txt
        echo $SCITQ_TASK_ID > $OUTPUT/by-$SCITQ_TASK_ID.txt
        while [ ! -e '\(gate)'-$SCITQ_TASK_ID ]; do sleep 0.1; done
        echo over
        """
      let old = try await world.create("--output", "s3://data/r/", "--shell", "sh", "--command", command)
      let first = try #require(try await world.task(old, reaches: "R").workerName)
      let other = first == "one" ? "two" : "one"
      try await world.killWorker(first)

      let lost = try await world.task(old, reaches: "F")
      try #require(lost.reason == "worker-lost")
      let clone = try #require(lost.nextTaskId)
      try #require(try await world.task(clone, reaches: "R").workerName == other)
      // The old command ends by itself, with files to upload and nobody to ask; then its agent returns.
      try Data().write(to: URL(filePath: "\(gate)-\(old)"))
      try await until("the old command has ended") { try await world.isOver(old, inContainer: false) }
      try await world.startWorker(first)
      try Data().write(to: URL(filePath: "\(gate)-\(clone)"))
      try await world.succeeded(clone)

      // The agent that returned is at work again, so it has dealt with what it held.
      let next = [
        try await world.create(
          "--shell", "sh", "--command", "while [ ! -e '\(gate)'-next ]; do sleep 0.1; done"),
        try await world.create(
          "--shell", "sh", "--command", "while [ ! -e '\(gate)'-next ]; do sleep 0.1; done"),
      ]
      var names: Set<String> = []
      for id in next { names.insert(try #require(try await world.task(id, reaches: "R").workerName)) }
      try #require(names == ["one", "two"])
      try Data().write(to: URL(filePath: "\(gate)-next"))
      for id in next { try await world.succeeded(id) }
      try #require(world.stored("r/who.txt") == "\(clone)\n")
      try #require(world.stored("r/by-\(clone).txt") == "\(clone)\n")
      try #require(world.stored("r/by-\(old).txt") == nil)
      try #require(try await world.task(old).status == "F")
    }
  }
}

extension World {
  /// How many tasks that are not hidden stand where.
  func counts() async throws -> [String: Int] {
    let output = try await sql(
      "SELECT status || ' ' || sum(count) FROM task_count WHERE hidden = 0 GROUP BY status HAVING sum(count) > 0"
    )
    return Dictionary(
      uniqueKeysWithValues: output.split(separator: "\n").map { line in
        let words = line.split(separator: " ")
        return (String(words[0]), Int(words[1]) ?? -1)
      })
  }

  /// How often a task was given to a worker.
  func assignment(_ id: Int64) async throws -> String {
    try await sql("SELECT assignment FROM task WHERE id = \(id)")
  }

  /// Whether the command of a task has ended, asked of the machine and not of scitq.
  func isOver(_ id: Int64, inContainer: Bool) async throws -> Bool {
    if inContainer {
      let file = folder.appending(path: "docker.out")
      try? FileManager.default.removeItem(at: file)
      let docker = try Program(
        "docker", try Tools.onPath("docker"),
        [
          "ps", "--no-trunc", "--filter", "label=scitq.store", "--format",
          "{{.Labels}} {{.Names}} {{.Mounts}}",
        ],
        environment: ProcessInfo.processInfo.environment, out: file, err: file)
      await docker.ended()
      // Only the long one is left.
      return try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
        .count { $0.contains(folder.path) } <= 1
    }
    return !processRuns(with: "SCITQ_TASK_ID=\(id)")
  }

  /// Whether a process of this world, a shell or what it started, has this variable.
  nonisolated func processRuns(with variable: String) -> Bool {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.filter { pid_t($0) != nil }.contains { pid in
      guard let bytes = try? Data(contentsOf: URL(filePath: "/proc/\(pid)/environ")) else { return false }
      return bytes.split(separator: 0).contains { $0 == Data(variable.utf8) }
        && bytes.range(of: Data(folder.path.utf8)) != nil
    }
  }
}
