import Foundation
import Testing

/// Lives of a whole scitq made up from a seed: real processes, and `kill -9` of whatever comes to mind.
@Suite("Random lives", .serialized)
struct HistoryTests {
  private static let rounds = ProcessInfo.processInfo.environment["SCITQ_LIVES"].flatMap { Int($0) } ?? 2
  private static let seed =
    ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0...(.max))

  /// Numbers that one seed makes, always the same.
  private struct Dice: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
  }

  @Test(
    "whatever is submitted, canceled, suspended, lost and killed, all ends as it should",
    arguments: 0..<rounds)
  func life(round: Int) async throws {
    var dice = Dice(state: Self.seed &+ UInt64(round) &* 7919)
    do {
      try await World.server().worker("a", slots: 3, prefetch: 1).worker("b", slots: 2)
        .configured("workers:\n  beat_interval: 500ms\n  offline_timeout: 6s\n  kill_grace: 1s").run {
          world in
          try await Self.live(world, &dice)
        }
    } catch {
      throw Trouble("SCITQ_SEED=\(Self.seed), round \(round): \(error)")
    }
  }

  private static func live(_ world: World, _ dice: inout Dice) async throws {
    try await world.scitq("workflow", "create", "--name", "w")
    for name in ["s", "t"] { try await world.scitq("step", "create", "--workflow-id", "1", "--name", name) }
    try await world.scitq("worker", "update", "--worker-id", "1", "--step-id", "1", "--scope", "G")
    var finished: [Int64: String] = [:]
    for _ in 0..<14 {
      try await act(world, &dice)
      // What has ended never changes again.
      let now = try await statuses(world)
      for (id, status) in finished where now[id] != status {
        throw Trouble("task \(id) was \(status) and is \(now[id] ?? "gone")")
      }
      finished = now.filter { "SFX".contains($0.value) }
    }
    // Nothing is left suspended, and nobody is away: then all that can end does.
    for name in ["a", "b"] where try await world.worker(name)?.status != "running" {
      try await world.startWorker(name)
    }
    _ = try await world.call(["workflow", "resume", "--id", "1"])
    for worker in try await world.rows([World.WorkerRow].self, "worker", "list", "--json") {
      try await world.scitq("worker", "resume", "--worker-id", "\(worker.id)")
      try await world.scitq("worker", "update", "--worker-id", "\(worker.id)", "--scope", "G")
    }
    try await until("all that can end has ended", within: .seconds(120)) {
      for (id, status) in try await statuses(world) where status == "Z" {
        _ = try await world.call(["task", "resume", "--id", "\(id)"])
      }
      return try await world.sql(
        """
        SELECT count(*) FROM task WHERE status NOT IN ('S', 'F', 'X') AND NOT (status = 'W' AND EXISTS (
          SELECT 1 FROM dependency LEFT JOIN task AS before ON before.id = prerequisite_id
          WHERE task_id = task.id AND met = 0 AND coalesce(before.status, 'F') IN ('F', 'X', 'W')))
        """) == "0"
    }
    let drift = try await world.sql(
      """
      SELECT count(*) FROM (
        SELECT step_id, status, hidden, count FROM task_count WHERE count > 0
        EXCEPT SELECT coalesce(step_id, 0), status, hidden, count(*) FROM task GROUP BY 1, 2, 3)
      """)
    #expect(drift == "0", "counts drifted")
    #expect(try await world.sql("SELECT count(*) FROM task WHERE status = 'W' AND unmet = 0") == "0")
    // No task succeeded twice to effect: of each chain of attempts, one at most.
    let twice = try await world.sql(
      "SELECT count(*) FROM task AS a JOIN task AS b ON b.previous_task_id = a.id WHERE a.status = 'S'")
    #expect(twice == "0", "a task that had succeeded was run again")
    for id in try await statuses(world).keys where world.processRuns(with: "SCITQ_TASK_ID=\(id)") {
      throw Trouble("task \(id) has ended and still runs")
    }
  }

  private static func statuses(_ world: World) async throws -> [Int64: String] {
    let text = try await world.sql("SELECT id || ' ' || status FROM task")
    return Dictionary(
      uniqueKeysWithValues: text.split(separator: "\n").compactMap { line in
        let words = line.split(separator: " ")
        return words.count == 2 ? (Int64(words[0]) ?? 0, String(words[1])) : nil
      })
  }

  private static func act(_ world: World, _ dice: inout Dice) async throws {
    let known = try await statuses(world).keys.sorted()
    let some = known.randomElement(using: &dice).map(String.init) ?? "1"
    let step = Bool.random(using: &dice) ? ["--step-id", "1"] : []
    switch Int.random(in: 0..<11, using: &dice) {
    case 0, 1:
      let after = known.isEmpty || Bool.random(using: &dice) ? [] : ["--dependency", some]
      _ = try await world.call(
        [
          "task", "create", "--shell", "sh", "--retry", "1", "--command",
          "sleep 0.4; exit $((SCITQ_TASK_ID % 3 == 0))",
        ]
          + step + after)
    case 2:
      _ = try await world.call(
        [
          "task", "create", "--array", "4", "--shell", "sh", "--command",
          "sleep 0.3; echo $SCITQ_ARRAY_INDEX",
        ] + step)
    case 3: _ = try await world.call(["task", "create", "--command", "sleep 3"] + step)
    case 4: _ = try await world.call(["task", "cancel", "--id", some])
    case 5:
      _ = try await world.call(
        ["task", "suspend", "--id", some] + (Bool.random(using: &dice) ? ["--release"] : []))
    case 6: _ = try await world.call(["task", "resume", "--id", some])
    case 7:
      let verb = ["suspend", "resume"].randomElement(using: &dice) ?? "resume"
      _ = try await world.call(["workflow", verb, "--id", "1"])
    case 8:
      let verb = ["pause", "resume", "drain"].randomElement(using: &dice) ?? "resume"
      _ = try await world.call(["worker", verb, "--worker-id", "\(Int.random(in: 1...2, using: &dice))"])
    case 9:
      try await world.killServer()
      try await world.startServer()
    default:
      let name = ["a", "b"].randomElement(using: &dice) ?? "a"
      guard try await world.worker(name)?.status != "lost" else { return try await world.startWorker(name) }
      try await world.killWorker(name)
      // Away for a moment, or for longer than the lease.
      if Bool.random(using: &dice) {
        try await world.startWorker(name)
      } else {
        try await until("worker \(name) is lost") { try await world.worker(name)?.status == "lost" }
        try await world.startWorker(name)
      }
    }
  }
}
