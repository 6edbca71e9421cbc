import Foundation
import Testing

/// Recruiters on a real Slurm of three nodes, from the need to an empty queue.
@Suite(
  "Pilots in a Slurm cluster", .serialized,
  .enabled(
    if: geteuid() == 0 && Tools.has("sbatch", "slurmctld", "slurmd", "munged", "curl"),
    "needs root, slurm-wlm, munge and curl"))
struct SlurmTests {
  @Test("pilots come, stand still, are put back, outlive their controller, and leave nothing behind")
  func pilots() async throws {
    try await SlurmCluster.run(time: "30") { world, cluster in
      try await world.scitq("step", "create", "--workflow-id", "1", "--name", "b")
      try await recruit(world, step: 1, most: 3)
      let first = Task { try await cluster.mostPilots() }
      defer { first.cancel() }
      let short = try await world.create(
        commands: Array(repeating: "sleep 1", count: 8), "--step-id", "1", "--container", "bare")
      for id in short { try await world.succeeded(id) }
      try await cluster.isEmpty(world)
      first.cancel()
      #expect(try await first.value == 3)

      // One stands still for longer than twice its lease, while another has room.
      try await recruit(world, step: 2, most: 2)
      let most = Task { try await cluster.mostPilots() }
      defer { most.cancel() }
      let still = try await hold(world, "still")
      let one = try #require(try await world.task(still, reaches: "R").workerName)
      let beside = try await hold(world, "beside")
      let two = try #require(try await world.task(beside, reaches: "R").workerName)
      let job = try #require(try await cluster.job(of: one)?.id)
      try await cluster.call("scontrol", "suspend", job)
      let next = try await hold(world, "next")
      try await until("it is known to stand still") {
        try await world.happened("worker", "suspended by its provider")
      }
      try await stays(world, for: .seconds(11)) {
        let row = try await world.task(still)
        try #require(row.status == "R" && row.workerName == one, "\(row)")
      }
      #expect(try await world.happened("worker", "silent"))
      #expect(try await cluster.job(of: one)?.state == "SUSPENDED")
      try await cluster.call("scontrol", "resume", job)
      try await until("it is known to go on") {
        try await world.happened("worker", "resumed by its provider")
      }
      try release(world, "still")
      try await world.succeeded(still)
      #expect(try await world.assignment(still) == "1")
      #expect(try await world.history(still) == "PACRUS")

      // One is put back into the queue: its task begins elsewhere, and the pilot comes anew.
      #expect(try await world.task(next, reaches: "R").workerName == one)
      let orders = try await world.sql("SELECT count(*) FROM instance")
      let number = try await world.worker(one)?.id
      try await cluster.call("scontrol", "requeue", job)
      let lost = try await world.task(next, reaches: "F")
      let clone = try #require(lost.nextTaskId)
      #expect(lost.reason == "worker-lost", "\(lost)")
      try release(world, "beside")
      try await world.succeeded(beside)
      #expect(try await world.task(clone, reaches: "R").workerName == two)
      let stubborn = try await hold(world, "anew", before: "trap '' TERM; ")
      try await begins(one, job, world, cluster)
      #expect(try await world.task(stubborn, reaches: "R").workerName == one)
      // Again, with a command that has to be killed: then its worker is, too, and can say nothing.
      try await cluster.call("scontrol", "requeue", job)
      let killed = try await world.task(stubborn, reaches: "F")
      #expect(killed.reason == "worker-lost" && killed.message?.contains("was put back") == true, "\(killed)")
      let anew = try #require(killed.nextTaskId)
      let fresh = try await hold(world, "fresh")
      try release(world, "next")
      try await world.succeeded(clone)
      #expect(try await world.task(anew, reaches: "R").workerName == two)
      try await begins(one, job, world, cluster)
      #expect(try await world.task(fresh, reaches: "R").workerName == one)
      #expect(try await world.worker(one)?.id == number)
      #expect(try await cluster.job(of: one)?.id == job)
      #expect(try await world.sql("SELECT count(*) FROM instance") == orders)
      most.cancel()
      #expect(try await most.value == 2)

      // Nobody can ask the controller.
      try await cluster.script("down")
      let later = try await hold(world, "later")
      try await until("that is known") { try await world.happened("region", "troubled") }
      try release(world, "fresh")
      try await world.succeeded(fresh)
      #expect(try await world.task(later, reaches: "R").workerName == one)
      try await world.scitq("recruiter", "update", "--step-id", "2", "--max-workers", "3")
      let bought = try await hold(world, "bought")
      try await stays(world, for: .seconds(11)) {
        let rows = [try await world.task(anew), try await world.task(later)]
        try #require(rows.map(\.status) == ["R", "R"] && rows.map(\.workerName) == [two, one], "\(rows)")
        try #require(try await world.task(bought).status == "P")
      }
      let why = try await world.scitq("recruiter", "explain", "--step-id", "2").text
      #expect(why.contains("slurm.cluster slurm") && why.contains("transient"), "\(why)")
      try await cluster.script("up")
      let third = try await world.task(bought, reaches: "R").workerName
      #expect(third != one && third != two)
      for name in ["anew", "later", "bought"] { try release(world, name) }
      for id in [anew, later, bought] { try await world.succeeded(id) }
      #expect(try await world.assignment(later) == "1")
      #expect(try await world.assignment(bought) == "1")
      try await cluster.isEmpty(world)
      #expect(try await !world.happened("worker", "lost"))
      #expect(try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'") == "0")
    }
  }

  @Test("no task is started, and no pilot bought, where a task's estimate is longer than there is time")
  func time() async throws {
    try await SlurmCluster.run(time: "4") { world, cluster in
      try await recruit(world, step: 1, most: 2)
      let long = try await world.create(
        "--step-id", "1", "--container", "bare", "--time-estimate", "10m", "--command", "true")
      let short = try await hold(world, "short", step: 1, "--time-estimate", "1m")
      let pilot = try #require(try await world.task(short, reaches: "R").workerName)
      let end = try #require(Int64(try await world.sql("SELECT ends_at FROM worker WHERE name = '\(pilot)'")))
      let left = Double(end) / 1_000_000 - Date().timeIntervalSince1970
      #expect((150...240).contains(left), "\(left) s are left")
      try release(world, "short")
      try await world.succeeded(short)
      // It is free, and has seen the longer one wait.
      let another = try await world.create(
        "--step-id", "1", "--container", "bare", "--time-estimate", "1m", "--command", "true")
      try await world.succeeded(another)
      #expect(try await world.history(long) == "P")
      #expect(try await world.task(long).status == "P")
      let why = try await world.scitq("task", "explain", "--id", "\(long)").text
      #expect(why.contains("600 s until its host is taken away"), "\(why)")
      let because = try await world.scitq("recruiter", "explain", "--step-id", "1").text
      #expect(because.contains("no flavor that passes its filter is large enough"), "\(because)")
      #expect(try await world.sql("SELECT count(*) FROM instance") == "1")
      try await world.scitq("task", "cancel", "--id", "\(long)")
      try await cluster.isEmpty(world)
    }
  }

  // MARK: - Steps of the way

  private func recruit(_ world: World, step: Int, most: Int) async throws {
    try await world.scitq(
      "recruiter", "create", "--step-id", "\(step)", "--filter", "cpu>=1", "--concurrency", "1",
      "--max-workers", "\(most)", "--timeout", "0")
  }

  /// Lets a job that was put back into its queue begin, which Slurm would have wait for two minutes.
  private func begins(_ worker: String, _ job: String, _ world: World, _ cluster: SlurmCluster) async throws {
    try await until("it waits in its queue, and that is known") {
      let state = try await cluster.job(of: worker)?.state
      let status = try await world.worker(worker)?.status
      return state == "PENDING" && status == "deploying"
    }
    try await cluster.call("scontrol", "update", "jobid=\(job)", "starttime=now")
  }

  /// A task that runs until it is released.
  private func hold(
    _ world: World, _ name: String, step: Int = 2, before: String = "", _ more: String...
  ) async throws -> Int64 {
    try await world.create(
      ["--step-id", "\(step)", "--container", "bare", "--shell", "sh"] + more + [
        "--command", before + "until [ -e '\(gate(world, name).path)' ]; do sleep 0.1; done",
      ])
  }

  private func release(_ world: World, _ name: String) throws { try Data().write(to: gate(world, name)) }

  private func gate(_ world: World, _ name: String) -> URL { world.folder.appending(path: "gate-\(name)") }

  /// It holds for so long, and nobody is given up meanwhile.
  private func stays(_ world: World, for time: Duration, _ holds: () async throws -> Void) async throws {
    let end = ContinuousClock.now + time
    try await until("\(time) are over", within: time * 3) {
      try await holds()
      try #require(try await !world.happened("worker", "lost"))
      return ContinuousClock.now > end
    }
  }
}

/// A real Slurm on this machine, with three nodes of 2, 2 and 1 CPUs, and what of it the server is told.
private struct SlurmCluster {
  let folder: URL

  /// A cluster and a world with a workflow of one step, for as long as a test takes.
  static func run(time: String, _ body: (World, SlurmCluster) async throws -> Void) async throws {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let cluster = SlurmCluster(folder: URL(filePath: "\(parent)/slurm-\(UUID().uuidString.prefix(8))"))
    do {
      try await cluster.script("start")
      try await World.server().configured(cluster.configuration(time: time))
        .environment(cluster.environment).run { world in
          try await world.scitq("workflow", "create", "--name", "w")
          try await world.scitq("step", "create", "--workflow-id", "1", "--name", "a")
          try await until("flavors are known") {
            try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 1
          }
          try await body(world, cluster)
        }
    } catch {
      await cluster.end()
      throw error
    }
    await cluster.end()
  }

  private var environment: [String: String] { ["SLURM_CONF": folder.appending(path: "slurm.conf").path] }

  private func configuration(time: String) -> String {
    """
    workers:
      offline_timeout: 5s
      beat_interval: 1s
    fleet:
      server_address: 127.0.0.1
      idle_timeout: 30s
      orphan_grace: 2s
    providers:
      slurm:
        cluster:
          time: \(time)
          folder: \(folder.path)/jobs
          flavors:
            part: {cpu: 1, memory: 1}
    """
  }

  /// `start`, `stop`, and `down` and `up` for the controller.
  func script(_ action: String) async throws {
    let script = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../ServerTests/Fleet/slurm_world.sh").standardizedFileURL
    try await Program.run(["bash", script.path, action, folder.path], within: .seconds(120))
  }

  private func end() async {
    try? await script("stop")
    // What ran in a job that was ended by force is nobody's child any more.
    await Leftovers.remove(folder)
    try? FileManager.default.removeItem(at: folder)
  }

  @discardableResult
  func call(_ arguments: String...) async throws -> String {
    try await Program.run(arguments, environment: environment)
  }

  struct Job {
    var id: String
    var state: String
    var name: String
  }

  func jobs() async throws -> [Job] {
    try await call("squeue", "-h", "-o", "%i|%T|%j").split(separator: "\n").compactMap { line in
      let words = line.split(separator: "|", maxSplits: 2).map(String.init)
      return words.count == 3 ? Job(id: words[0], state: words[1], name: words[2]) : nil
    }
  }

  /// The job that a worker runs in: they have the same name.
  func job(of worker: String) async throws -> Job? { try await jobs().first { $0.name == worker } }

  /// The most pilots that there were at once, looked at until it is canceled.
  func mostPilots() async throws -> Int {
    var most = 0
    while !Task.isCancelled {
      let now = try? await jobs().filter { $0.state != "COMPLETING" }.count
      most = max(most, now ?? 0)
      try? await Task.sleep(for: .milliseconds(100))
    }
    return most
  }

  /// Waits until all pilots were returned. Then nothing of them is left in the queue or on the disk.
  func isEmpty(_ world: World) async throws {
    try await until("all pilots were returned", within: .seconds(60)) {
      let live = try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'")
      let jobs = try await jobs()
      return live == "0" && jobs.isEmpty
    }
    // A job is out of the queue a moment before its script has tidied up.
    do {
      try await until("their folders are gone") {
        try FileManager.default.contentsOfDirectory(atPath: folder.appending(path: "jobs").path).isEmpty
      }
    } catch {
      let left = try FileManager.default.subpathsOfDirectory(atPath: folder.appending(path: "jobs").path)
      throw Trouble("\(error): \(left.sorted().prefix(40))")
    }
  }
}
