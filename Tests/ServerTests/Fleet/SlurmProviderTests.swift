import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// On a real Slurm of three nodes: n1 and n2 of 2 CPUs in `main`, n3 of 1 CPU in `main` and `short`.
@Suite(
  "Pilots of a Slurm cluster", .serialized,
  .enabled(
    if: getuid() == 0
      && HostWorld.has("sbatch", "slurmctld", "slurmd", "munged", "curl", "openssl", "python3"),
    "needs root, slurm-wlm, munge, curl, openssl and python3"))
struct SlurmProviderTests {
  /// A cluster for as long as a test takes.
  private func withCluster(_ body: (HostWorld, Cluster) async throws -> Void) async throws {
    try await HostWorld.run { world in
      let cluster = Cluster(folder: world.folder.appending("slurm"))
      do {
        try await cluster.script("start")
        try await body(world, cluster)
      } catch {
        try? await cluster.script("stop")
        throw error
      }
      try await cluster.script("stop")
    }
  }

  private struct Cluster {
    let folder: FilePath

    func script(_ action: String) async throws {
      try await HostWorld.call(
        "bash", HostWorld.support.appending("slurm_world.sh").string, action, folder.string)
    }

    @discardableResult
    func call(_ arguments: String...) async throws -> String {
      let answer = await ClientProgram(program: arguments[0], environment: environment)
        .run(Array(arguments.dropFirst()))
      try #require(answer.isSuccess, "\(arguments): \(answer.error)")
      return answer.text
    }

    var environment: [String: String] { ["SLURM_CONF": folder.appending("slurm.conf").string] }

    func provider(
      server: String = "test", _ settings: [String: String] = [:], options: [String] = []
    ) -> SlurmProvider {
      var configuration = ProviderConfiguration(kind: .slurm, name: "slurm.lab", regions: ["slurm"])
      configuration.settings = settings
      configuration.settings["folder"] = settings["folder"] ?? folder.appending("jobs").string
      configuration.prices = ["short": 0.5, "main/2c-3g": 0.25]
      configuration.lists["options"] = options
      var provider = SlurmProvider(configuration, server: server, folder: folder)
      provider.environment.merge(environment) { $1 }
      return provider
    }

    /// The folders of an order's jobs that are there, without their logs.
    func homes(_ order: InstanceOrder) -> [FilePath] {
      let jobs = folder.appending("jobs")
      let names = (try? FileManager.default.contentsOfDirectory(atPath: jobs.string)) ?? []
      return names.filter { $0.hasPrefix(order.key + "-") && !$0.hasSuffix(".log") && !$0.hasSuffix(".said") }
        .sorted().map { jobs.appending($0) }
    }

    func state(_ order: InstanceOrder, _ provider: SlurmProvider) async throws -> Instance.State? {
      try await provider.instances(in: order.flavor.region).first { $0.key == order.key }?.state
    }
  }

  private func small(_ region: String = "slurm") -> Flavor {
    Flavor(provider: "slurm.lab", region: region, name: "main/1c-0g", cpu: 1, memory: 0.25)
  }

  @Test("a flavor for each partition and shape of nodes, with configured prices")
  func flavors() async throws {
    try await withCluster { _, cluster in
      let all = try await cluster.provider().flavors(in: "slurm")
      #expect(all.map(\.name) == ["main/1c-2g", "main/2c-3g", "short/1c-2g"])
      #expect(
        all.map(\.cpu) == [1, 2, 1] && all.map(\.memory) == [2, 3.90625, 2]
          && all.map(\.disk) == [10, 20, 10])
      #expect(all.map(\.price) == [0, 0.25, 0.5] && all.allSatisfy { $0.region == "slurm" && !$0.isSpot })
      #expect(try await cluster.provider().flavors(in: "short").map(\.name) == ["short/1c-2g"])
      #expect(try await cluster.provider(["partition": "short"]).flavors(in: "slurm").count == 1)
      // Partitions whose jobs end before ours would, and nodes that are out of service.
      #expect(
        try await cluster.provider(["time": "31"]).flavors(in: "slurm").map(\.name).contains("short/1c-2g")
          == false)
      try await cluster.call("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
      #expect(try await cluster.provider().flavors(in: "slurm").map(\.name) == ["main/1c-2g", "short/1c-2g"])
    }
  }

  @Test("a pilot waits, runs a worker that knows nothing of the server's environment, and is ended")
  func life() async throws {
    try await withCluster { world, cluster in
      let provider = cluster.provider(["time": "1-00:00:00"])
      // A whole node as Slurm tells of it can be asked for.
      let flavor = try #require(try await provider.flavors(in: "slurm").first { $0.name == "main/2c-3g" })
      let order = world.order(1, flavor)
      setenv("SCITQ_TEST_SECRET", "secret", 1)
      defer { unsetenv("SCITQ_TEST_SECRET") }
      let made = try await provider.deploy(order)
      #expect(made.key == order.key && made.state == .pending && !made.id.isEmpty)
      let again = try await provider.deploy(order)
      #expect(again.id == made.id && again.key == made.key)
      try await HostWorld.until("the worker joins") { cluster.homes(order).contains { world.joined($0) } }
      let home = try #require(cluster.homes(order).first)
      #expect(home.lastComponent?.string == "\(order.key)-\(made.id).0")
      #expect(world.contents(home.appending("joined")).contains("--store \(home)/store --name \(order.key)"))
      let environment = world.contents(home.appending("environment"))
      #expect(environment.contains("HOME=/") && environment.contains("PATH=/"))
      #expect(environment.contains("SLURM_JOB_ID=\(made.id)") && !environment.contains("SCITQ_TEST_SECRET"))
      let told = try #require(environment.firstMatch(of: /SLURM_JOB_END_TIME=([0-9]+)\n/)?.1).description
      let found = try #require(try await provider.instances(in: "slurm").first)
      #expect(found.id == made.id && found.state == .running && ["n1", "n2"].contains(found.address))
      let left = try #require(found.endsAt) / 1_000_000 - Int64(Date().timeIntervalSince1970)
      #expect((86_000...86_400).contains(left), "\(left)")
      #expect(Int64(told) == found.endsAt.map { $0 / 1_000_000 })
      let job = try await cluster.call("scontrol", "show", "job", made.id)
      #expect(job.contains("Requeue=1") && job.contains("NumCPUs=2") && job.contains("mem=4000M"))
      #expect(job.contains("Comment=scitq slurm main/2c-3g") && !job.contains("TICKET"))
      // Other servers' jobs, and jobs of people, are neither told nor touched.
      let others = cluster.provider(server: "te")
      let other = try await others.deploy(world.order(1, of: "te", small()))
      let plain = try await cluster.call(
        "sbatch", "--parsable", "--job-name", "scitq-test-x", "--mem", "100M", "--output", "/dev/null",
        "--wrap", "sleep 99")
      #expect(try await provider.instances(in: "slurm").map(\.id) == [made.id])
      #expect(try await others.instances(in: "slurm").map(\.id) == [other.id])
      #expect(await failure { try await others.terminate(made) }?.kind == .misconfigured)
      try await provider.terminate(made)
      try await HostWorld.until("it is gone") { try await provider.instances(in: "slurm").isEmpty }
      #expect(world.contents(FilePath(home.string + ".said")) == "asked\n")
      try await HostWorld.until("its folder is gone") { cluster.homes(order).isEmpty }
      #expect(!FileManager.default.fileExists(atPath: home.string + ".log"))
      try await provider.terminate(made)
      let states = try await cluster.call("squeue", "-h", "-o", "%i %T", "--states", "all")
      #expect(states.contains("\(other.id) RUNNING"))
      #expect(states.contains("\(plain.trimmingCharacters(in: .newlines)) RUNNING"))
    }
  }

  @Test("what waits is pending, what stands still is suspended, and what is started anew has another folder")
  func states() async throws {
    try await withCluster { world, cluster in
      let provider = cluster.provider()
      let held = world.order(1, small())
      let waiting = try await cluster.provider(options: ["--hold"]).deploy(held)
      #expect(try await cluster.state(held, provider) == .pending)
      try await provider.terminate(waiting)
      try await HostWorld.until("it is gone") { try await cluster.state(held, provider) == nil }

      let order = world.order(2, small())
      let made = try await provider.deploy(order)
      try await HostWorld.until("the worker joins") { cluster.homes(order).contains { world.joined($0) } }
      let running = try #require(try await provider.instances(in: "slurm").first)
      #expect(running.state == .running && running.endsAt != nil)
      try await cluster.call("scontrol", "suspend", made.id)
      #expect(try await cluster.state(order, provider) == .suspended)
      try await cluster.call("scontrol", "resume", made.id)
      #expect(try await cluster.state(order, provider) == .running)

      try await cluster.call("scontrol", "requeue", made.id)
      let again = try #require(cluster.homes(order).first).removingLastComponent()
        .appending("\(order.key)-\(made.id).1")
      // A job that was put back waits for two minutes at least, unless it is let go.
      try await HostWorld.until("it is put back") { try await cluster.state(order, provider) == .pending }
      try await cluster.call("scontrol", "update", "jobid=\(made.id)", "starttime=now")
      try await HostWorld.until("the worker joins again", seconds: 200) { world.joined(again) }
      let found = try await provider.instances(in: "slurm")
      #expect(found.map(\.id) == [made.id] && found.map(\.state) == [.running])
      try await provider.terminate(made)
    }
  }

  @Test("before its time is over a worker drains, and a worker that fails leaves its log")
  func ends() async throws {
    try await withCluster { world, cluster in
      let provider = cluster.provider()
      let order = world.order(1, small())
      let made = try await provider.deploy(order)
      try await HostWorld.until("the worker joins") { cluster.homes(order).contains { world.joined($0) } }
      let home = try #require(cluster.homes(order).first)
      // As Slurm does it 60 s before the end (--signal=B:USR1@60).
      try await cluster.call("scancel", "--batch", "--signal", "USR1", made.id)
      try await HostWorld.until("it is gone") { try await provider.instances(in: "slurm").isEmpty }
      #expect(world.contents(FilePath(home.string + ".said")) == "asked\n")
      #expect(try await cluster.call("scontrol", "show", "job", made.id).contains("JobState=COMPLETED"))
      #expect(cluster.homes(order).isEmpty && !FileManager.default.fileExists(atPath: home.string + ".log"))

      var failing = world.order(2, small())
      failing.boot.sha256 = String(repeating: "0", count: 64)
      let failed = try await provider.deploy(failing)
      try await HostWorld.until("it is gone") { try await provider.instances(in: "slurm").isEmpty }
      #expect(try await cluster.call("scontrol", "show", "job", failed.id).contains("JobState=FAILED"))
      #expect(world.progress.contains("failed the worker that was fetched is not the one"))
      #expect(cluster.homes(failing).isEmpty)
      let jobs = cluster.folder.appending("jobs")
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: jobs.string).contains(
          "\(failing.key)-\(failed.id).0.log"))
      // The name is free again: Slurm still tells of the job that is over.
      let next = try await provider.deploy(failing)
      #expect(next.id != failed.id)
      try await provider.terminate(next)
    }
  }

  @Test("what Slurm refuses has its class, and a controller that does not answer tells nothing of any job")
  func failures() async throws {
    try await withCluster { world, cluster in
      let provider = cluster.provider()
      func kind(
        _ provider: SlurmProvider, _ change: (inout Flavor) -> Void = { _ in }
      ) async -> ProviderError.Class? {
        var flavor = small()
        change(&flavor)
        let order = world.order(1, flavor)
        return await failure { _ = try await provider.deploy(order) }?.kind
      }
      #expect(await kind(provider) { $0.memory = 999 } == .unsupported)
      #expect(await kind(provider) { ($0.gpu, $0.gpuCount) = ("a100", 2) } == .unsupported)
      #expect(await kind(provider) { $0.name = "nowhere/1c-1g" } == .misconfigured)
      #expect(await kind(cluster.provider(options: ["--no-such-option"])) == .misconfigured)
      try await cluster.call("scontrol", "update", "partition=short", "state=inactive")
      let inactive = cluster.provider(["partition": "short"])
      #expect(await kind(inactive) { $0.name = "1c-0g" } == .capacity)
      #expect(try await provider.instances(in: "slurm").isEmpty)

      let order = world.order(2, small())
      let made = try await provider.deploy(order)
      try await cluster.script("down")
      for call in [
        { _ = try await provider.instances(in: "slurm") }, { _ = try await provider.deploy(order) },
        { try await provider.terminate(made) }, { _ = try await provider.flavors(in: "slurm") },
      ] as [() async throws -> Void] {
        let told = await failure(call)
        #expect(
          told?.kind == .transient && told?.message.contains("Unable to contact") == true, "\(told as Any)")
      }
      try await cluster.script("up")
      #expect(try await provider.instances(in: "slurm").map(\.id) == [made.id])
      #expect(try await provider.deploy(order).id == made.id)
      try await provider.terminate(made)
    }
  }

  @Test("garbage and silence are transient, and a quota is a quota")
  func clients() async throws {
    try await HostWorld.run { world in
      try FileManager.default.createDirectory(
        atPath: world.folder.appending("bin").string, withIntermediateDirectories: true)
      var provider = SlurmProvider(
        ProviderConfiguration(kind: .slurm, name: "slurm.lab", regions: ["slurm"]), server: "test",
        folder: "/tmp")
      provider.environment["PATH"] = "\(world.folder)/bin:/usr/bin:/bin"
      provider.deadline = .seconds(1)
      let asked = provider
      let order = world.order(1, small())
      for (squeue, sbatch, kind) in [
        ("echo what", "", ProviderError.Class.transient), ("exit 0", "echo what", .transient),
        ("sleep 600", "", .transient), ("exit 0", "sleep 600", .transient),
        (
          "exit 0",
          "echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' >&2; exit 1",
          .quota
        ),
        (
          "exit 0",
          "echo 'sbatch: error: Batch job submission failed: Protocol authentication error' >&2; exit 1",
          .credentials
        ),
      ] {
        _ = try world.program("bin/squeue", "#!/bin/sh\n\(squeue)\n")
        _ = try world.program("bin/sbatch", "#!/bin/sh\n\(sbatch)\n")
        #expect(await failure { _ = try await asked.deploy(order) }?.kind == kind, "\(squeue), \(sbatch)")
      }
      _ = try world.program(
        "bin/sinfo", "#!/bin/sh\necho 'gpu|64|256000|0|1-00:00:00|up|mix-|gpu:a100:4(S:0-1),shard:8'\n")
      let flavors = try await asked.flavors(in: "slurm")
      #expect(flavors.map(\.name) == ["gpu/64c-250g-4a100"])
      #expect(flavors.first?.gpu == "a100" && flavors.first?.gpuCount == 4)
    }
  }
}

@Suite("Words of Slurm")
struct SlurmWordsTests {
  @Test(
    "times are read as Slurm writes them",
    arguments: [
      ("90", 90), ("1:30", 1.5), ("2:00:00", 120), ("1-0", 1440), ("1-02:30", 1590), ("1-00:00:30", 1440.5),
      ("infinite", nil), ("n/a", nil), ("", nil),
    ] as [(String, Double?)])
  func times(_ text: String, _ minutes: Double?) {
    #expect(SlurmProvider.minutes(text) == minutes)
  }
}
