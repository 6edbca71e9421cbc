import Foundation
import Glibc
import Testing

/// Recruiters and their hosts, from the need to the return.
@Suite("The fleet", .serialized)
struct FleetTests {
  private struct Recruiter: Decodable {
    var workers: Int
  }

  private struct Worker: Decodable {
    var id: Int64
    var name: String
    var status: String
    var stepId: Int64?
  }

  private static let local = """
    fleet:
      idle_timeout: 20s
      reconcile_interval: 1s
    providers:
      local:
        here:
          flavors:
            two: {cpu: 2, memory: 4, disk: 10, price: 0.1}
            eight: {cpu: 8, memory: 16, disk: 10, price: 0.6}

    """

  @Test("workers come, work, go to the next step, and leave; there are never more than may be")
  func local() async throws {
    try await World.server().configured(Self.local).run { world in
      try await flow(world, steps: "a", "b")
      try await until("flavors are known") {
        try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 2
      }
      for step in ["1", "2"] {
        try await world.scitq(
          "recruiter", "create", "--step-id", step, "--filter", "cpu>=2", "--cpu-per-task", "1",
          "--prefetch-percent", "50", "--max-workers", "4", "--timeout", "1")
      }
      _ = try await world.create(
        commands: Array(repeating: "sleep 1", count: 200), "--step-id", "1", "--container", "bare")
      let most = Task { try await watchMost(world) }
      try await until("all of the first step have succeeded", within: .seconds(180)) {
        try await world.counts() == ["S": 200]
      }
      _ = try await world.create(
        commands: Array(repeating: "sleep 0.5", count: 40), "--step-id", "2", "--container", "bare")
      try await until("all of the second have, too", within: .seconds(120)) {
        try await world.counts() == ["S": 240]
      }
      // Nothing more can come: they are not kept for the whole of the time that idle ones are.
      try await until("all have left", within: .seconds(60)) {
        try await world.rows([Worker].self, "worker", "list", "--json").isEmpty
      }
      most.cancel()
      let seen = try await most.value
      #expect(seen <= 4, "\(seen) workers at once")
      let orders = try await world.sql("SELECT count(*) FROM instance")
      #expect(Int(orders)! <= 4, "\(orders) hosts were ordered, where four were enough for both steps")
      #expect(try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'") == "0")
      #expect(try await world.sql("SELECT count(*) FROM event WHERE to_status = 'recycled'") != "0")
      #expect(try await world.sql("SELECT count(*) FROM instance_use WHERE ended_at IS NULL") == "0")
      let costs = try await world.scitq("workflow", "cost", "--id", "1", "--json").text
      #expect(costs.contains("\"step\""))
    }
  }

  @Test(
    "a local worker that is killed leaves neither its command nor its folder, and its task is done by another"
  )
  func killedLocally() async throws {
    try await World.server().configured(Self.local).run { world in
      try await flow(world, steps: "a")
      try await until("flavors are known") {
        try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 2
      }
      try await world.scitq(
        "recruiter", "create", "--step-id", "1", "--filter", "cpu=2", "--concurrency", "1", "--max-workers",
        "1",
        "--timeout", "0")
      let task = try await world.create(
        "--step-id", "1", "--container", "bare", "--shell", "sh", "--retry", "1", "--command",
        "[ $SCITQ_ATTEMPT -gt 1 ] || { echo $$ > \(world.folder.path)/first; exec sleep 600; }")
      let first = world.folder.appending(path: "first")
      try await until("it runs", within: .seconds(60)) {
        ((try? String(contentsOf: first, encoding: .utf8)) ?? "").hasSuffix("\n")
      }
      let command = try #require(
        pid_t(String(contentsOf: first, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)))
      let hosts = world.folder.appending(path: "server/fleet/local.here")
      let home = hosts.appending(path: try await world.sql("SELECT key FROM instance"))
      let agent = try #require(
        pid_t(String(contentsOf: home.appending(path: "process"), encoding: .utf8).prefix { $0.isNumber }))
      kill(agent, SIGKILL)
      try await until("nothing of it is left", within: .seconds(60)) {
        kill(command, 0) != 0 && !FileManager.default.fileExists(atPath: home.path)
      }
      try await until("another has done it", within: .seconds(60)) { try await world.counts()["S"] == 1 }
      #expect(try await world.sql("SELECT status FROM task WHERE id = \(task)") == "F")
    }
  }

  /// The most hosts that there were at once, looked at until it is canceled.
  private func watchMost(_ world: World) async throws -> Int {
    var most = 0
    while !Task.isCancelled {
      let now = try? await world.rows([Worker].self, "worker", "list", "--json").count
      most = max(most, now ?? 0)
      try? await Task.sleep(for: .milliseconds(200))
    }
    return most
  }

  @Test(
    "a server that is killed at any step of making and returning a host makes one for an order and forgets none",
    arguments: [
      "deploy:before", "deploy:after", "deploy:answered", "terminate:before", "terminate:after",
      "terminate:answered", "instances:before", "instances:answered",
    ])
  func killed(at moment: String) async throws {
    let stand = StandIn()
    defer { stand.remove() }
    try await World.server().configured(stand.configuration).run { world in
      try stand.open(in: world.folder)
      try await flow(world, steps: "a")
      try await until("flavors are known") {
        try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 2
      }
      try await world.scitq(
        "recruiter", "create", "--step-id", "1", "--filter", "cpu=2", "--concurrency", "2", "--max-workers",
        "2",
        "--timeout", "0")
      // There it is asked all the time, so that the server could be gone before it has the tasks.
      if !moment.hasPrefix("instances") { try stand.write("deadly", moment) }
      _ = try await world.create(
        commands: Array(repeating: "sleep 0.2", count: 8), "--step-id", "1", "--container", "bare")
      if moment.hasPrefix("instances") { try stand.write("deadly", moment) }
      if moment.hasPrefix("terminate") {
        try await until("all have succeeded", within: .seconds(120)) { try await world.counts() == ["S": 8] }
      }
      try await until("the server was killed at \(moment)", within: .seconds(60)) {
        stand.read("deaths") == moment + "\n"
      }
      try await until("it is gone") { await !world.serverIsRunning }
      try await world.startServer()
      try await until("all have succeeded", within: .seconds(150)) { try await world.counts() == ["S": 8] }
      try await until("all hosts were returned", within: .seconds(120)) {
        let live = try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'")
        return live == "0" && stand.hosts.isEmpty
      }
      let made = stand.read("made").split(separator: "\n")
      #expect(Set(made).count == made.count, "two hosts were made for one order: \(made)")
    }
  }

  @Test(
    "a provider that refuses is asked once a minute at most, and `recruiter explain` says why",
    arguments: ["capacity", "quota", "unsupported", "credentials", "misconfigured", "transient", "garbage"])
  func refused(_ mood: String) async throws {
    let stand = StandIn()
    defer { stand.remove() }
    try await World.server().configured(stand.configuration).run { world in
      try stand.open(in: world.folder)
      try stand.write("mood", mood)
      try await flow(world, steps: "a")
      try await until("flavors are known") {
        try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 2
      }
      try await world.scitq(
        "recruiter", "create", "--step-id", "1", "--filter", "cpu=2", "--max-workers", "5", "--timeout", "0")
      _ = try await world.create(
        commands: Array(repeating: "true", count: 20), "--step-id", "1", "--container", "bare")
      try await until("the provider was asked") { stand.read("calls").contains(" deploy ") }
      let wanted = mood == "garbage" ? "transient" : mood
      try await until("it is said why") {
        try await world.scitq("recruiter", "explain", "--step-id", "1").text.contains(wanted)
      }
      // Five were wanted at once: the first refusal is learned from by all.
      try await until("some passes were made") {
        let text = try await world.scitq("recruiter", "explain", "--step-id", "1").text
        return text.contains("tried again in 5") || text.contains("tried again in 24 h")
          || text.contains("tried again in 23 h")
      }
      #expect(stand.calls("deploy") == 1, "it was asked again within a minute")
      #expect(stand.read("made").isEmpty)
      // The flavor that is not blocked serves, where it is the flavor that stands in the way.
      if mood == "capacity" {
        try stand.write("mood", "")
        try await world.scitq("recruiter", "update", "--step-id", "1", "--filter", "cpu>=2")
        try await until("another flavor was bought", within: .seconds(60)) { !stand.hosts.isEmpty }
        try await until("all have succeeded", within: .seconds(60)) { try await world.counts() == ["S": 20] }
      }
      try await world.scitq("recruiter", "delete", "--step-id", "1", "--rank", "1")
    }
  }

  @Test(
    "a host with our tag that no order knows is returned, one of others is left alone, and one that is gone is lost"
  )
  func reconciled() async throws {
    let stand = StandIn()
    defer { stand.remove() }
    try await World.server().configured(stand.configuration).run { world in
      try stand.open(in: world.folder)
      try await flow(world, steps: "a")
      let server = try await world.sql("SELECT id FROM server")
      for key in ["scitq-\(server)-999", "scitq-00000000-7"] { try await stand.startStranger(key) }
      try await until("ours is returned") { !stand.hosts.contains("scitq-\(server)-999") }
      #expect(stand.hosts.contains("scitq-00000000-7"))
      try await until("flavors are known") {
        try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 2
      }
      try await world.scitq(
        "worker", "deploy", "--provider", "exec.stand", "--flavor", "small", "--step", "1", "--concurrency",
        "1")
      let task = try await world.create(
        "--step-id", "1", "--container", "bare", "--shell", "sh", "--command",
        "[ $SCITQ_ATTEMPT -gt 1 ] || sleep 600")
      try await until("it runs") { try await world.counts()["R"] == 1 }
      let key = try #require(stand.hosts.first { $0.contains(server) })
      try stand.kill(key)
      try await until("the worker is gone with its host", within: .seconds(60)) {
        try await world.rows([Worker].self, "worker", "list", "--json").isEmpty
      }
      #expect(
        try await world.sql("SELECT count(*) FROM event WHERE object = 'worker' AND to_status = 'gone'")
          == "1")
      try await world.scitq(
        "worker", "deploy", "--provider", "exec.stand", "--flavor", "small", "--step", "1")
      try await until("the task was tried anew, and has succeeded") { try await world.counts()["S"] == 1 }
      #expect(task == 1 && stand.hosts.contains("scitq-00000000-7"))
    }
  }

  private func flow(_ world: World, steps: String...) async throws {
    try await world.scitq("workflow", "create", "--name", "w")
    for step in steps { try await world.scitq("step", "create", "--workflow-id", "1", "--name", step) }
  }
}

/// A provider whose hosts are processes, and which does what the test says: a copy of `provider.py` in a folder of its own.
private struct StandIn {
  let folder = URL(
    filePath: (ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp")
      + "/stand-\(UUID().uuidString.prefix(8))")

  var configuration: String {
    """
    workers:
      offline_timeout: 10s
      beat_interval: 1s
    fleet:
      server_address: 127.0.0.1
      idle_timeout: 10s
      reconcile_interval: 1s
      orphan_grace: 2s
    providers:
      exec:
        stand:
          program: \(folder.path)/provider.py

    """
  }

  init() {
    let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "provider.py")
    try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try? FileManager.default.copyItem(at: source, to: folder.appending(path: "provider.py"))
  }

  /// Its folder goes with the world's.
  func open(in world: URL) throws {
    try FileManager.default.createSymbolicLink(at: world.appending(path: "stand"), withDestinationURL: folder)
  }

  func remove() {
    for host in hosts { try? kill(host) }
    try? FileManager.default.removeItem(at: folder)
  }

  func read(_ name: String) -> String {
    (try? String(contentsOf: folder.appending(path: name), encoding: .utf8)) ?? ""
  }

  func write(_ name: String, _ text: String) throws {
    try text.write(to: folder.appending(path: name), atomically: true, encoding: .utf8)
  }

  var hosts: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder.appending(path: "hosts").path)) ?? [])
      .sorted()
  }

  func calls(_ verb: String) -> Int { read("calls").components(separatedBy: " \(verb) ").count - 1 }

  /// A host that scitq did not order.
  func startStranger(_ key: String) async throws {
    let process = Process()
    process.executableURL = URL(filePath: "/bin/sleep")
    process.arguments = ["600"]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    try FileManager.default.createDirectory(
      at: folder.appending(path: "hosts"), withIntermediateDirectories: true)
    try write("hosts/\(key)", "\(process.processIdentifier)")
  }

  /// The machine goes, and nobody is told.
  func kill(_ key: String) throws {
    guard let number = Int32(read("hosts/\(key)")) else { throw Trouble("there is no host \(key)") }
    Glibc.kill(-number, SIGKILL)
    Glibc.kill(number, SIGKILL)
    try FileManager.default.removeItem(at: folder.appending(path: "hosts/\(key)"))
  }
}
