import Foundation
import Testing

/// Hosts of a cloud, from the flavor to the return, with the cloud's own client: what it starts is booted in network
/// namespaces by the user data that the server gave it.
@Suite("Hosts of a cloud", .serialized)
struct CloudTests {
  @Test("hosts are bought, boot, work, drain when they are to be taken back, and are returned; others' stay")
  func whole() async throws {
    try await Cloud.run { cloud in
      try await World.server().configured(cloud.configuration).environment(cloud.credentials).reachable().run
      {
        world in
        // One of ours that no order knows, and one that is none of ours.
        let server = try await world.sql("SELECT id FROM server")
        let stray = try await cloud.start(tag: "scitq-\(server)-999")
        let other = try await cloud.start(tag: "scitq-00000000-7")
        try await until("there are flavors of both markets", within: .seconds(90)) {
          try await world.rows([Flavor].self, "flavor", "list", "--filter", "eviction<=20", "--json").count
            >= 2
        }
        let flavors = try await world.rows(
          [Flavor].self, "flavor", "list", "--filter", "eviction<=20", "--json")
        #expect(
          flavors.allSatisfy { $0.flavor.hasPrefix("c5.") && $0.price > 0 && $0.region == Cloud.region })
        #expect(Set(flavors.map { $0.evictionPercent > 0 }) == [true, false])

        try await world.scitq("workflow", "create", "--name", "w")
        try await world.scitq("step", "create", "--workflow-id", "1", "--name", "s")
        try await world.scitq(
          "recruiter", "create", "--step-id", "1", "--filter", "cpu=2:eviction<=20", "--concurrency", "1",
          "--max-workers", "2", "--timeout", "0")
        _ = try await world.create(
          commands: Array(repeating: "sleep 4", count: 12), "--step-id", "1", "--container", "bare")
        try await until("both hosts work", within: .seconds(120)) {
          let ours = try await world.rows([Worker].self, "worker", "list", "--json")
          return ours.count == 2 && ours.allSatisfy { $0.status == "running" }
        }
        try await until("all have succeeded", within: .seconds(120)) { try await world.counts()["S"] == 12 }
        // What hosts say while they boot is what people see of it.
        for phase in ["booted", "fetched", "joining"] {
          let said = try await world.sql(
            "SELECT count(*) FROM event WHERE object = 'worker' AND to_status = 'boot: \(phase)'")
          #expect(said == "2", "\(phase): \(said)")
        }

        // The cloud takes one back while it works.
        _ = try await world.create("--step-id", "1", "--container", "bare", "--command", "sleep 5")
        try await until("it runs") { try await world.counts()["R"] == 1 }
        let host = try await world.sql(
          """
          SELECT reference FROM instance JOIN task ON task.worker_id = instance.worker_id WHERE task.status = 'R'
          """)
        try cloud.takeBack(host)
        try await until("the worker has ended its task, and has left", within: .seconds(60)) {
          let state = try await cloud.state(of: host)
          return try await world.counts()["S"] == 13 && state == "terminated"
        }
        #expect(try await world.sql("SELECT max(attempt) FROM task") == "1")

        try await until("nothing is left that costs", within: .seconds(120)) {
          try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'") == "0"
        }
        #expect(try await cloud.state(of: stray) == "terminated")
        let running = try await cloud.running()
        #expect(running == [other], "others' hosts were touched, or ours were forgotten: \(running)")
        let paid = try await world.scitq("workflow", "cost", "--id", "1", "--json").text
        #expect(paid.contains("\"cost\""), "\(paid)")
      }
    }
  }

  private struct Flavor: Decodable {
    var flavor: String
    var region: String
    var evictionPercent: Double
    var price: Double
  }

  private struct Worker: Decodable {
    var status: String
  }
}

/// `cloud.py`: a cloud of this machine's own.
private struct Cloud {
  static let region = "eu-west-1"
  let folder: URL
  private let program: Program
  private let ready: Ready

  private struct Ready: Decodable {
    var endpoint: String
    var address: String
  }

  static func run(_ body: (Cloud) async throws -> Void) async throws {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let folder = URL(filePath: parent).appending(path: "cloud-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(
      at: folder.appending(path: "hosts"), withIntermediateDirectories: true)
    var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SCITQ_") }
    // What runs in its hosts is known by this folder. They have an rclone, so that none is fetched.
    environment["TMPDIR"] = folder.path
    environment["HOME"] = folder.path
    environment["PATH"] = "\(folder.path)/bin:\(environment["PATH"] ?? "/usr/bin:/bin")"
    let bin = folder.appending(path: "bin")
    try FileManager.default.createDirectory(at: bin, withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(
      at: bin.appending(path: "rclone"), withDestinationURL: Tools.rclone)
    let log = folder.appending(path: "log")
    let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "cloud.py")
    let program = try Program(
      "cloud", try python(), [script.path, folder.path], environment: environment, out: log, err: log)
    var failure: (any Error)?
    do {
      let file = folder.appending(path: "ready")
      try await until("the cloud is there", within: .seconds(60)) {
        guard program.isRunning else {
          throw Trouble("cloud.py ended: \((try? String(contentsOf: log, encoding: .utf8)) ?? "")")
        }
        return FileManager.default.fileExists(atPath: file.path)
      }
      let ready = try JSONDecoder().decode(Ready.self, from: Data(contentsOf: file))
      try await body(Cloud(folder: folder, program: program, ready: ready))
    } catch {
      for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path + "/hosts")) ?? []
      where name.hasSuffix(".log") {
        let said = try? String(contentsOf: folder.appending(path: "hosts/\(name)"), encoding: .utf8)
        print("── \(name) ──\n\(said?.suffix(3_000) ?? "")")
      }
      failure = error
    }
    await program.stop(grace: .seconds(30))
    await Leftovers.remove(folder)
    try? FileManager.default.removeItem(at: folder)
    if let failure { throw failure }
  }

  /// The one that has moto: it lies beside moto's own program.
  private static func python() throws -> URL {
    try Tools.onPath("moto_server").resolvingSymlinksInPath().deletingLastPathComponent()
      .appending(path: "python3")
  }

  var configuration: String {
    """
    fleet:
      server_address: \(ready.address)
      idle_timeout: 100s
      reconcile_interval: 1s
      orphan_grace: 2s
    providers:
      aws:
        test:
          regions: [\(Self.region)]
          endpoint: \(ready.endpoint)
          image: resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
          families: [c5.large, c5.xlarge]
          market: both
          prices: {c5.large: 0.096, c5.xlarge: 0.192}

    """
  }

  var credentials: [String: String] {
    [
      "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true",
      "AWS_ENDPOINT_URL": ready.endpoint,
    ]
  }

  /// The real client, as anybody has it.
  private func aws(_ arguments: String...) async throws -> String {
    let out = folder.appending(path: "aws-\(UUID().uuidString)")
    let program = try Program(
      "aws", try Tools.onPath("aws"),
      ["ec2"] + arguments + ["--region", Self.region, "--output", "text"],
      environment: ProcessInfo.processInfo.environment.merging(credentials) { _, new in new }, out: out,
      err: out)
    let status = await program.ended()
    let text = try String(contentsOf: out, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    try #require(status == 0, "aws \(arguments): \(text)")
    return text
  }

  /// An instance that scitq did not order; its id.
  func start(tag: String) async throws -> String {
    try await aws(
      "run-instances", "--image-id", "ami-12345678", "--instance-type", "c5.large", "--user-data", "true",
      "--tag-specifications", "ResourceType=instance,Tags=[{Key=scitq,Value=\(tag)}]",
      "--query", "Instances[0].InstanceId")
  }

  func state(of instance: String) async throws -> String {
    try await aws(
      "describe-instances", "--instance-ids", instance, "--query", "Reservations[0].Instances[0].State.Name")
  }

  func running() async throws -> [String] {
    try await aws(
      "describe-instances", "--filters", "Name=instance-state-name,Values=running", "--query",
      "Reservations[].Instances[].InstanceId"
    ).split(whereSeparator: \.isWhitespace).map(String.init)
  }

  /// The host's metadata service tells it that it is to go.
  func takeBack(_ instance: String) throws {
    try #"{"action": "terminate", "time": "2031-09-18T08:22:00Z"}"#.write(
      to: folder.appending(path: "hosts/\(instance).notice"), atomically: true, encoding: .utf8)
  }
}
