import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// On three real sshd, each in a mount namespace of its own, so that the folder is another one for each.
@Suite(
  "Machines reached by ssh", .serialized,
  .enabled(
    if: getuid() == 0
      && HostWorld.has("ssh", "sshd", "ssh-keygen", "unshare", "taskset", "curl", "openssl", "python3"),
    "needs root, openssh-server, util-linux, curl, openssl and python3"))
struct SSHProviderTests {
  private func withMachines(
    stubborn: Bool = false, _ body: (HostWorld, Machines) async throws -> Void
  ) async throws {
    try await HostWorld.run(stubborn: stubborn) { world in
      let machines = try await Machines(world)
      do { try await body(world, machines) } catch {
        await machines.end()
        throw error
      }
      await machines.end()
    }
  }

  private final class Machines {
    let world: HostWorld
    /// As the provider is told of them.
    private(set) var hosts: [String] = []
    private var servers: [Background] = []
    private let ssh: FilePath
    /// What the machines know as the folder.
    let folder: FilePath

    init(_ world: HostWorld) async throws {
      self.world = world
      ssh = world.folder.appending("ssh")
      folder = world.folder.appending("var/it's here")
      try FileManager.default.createDirectory(atPath: ssh.string, withIntermediateDirectories: true)
      try await HostWorld.call(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh.appending("key").string)
      try await HostWorld.call(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh.appending("wrong").string)
      for index in 0..<3 {
        // Below the ports that the system hands out to others meanwhile.
        hosts.append("root@127.0.0.1:\(Int.random(in: 10_000..<32_000))")
        servers.append(try await start(index))
      }
      for index in 0..<3 { try await answers(index) }
    }

    /// Where the parent of a machine's folder really is.
    private func disk(_ index: Int) -> FilePath { ssh.appending("disk\(index)") }

    /// Where a machine's folder really is.
    func home(_ index: Int) -> FilePath { disk(index).appending(folder.lastComponent?.string ?? "") }

    func start(_ index: Int) async throws -> Background {
      let port = SSHProvider.parts(of: hosts[index]).port ?? ""
      // The third machine is smaller.
      let cpus = index == 2 ? "0" : "0-\(ProcessInfo.processInfo.processorCount - 1)"
      return try await Background(
        "sh",
        [
          HostWorld.support.appending("ssh_machine.sh").string, ssh.string, "\(index)",
          folder.removingLastComponent().string, "127.0.0.1", port, cpus,
        ], in: ssh)
    }

    func answers(_ index: Int) async throws {
      let alone = provider(hosts: [hosts[index]])
      try await HostWorld.until("machine \(index) answers") {
        await failure { _ = try await alone.instances(in: "ssh") } == nil
      }
    }

    func stop(_ index: Int) async { await servers[index].stop() }

    func startAgain(_ index: Int) async throws {
      servers[index] = try await start(index)
      try await answers(index)
    }

    /// Takes connections, and says nothing.
    func freeze(_ index: Int) { kill(servers[index].process.number, SIGSTOP) }
    func thaw(_ index: Int) { kill(servers[index].process.number, SIGCONT) }

    func end() async {
      for index in servers.indices {
        thaw(index)
        await stop(index)
      }
      // What was left running on them works in their folders.
      for number in (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap({ pid_t($0) })
        ?? []
      {
        let place = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(number)/cwd")
        if place?.hasPrefix(world.folder.string) == true { kill(number, SIGKILL) }
      }
    }

    func provider(
      server: String = "test", hosts: [String]? = nil, key: String = "key", options: [String] = [],
      flavors: [Flavor] = []
    ) -> SSHProvider {
      var configuration = ProviderConfiguration(kind: .ssh, name: "ssh.lab", regions: ["ssh"])
      configuration.settings = ["folder": folder.string, "identity_file": ssh.appending(key).string]
      configuration.lists["hosts"] = hosts ?? self.hosts
      configuration.lists["options"] =
        options + [
          "StrictHostKeyChecking=accept-new", "UserKnownHostsFile=\(ssh.appending("known"))",
          "IdentitiesOnly=yes",
          "IdentityAgent=none",
        ]
      configuration.flavors = flavors
      var provider = SSHProvider(
        configuration, server: server, folder: world.folder.appending("notes-\(server)"))
      provider.connectTimeout = 3
      return provider
    }

    func process(_ index: Int, _ file: String) -> pid_t? {
      pid_t(world.contents(home(index).appending(file)).trimmingCharacters(in: .newlines))
    }
  }

  private let any = Flavor(provider: "ssh.lab", region: "ssh", name: "any", cpu: 1, memory: 1)

  private func runs(_ number: pid_t) -> Bool {
    let stat = try? String(contentsOfFile: "/proc/\(number)/stat", encoding: .utf8)
    return stat.map { !$0.contains(") Z ") } ?? false
  }

  @Test("machines say what they have, and a flavor is had only on one that has it")
  func flavors() async throws {
    try await withMachines { world, machines in
      let provider = machines.provider()
      let flavors = try await provider.flavors(in: "ssh")
      let cpus = ProcessInfo.processInfo.processorCount
      try #require(cpus > 1)
      #expect(flavors.map(\.cpu) == [1, Double(cpus)] && flavors.allSatisfy { $0.price == 0 && $0.disk > 0 })
      let memory = Double(ProcessInfo.processInfo.physicalMemory) / Double(1 << 30)
      #expect(flavors.allSatisfy { abs($0.memory - memory) < 0.5 })
      let small = try #require(flavors.first)
      let made = try await provider.deploy(world.order(1, small))
      #expect(made.id == machines.hosts[2])
      let next = await failure { _ = try await provider.deploy(world.order(2, small)) }
      #expect(next?.kind == .capacity, "\(String(describing: next))")
      try await provider.terminate(made)
    }
  }

  @Test("three orders take three machines, a fourth finds none, and what is ended frees one")
  func life() async throws {
    try await withMachines { world, machines in
      let provider = machines.provider(flavors: [any])
      #expect(try await provider.flavors(in: "ssh") == [any])
      var made: [Instance] = []
      for number in 1...3 { made.append(try await provider.deploy(world.order(number, any))) }
      #expect(made.map(\.id) == machines.hosts && made.allSatisfy { $0.address == "127.0.0.1" })
      for index in 0..<3 {
        try await HostWorld.until("the worker joins") { world.joined(machines.home(index)) }
        let joined = world.contents(machines.home(index).appending("joined"))
        #expect(joined.contains("--store \(machines.folder)/store --name scitq-test-\(index + 1) "))
        let mode =
          try FileManager.default.attributesOfItem(
            atPath: machines.home(index).appending("boot.sh").string)[.posixPermissions] as? Int
        #expect(mode == 0o600)
      }
      #expect(await failure { _ = try await provider.deploy(world.order(4, any)) }?.kind == .capacity)
      try await HostWorld.until("they have booted") {
        try await provider.instances(in: "ssh").allSatisfy { $0.state == .running }
      }
      // The same order again: the same machine, and the same worker. A server without its notes finds it as
      // well.
      let worker = try #require(machines.process(1, "worker.pid"))
      #expect(try await provider.deploy(world.order(2, any)) == made[1])
      try FileManager.default.removeItem(atPath: world.folder.appending("notes-test").string)
      #expect(try await provider.deploy(world.order(2, any)) == made[1])
      #expect(machines.process(1, "worker.pid") == worker && runs(worker))
      #expect(try await provider.instances(in: "ssh") == made)
      #expect(try await provider.instances(in: "elsewhere").isEmpty)
      // Another server sees none of them, and cannot end one.
      let others = machines.provider(server: "te", flavors: [any])
      #expect(try await others.instances(in: "ssh").isEmpty)
      #expect(await failure { _ = try await others.deploy(world.order(1, of: "te", any)) }?.kind == .capacity)
      try await others.terminate(
        Instance(key: "scitq-te-1", id: machines.hosts[1], region: "ssh", state: .running))
      #expect(runs(worker))

      try await provider.terminate(made[1])
      #expect(!runs(worker) && !FileManager.default.fileExists(atPath: machines.home(1).string))
      #expect(world.contents(FilePath(machines.home(1).string + ".said")) == "asked\n")
      try await provider.terminate(made[1])
      #expect(try await provider.instances(in: "ssh") == [made[0], made[2]])
      let other = try await others.deploy(world.order(1, of: "te", any))
      #expect(other.id == machines.hosts[1])
      #expect(try await provider.instances(in: "ssh") == [made[0], made[2]])
      for instance in [made[0], made[2]] { try await provider.terminate(instance) }
      try await others.terminate(other)
    }
  }

  @Test("one machine is taken by one of two servers that want it at once")
  func race() async throws {
    try await withMachines { world, machines in
      let first = machines.provider(hosts: [machines.hosts[0]], flavors: [any])
      let second = machines.provider(server: "te", hosts: [machines.hosts[0]], flavors: [any])
      async let one = try? first.deploy(world.order(1, any))
      async let two = try? second.deploy(world.order(1, of: "te", any))
      let taken = await [one, two].compactMap { $0 }
      #expect(taken.count == 1)
      let seen = try await first.instances(in: "ssh") + second.instances(in: "ssh")
      #expect(seen.map(\.key) == taken.map(\.key))
    }
  }

  @Test("a folder with something else in it is not taken")
  func foreign() async throws {
    try await withMachines { world, machines in
      let file = machines.home(0).appending("thesis.tex").string
      try FileManager.default.createDirectory(
        atPath: machines.home(0).string, withIntermediateDirectories: true)
      try "x".write(toFile: file, atomically: true, encoding: .utf8)
      let provider = machines.provider(hosts: [machines.hosts[0]], flavors: [any])
      #expect(await failure { _ = try await provider.deploy(world.order(1, any)) }?.kind == .capacity)
      let made = Instance(key: "scitq-test-1", id: machines.hosts[0], region: "ssh", state: .running)
      try await provider.terminate(made)
      #expect(FileManager.default.fileExists(atPath: file))
    }
  }

  @Test("who takes no notice is killed after 10 s, with what its tasks run")
  func stubborn() async throws {
    try await withMachines(stubborn: true) { world, machines in
      let provider = machines.provider(flavors: [any])
      let made = try await provider.deploy(world.order(1, any))
      try await HostWorld.until("the worker joins") { world.joined(machines.home(0)) }
      let worker = try #require(machines.process(0, "worker.pid"))
      let supervisor = try world.program("supervisor", "#!/bin/sh\nsleep 1234.5 &\nwait\n")
      try await HostWorld.call(
        "setsid", "--fork", "sh", "-c", "exec \(supervisor) --store \"$0/store\" >/dev/null 2>&1",
        machines.folder.string)
      var tree: [pid_t] = []
      try await HostWorld.until("the task runs") {
        tree = HostProcess.tree(naming: "\(machines.folder)/store").filter { $0 != worker }
        return tree.count >= 2
      }
      let began = ContinuousClock.now
      try await provider.terminate(made)
      #expect(ContinuousClock.now - began >= .seconds(9))
      #expect(!runs(worker) && !FileManager.default.fileExists(atPath: machines.home(0).string))
      try await HostWorld.until("all of it is gone", seconds: 5) { !tree.contains { runs($0) } }
    }
  }

  @Test("of a machine that cannot be reached nothing is told, and no order is made twice for it")
  func unreachable() async throws {
    try await withMachines { world, machines in
      let provider = machines.provider(flavors: [any])
      let order = world.order(1, any)
      let made = try await provider.deploy(order)
      await machines.stop(0)
      for call in [
        { _ = try await provider.deploy(order) }, { try await provider.terminate(made) },
      ] as [() async throws -> Void] {
        let told = await failure(call)
        #expect(
          told?.kind == .transient && told?.message.contains("127.0.0.1") == true,
          "\(String(describing: told))")
      }
      // What is noted as taken there counts as there still, unlike what was only tried.
      #expect(try await provider.instances(in: "ssh") == [made])
      try "\(machines.hosts[0])".write(
        toFile: world.folder.appending("notes-test/scitq-test-9.host").string, atomically: true,
        encoding: .utf8)
      #expect(try await provider.instances(in: "ssh") == [made])
      #expect(try await provider.instances(in: "elsewhere").isEmpty)
      // Other orders do without it.
      let second = try await provider.deploy(world.order(2, any))
      #expect(second.id == machines.hosts[1])
      try await machines.startAgain(0)
      #expect(try await provider.deploy(order) == made)
      try await HostWorld.until("they have booted") {
        try await provider.instances(in: "ssh").allSatisfy { $0.state == .running }
      }
      #expect(try await provider.instances(in: "ssh") == [made, second])

      // It takes connections and says nothing: that ends by itself.
      machines.freeze(0)
      let began = ContinuousClock.now
      #expect(try await provider.instances(in: "ssh") == [made, second])
      #expect(ContinuousClock.now - began < .seconds(30))
      // Where none answers, nothing is told.
      let alone = machines.provider(hosts: [machines.hosts[0]], flavors: [any])
      let told = await failure { _ = try await alone.instances(in: "ssh") }
      #expect(told?.kind == .transient, "\(String(describing: told))")
      machines.thaw(0)
      try await provider.terminate(made)
      try await provider.terminate(second)
    }
  }

  @Test("who is not let in, whose key is another, and what cannot be written have their classes")
  func failures() async throws {
    try await withMachines { world, machines in
      let wrong = machines.provider(key: "wrong", flavors: [any])
      let told = await failure { _ = try await wrong.deploy(world.order(1, any)) }
      #expect(told?.kind == .credentials, "\(String(describing: told))")
      #expect(await failure { _ = try await wrong.instances(in: "ssh") }?.kind == .credentials)
      let strangers = machines.provider(
        options: ["StrictHostKeyChecking=yes", "UserKnownHostsFile=/dev/null"], flavors: [any])
      #expect(await failure { _ = try await strangers.instances(in: "ssh") }?.kind == .misconfigured)
      let odd = machines.provider(options: ["NoSuchOption=1"], flavors: [any])
      #expect(await failure { _ = try await odd.instances(in: "ssh") }?.kind == .misconfigured)
      let option = machines.provider(hosts: ["-oProxyCommand=x"], flavors: [any])
      #expect(await failure { _ = try await option.instances(in: "ssh") }?.kind == .misconfigured)
      var file = machines.provider(flavors: [any]).configuration
      file.settings["folder"] = "/proc/version/x"
      let unwritable = SSHProvider(file, server: "test", folder: world.folder.appending("notes"))
      #expect(await failure { _ = try await unwritable.deploy(world.order(1, any)) }?.kind == .misconfigured)
    }
  }

  @Test("garbage and silence are transient")
  func clients() async throws {
    try await HostWorld.run { world in
      var configuration = ProviderConfiguration(kind: .ssh, name: "ssh.lab", regions: ["ssh"])
      configuration.lists["hosts"] = ["one"]
      configuration.flavors = [any]
      var provider = SSHProvider(configuration, server: "test", folder: world.folder)
      try FileManager.default.createDirectory(
        atPath: world.folder.appending("bin").string, withIntermediateDirectories: true)
      provider.environment["PATH"] = "\(world.folder)/bin:/usr/bin:/bin"
      provider.deadline = .seconds(1)
      let asked = provider
      for body in [
        "echo garbage", "sleep 600", "echo 'Welcome!'; echo scitq cpus many; echo scitq end", "exit 255",
      ] {
        _ = try world.program("bin/ssh", "#!/bin/sh\n\(body)\n")
        for call in [
          { _ = try await asked.instances(in: "ssh") }, { _ = try await asked.deploy(world.order(1, any)) },
        ] as [() async throws -> Void] {
          #expect(await failure(call)?.kind == .transient, "\(body)")
        }
      }
    }
  }
}

@Suite("Names of machines")
struct SSHNamesTests {
  @Test(
    "names of machines are read as people write them",
    arguments: [
      ("ada", nil, "ada", nil), ("w@ada:22", "w", "ada", "22"), ("[::1]:22", nil, "::1", "22"),
      ("w@[fe80::1]", "w", "fe80::1", nil), ("fe80::1", nil, "fe80::1", nil),
      ("ada:2222", nil, "ada", "2222"),
    ] as [(String, String?, String, String?)])
  func names(_ text: String, _ user: String?, _ name: String, _ port: String?) {
    let parts = SSHProvider.parts(of: text)
    #expect(parts.user == user && parts.name == name && parts.port == port)
  }
}
