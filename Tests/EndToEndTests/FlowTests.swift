import Foundation
import Testing

/// Workflows, arrays, suspension and cancellation by the command line, on real workers.
@Suite("Workflows", .serialized)
struct FlowTests {
  struct Flow: Decodable {
    var id: Int64
    var name: String
    var status: String
    var runStrategy: String
    var maximumWorkers: Int?
    var blockedBy: String?
  }

  struct Named: Decodable {
    var id: Int64
    var name: String
  }

  // MARK: The contract

  @Test("workflows and steps are made, listed, counted and deleted as the contract says")
  func contract() async throws {
    try await World.server().worker("w").run { world in
      #expect(
        try await world.scitq(
          "workflow", "create", "--name", "myworkflow", "--run-strategy", "B", "--maximum-workers", "50"
        ).text == "workflow 1 created")
      let flows = try await world.rows([Flow].self, "workflow", "list", "--json")
      #expect(flows.count == 1 && flows[0].runStrategy == "B" && flows[0].maximumWorkers == 50)
      #expect(
        try await world.scitq("step", "create", "--workflow-name", "myworkflow", "--name", "quality_control")
          .text
          == "step 1 created")
      _ = try await world.scitq("step", "create", "--workflow-id", "1", "--name", "alignment")
      let steps = try await world.rows([Named].self, "step", "list", "--workflow-id", "1", "--json")
      #expect(steps.map(\.name) == ["quality_control", "alignment"])

      // Only workers of the step take its tasks.
      let id = try await world.create(
        "--workflow-name", "myworkflow", "--step-name", "quality_control", "--command", "sleep 0.2", "--name",
        "s1")
      let loose = try await world.create("--command", "true")
      try await world.succeeded(loose)
      #expect(try await world.task(id).status == "P")
      #expect(
        try await world.scitq("task", "explain", "--id", "\(id)").text
          == "no worker serves step 1; the one that is connected serves another step")
      try await world.scitq("worker", "update", "--worker-id", "1", "--step-id", "1")
      try await world.succeeded(id)
      for arguments in [
        ["--workflow-id", "1"], ["--workflow-name", "myworkflow"], ["--step-id", "1,2"],
        ["--step-id", "1", "--step-id", "2"], ["--task-name", "s1"],
      ] {
        let stats = try await world.scitq(["step", "stats", "--totals"] + arguments).text
        #expect(stats.contains("quality_control\t1 succeeded"), "\(stats)")
        #expect(stats.contains("TOTAL") && stats.contains("cumulated"), "\(stats)")
        #expect(stats.contains("alignment") != arguments.contains("s1"), "\(stats)")
      }
      #expect(try await world.scitq("workflow", "wait", "--id", "1").status == 0)
      let busy = try await world.create("--step-id", "1", "--command", "sleep 300")
      try await world.task(busy, reaches: "R")
      #expect(try await world.scitq("step", "delete", "--id", "2").text == "step 2 deleted")
      #expect(try await world.scitq("workflow", "delete", "--id", "1").text == "workflow 1 deleted")
      try await until("what ran is ended") { !world.processRuns(with: "SCITQ_TASK_ID=\(busy)") }
      #expect(try await world.rows([Flow].self, "workflow", "list", "--json").isEmpty)
      #expect(try await world.call(["step", "delete", "--id", "1"]).status == 1)
      #expect(try await world.call(["workflow", "create", "--name", "x", "--run-strategy", "Q"]).status == 2)
      #expect(try await world.call(["workflow", "create"]).status == 2)
      // The worker is free for other work.
      try await world.succeeded(try await world.create("--command", "true"))
    }
  }

  @Test("users have roles: a reader looks, a user changes what is theirs, a token dies when it is told to")
  func roles() async throws {
    try await World.server().run { world in
      for (name, role) in [("ann", "user"), ("bob", "read-only")] {
        try await world.scitq(
          "user", "create", "--username", name, "--email", "\(name)@x", "--password", "correct horse",
          "--role", role)
      }
      func token(_ name: String, _ more: String...) async throws -> String {
        let output = try await world.call(
          ["login", "--user", name, "--password-stdin"] + more, input: Data("correct horse\n".utf8))
        try #require(output.status == 0, "\(output)")
        return output.text
      }
      let (ann, bob) = (try await token("ann"), try await token("bob", "--expires", "1h"))
      let mine = try await world.create("--command", "true")
      for (who, arguments, status) in [
        (ann, ["task", "create", "--command", "true"], Int32(0)),
        (bob, ["task", "create", "--command", "true"], 1),
        (bob, ["task", "list"], 0), (ann, ["task", "cancel", "--id", "\(mine)"], 1),
        (bob, ["task", "cancel", "--id", "\(mine)"], 1), (ann, ["worker", "list"], 0),
        (ann, ["user", "delete", "--id", "3"], 1), (ann, ["workflow", "create", "--name", "hers"], 0),
        (bob, ["workflow", "delete", "--name", "hers"], 1),
        (ann, ["workflow", "update", "--id", "1", "--weight", "5"], 1),
        (ann, ["workflow", "update", "--id", "1", "--weight", "0.5"], 0),
      ] as [(String, [String], Int32)] {
        let output = try await world.call(arguments + ["--token", who])
        #expect(output.status == status, "\(arguments): \(output)")
      }
      try await world.scitq("user", "revoke-tokens", "--id", "2")
      #expect(try await world.call(["task", "list", "--token", ann]).status == 1)
      #expect(try await world.call(["logout", "--token", bob]).status == 0)
      #expect(try await world.call(["task", "list", "--token", bob]).status == 1)
      let trail = try await world.scitq("events", "--object", "user").text
      for what in ["created", "login", "tokens-revoked", "logout"] {
        #expect(trail.contains(what), "\(trail)")
      }
    }
  }

  // MARK: Suspension

  @Test("a container that stands still for longer than its run limit finishes: the pause is not counted")
  func pausedContainer() async throws {
    try await World.server().dockerWorker(slots: 1).run { world in
      let id = try await world.create(
        "--container", "alpine", "--shell", "sh", "--run-timeout", "6", "--command",
        "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.3; done")
      try await until("it has begun") { try await world.log(id).text.contains("3") }
      try await world.scitq("task", "suspend", "--id", "\(id)")
      try await world.task(id, reaches: "Z")
      let printed = try await world.log(id).text
      // Longer than the limit by itself: this is the one thing that takes its time.
      try await Task.sleep(for: .seconds(7))
      #expect(try await world.log(id).text == printed, "it stands still")
      #expect(
        try await world.scitq("task", "explain", "--id", "\(id)").text.hasPrefix(
          "suspended, paused on worker"))
      try await world.scitq("task", "resume", "--id", "\(id)")
      try await world.succeeded(id)
      #expect(try await world.log(id).text == (1...10).map(String.init).joined(separator: "\n"))
      let history = try await world.history(id)
      #expect(history.hasSuffix("Rsuspend-requestedZresume-requestedRUS"), "\(history)")
    }
  }

  @Test(
    "a cancellation that races the start always wins: 1,000 times, nothing is left running and nothing succeeds"
  )
  func cancelRace() async throws {
    try await World.server().worker(slots: 16, prefetch: 8).run { world in
      let ids = try await world.create(
        commands: Array(repeating: "sleep 0.05; sleep 600", count: 1000), "--shell", "sh")
      var start = ids.lowerBound
      while start <= ids.upperBound {
        let some = start...min(start + 99, ids.upperBound)
        let list = some.map(String.init).joined(separator: ",")
        _ = try await world.call(["task", "cancel", "--id", list], within: .seconds(120))
        start = some.upperBound + 1
      }
      try await until("all are canceled", within: .seconds(120)) { try await world.counts() == ["X": 1000] }
      try await until("nothing is left running") {
        !ids.contains { world.processRuns(with: "SCITQ_TASK_ID=\($0)") }
      }
    }
  }

  // MARK: Strategies

  /// A diamond of four steps with so many threads, each step's output the next one's input, on two workers.
  private func diamond(_ strategy: String, threads: Int) async throws {
    try await World.server().worker("a", slots: 4).worker("b", slots: 4).objectStore(cache: "1h").run {
      world in
      try await world.scitq("workflow", "create", "--name", "d", "--run-strategy", strategy, "--draft")
      var jobs: [String] = []
      for (name, after, command) in [
        ("one", [], "seq 20 > $OUTPUT/one"), ("two", [0], "wc -l < $INPUT/one > $OUTPUT/two"),
        ("three", [0], "md5sum < $INPUT/one > $OUTPUT/three"),
        ("four", [1, 2], "cat $INPUT/two $INPUT/three > $OUTPUT/four"),
      ] as [(String, [Int], String)] {
        try await world.scitq("step", "create", "--workflow-id", "1", "--name", name)
        let table = world.folder.appending(path: "threads.tsv")
        try ("thread\n" + (1...threads).map { "t\($0)\n" }.joined()).write(
          to: table, atomically: true, encoding: .utf8)
        var arguments = [
          "task", "create", "--workflow-name", "d", "--step-name", name, "--array-file", table.path,
          "--shell", "sh",
          "--output", "s3://data/{thread}/\(name)/", "--command", command, "--quiet",
        ]
        for index in after {
          arguments += ["--dependency", "\(jobs[index]):N_TO_N"]
          arguments += ["--input", "s3://data/{thread}/\(["one", "two", "three"][index])/*"]
        }
        jobs.append(try await world.scitq(arguments).text)
      }
      for worker in ["1", "2"] {
        try await world.scitq("worker", "update", "--worker-id", worker, "--step-id", "1", "--scope", "W")
      }
      try await world.scitq("workflow", "start", "--name", "d")
      _ = try await world.call(["workflow", "wait", "--id", "1"], within: .seconds(600))
      #expect(try await world.counts() == ["S": threads * 4])
      let wanted = (1...20).map { "\($0)\n" }.joined()
      for thread in [1, threads / 2, threads] {
        let four = try String(
          contentsOf: world.buckets.appending(path: "data/t\(thread)/four/four"), encoding: .utf8)
        #expect(four.hasPrefix("20\n") && four.contains("  -"), "\(four) of \(wanted.count)")
      }
      // The order in which commands started, as the server recorded it.
      let starts = try await world.sql(
        "SELECT step_id FROM event JOIN task ON task.id = first_id WHERE object = 'task' AND to_status = 'R' ORDER BY sequence"
      ).split(separator: "\n").map(String.init)
      let ended = try await world.sql(
        "SELECT min(sequence) FROM event JOIN task ON task.id = first_id WHERE to_status = 'S' AND step_id = 4"
      )
      let begun = try await world.sql(
        "SELECT count(*) FROM event JOIN task ON task.id = first_id WHERE to_status = 'R' AND step_id = 2 AND sequence < \(ended)"
      )
      if strategy == "B" {
        let lastOfOne = try #require(starts.lastIndex(of: "1"))
        #expect(!starts[..<lastOfOne].contains("4"), "a fourth step began before the first was finished")
        return
      }
      // With few threads most are on their way at once, their uploads waited for.
      #expect(
        (Int(begun) ?? .max) < max(threads / 4, 45),
        "\(begun) of the second step had started when the first thread ended")
      // What was uploaded from the worker that reads it is never fetched.
      let pairs = try await world.sql(
        """
        SELECT reader.array_index, producer.step_id FROM dependency
        JOIN task AS reader ON reader.id = task_id JOIN task AS producer ON producer.id = prerequisite_id
        WHERE reader.worker_id <> producer.worker_id
        """
      ).split(separator: "\n")
      let fetches = world.said("s3").split(separator: "\n").filter { line in
        line.contains("GET OBJECT Bucket: data") && !line.contains("/four/")
      }.count
      #expect(
        fetches <= pairs.count, "\(fetches) downloads for \(pairs.count) inputs that were made elsewhere")
      #expect(
        pairs.count < threads,
        "threads stay where their data is: \(pairs.count) of \(threads * 4) edges cross")
    }
  }

  private static let threads =
    ProcessInfo.processInfo.environment["SCITQ_THREADS"].flatMap { Int($0) } ?? 60

  @Test(
    "batch-wise and thread-wise, a diamond is right; threads are driven deep, and read from their own disk",
    arguments: ["B", "T"])
  func strategies(strategy: String) async throws { try await diamond(strategy, threads: Self.threads) }

  // MARK: Backup

  @Test("a backup that is made under load is a server that goes on from there")
  func backup() async throws {
    try await World.server().worker(slots: 4).run { world in
      let ids = try await world.create(commands: Array(repeating: "true", count: 3000))
      try await until("some are done") { try await world.counts()["S", default: 0] > 200 }
      let file = world.folder.appending(path: "backup").path
      try await world.serverCommand("backup", "--data-dir", world.folder.appending(path: "server").path, file)
      try await world.killServer()
      let old = world.folder.appending(path: "server")
      try FileManager.default.moveItem(at: old, to: world.folder.appending(path: "old"))
      try await world.serverCommand("restore", "--data-dir", old.path, file)
      try await world.startServer()
      try await until("all are done", within: .seconds(120)) { try await world.counts() == ["S": 3000] }
      let next = try await world.create("--command", "true")
      #expect(next > ids.upperBound + 100_000, "numbers are not given again")
      try await world.succeeded(next)
    }
  }
}

extension World {
  /// Runs a command of the server's own.
  func serverCommand(_ arguments: String...) async throws {
    let log = scratch("server-command")
    let program = try Program(
      "scitq-server", try Tools.built("scitq-server"), arguments, environment: baseEnvironment, out: log,
      err: log)
    let status = await program.ended()
    try #require(status == 0, "\((try? String(contentsOf: log, encoding: .utf8)) ?? "")")
  }
}
