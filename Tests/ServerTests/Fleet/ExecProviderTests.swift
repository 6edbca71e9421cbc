import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

@Suite(
  "Hosts of a program of the operator's own", .serialized,
  .enabled(
    if: HostWorld.has("curl", "openssl", "python3", "setsid"), "needs curl, openssl, python3 and setsid"))
struct ExecProviderTests {
  private func provider(_ program: String, prices: [String: Double] = [:]) -> ExecProvider {
    var configuration = ProviderConfiguration(kind: .exec, name: "exec.ours", regions: ["here"])
    configuration.settings["program"] = program
    configuration.prices = prices
    return ExecProvider(configuration, server: "test", folder: "/tmp")
  }

  /// A program that notes the word and the question it is asked, and then does something.
  private func asked(_ world: HostWorld, _ body: String) throws -> ExecProvider {
    provider(try world.program("p\(UUID().uuidString)", "#!/bin/sh\ncat >\"$0.$1\"\n\(body)\n"))
  }

  private let flavor = Flavor(provider: "exec.ours", region: "here", name: "process", cpu: 1, memory: 1)

  @Test("the provider of the documentation works: flavors, hosts that boot, the same order once, an end")
  func example() async throws {
    try #require(HostWorld.has("jq"), "the example needs jq")
    try await HostWorld.run { world in
      let program = HostWorld.support.appending("../../../docs/example-provider.sh").lexicallyNormalized()
        .string
      var provider = provider(program)
      let hosts = world.folder.appending("example")
      provider.environment = ["SCITQ_EXAMPLE_HOSTS": hosts.string]
      let flavors = try await provider.flavors(in: "here")
      #expect(flavors.map(\.name) == ["process"] && flavors.allSatisfy { $0.memory > 0.5 && $0.price == 0 })
      let order = world.order(1, try #require(flavors.first))
      let made = try await provider.deploy(order)
      #expect(
        made == Instance(key: order.key, id: order.key, region: "here", state: .running, address: "127.0.0.1")
      )
      let home = hosts.appending(order.key)
      try await HostWorld.until("the worker joins") { world.joined(home) }
      let pid = world.contents(home.appending("pid"))
      #expect(try await provider.deploy(order) == made)
      #expect(world.contents(home.appending("pid")) == pid)
      // Another server's, by the same program: neither told nor touched.
      var others = ExecProvider(provider.configuration, server: "te", folder: "/tmp")
      others.environment = provider.environment
      let other = try await others.deploy(world.order(7, of: "te", order.flavor))
      #expect(try await provider.instances(in: "here") == [made])
      #expect(try await others.instances(in: "here") == [other])
      for number in 2...3 { _ = try await provider.deploy(world.order(number, order.flavor)) }
      let full = await failure { _ = try await provider.deploy(world.order(4, order.flavor)) }
      #expect(full?.kind == .capacity && full?.message.contains("four processes") == true)
      var unknown = order.flavor
      unknown.name = "big"
      let refused = await failure { [unknown] in _ = try await provider.deploy(world.order(5, unknown)) }
      #expect(refused?.kind == .unsupported)
      try await provider.terminate(made)
      #expect(world.contents(FilePath(home.string + ".said")) == "asked\n")
      #expect(!FileManager.default.fileExists(atPath: home.string))
      try await provider.terminate(made)
      #expect(try await provider.instances(in: "here").map(\.key) == ["scitq-test-2", "scitq-test-3"])
      for number in 2...3 {
        let key = "scitq-test-\(number)"
        try await provider.terminate(Instance(key: key, id: key, region: "here", state: .running))
      }
      #expect(try await others.instances(in: "here") == [other])
      try await others.terminate(other)
    }
  }

  @Test("a question goes in by standard input, and the ticket with it")
  func question() async throws {
    try await HostWorld.run { world in
      let provider = try asked(
        world,
        """
        printf '%s' "$*" >"$0.arguments"
        echo '{"instance": {"key": "scitq-test-8", "id": "i-8", "state": "pending", "ends_at": 1700000000}}'
        """)
      let order = world.order(8, flavor)
      let made = try await provider.deploy(order)
      #expect(made.id == "i-8" && made.state == .pending && made.endsAt == 1_700_000_000_000_000)
      let program = FilePath(provider.configuration.settings["program"] ?? "")
      #expect(world.contents(FilePath(program.string + ".arguments")) == "deploy")
      let question =
        try JSONSerialization.jsonObject(
          with: Data(world.contents(FilePath(program.string + ".deploy")).utf8)) as? [String: Any]
      #expect(question?["key"] as? String == order.key && question?["region"] as? String == "here")
      #expect(question?["boot"] as? String == order.boot.text)
      #expect((question?["pilot"] as? String)?.contains(#"FOLDER=''"$SCITQ_FOLDER"''"#) == true)
      #expect(question?["concurrency"] as? Int == 2 && question?["spot"] as? Bool == false)
    }
  }

  @Test("prices come from the program, else from the configuration; what has none is left out")
  func prices() async throws {
    try await HostWorld.run { world in
      let program = try world.program(
        "prices",
        """
        #!/bin/sh
        echo '{"flavors": [{"name": "a", "cpu": 4, "memory": 8, "price": 0.25, "spot": true, "eviction": 5},
          {"name": "b", "cpu": 8, "memory": 64, "gpu": "A100", "gpu_count": 2, "gpu_memory": 80, "disk": 100},
          {"name": "c", "cpu": 1, "memory": 1}]}'
        """)
      let flavors = try await provider(program, prices: ["b": 3]).flavors(in: "here")
      #expect(
        flavors == [
          Flavor(
            provider: "exec.ours", region: "here", name: "a", cpu: 4, memory: 8, isSpot: true, eviction: 5,
            price: 0.25),
          Flavor(
            provider: "exec.ours", region: "here", name: "b", cpu: 8, memory: 64, disk: 100, gpu: "A100",
            gpuCount: 2,
            gpuMemory: 80, price: 3),
        ])
    }
  }

  @Test("every class of failure is the program's to name", arguments: ProviderError.Class.allCases)
  func classes(_ kind: ProviderError.Class) async throws {
    try await HostWorld.run { world in
      let provider = try asked(
        world,
        #"echo '{"error": {"class": "\#(kind.rawValue)", "message": "so it is", "limit": 4}}'; exit 1"#
      )
      let told = await failure { _ = try await provider.deploy(world.order(1, flavor)) }
      #expect(told?.kind == kind && told?.message.hasSuffix("so it is") == true && told?.limit == 4)
    }
  }

  @Test(
    "garbage is transient, whatever the status",
    arguments: [
      "echo garbage", "echo '{}'", "echo '{\"instances\": 3}'", "true", "echo oops >&2; exit 3",
      "echo '{\"error\": {\"class\": \"new\", \"message\": \"m\"}}'; exit 1",
      "echo '{\"instances\": [{\"key\": \"scitq-test-1\", \"id\": \"i\", \"state\": \"odd\"}]}'",
    ])
  func garbage(_ body: String) async throws {
    try await HostWorld.run { world in
      let provider = try asked(world, body)
      let told = await failure { _ = try await provider.instances(in: "here") }
      #expect(told?.kind == .transient, "\(String(describing: told))")
    }
  }

  @Test("the host of another order is no answer, and a program that is not there is for a person to look at")
  func wrong() async throws {
    try await HostWorld.run { world in
      let provider = try asked(
        world, "echo '{\"instance\": {\"key\": \"scitq-test-9\", \"id\": \"i\", \"state\": \"running\"}}'")
      #expect(await failure { _ = try await provider.deploy(world.order(1, flavor)) }?.kind == .transient)
      let missing = self.provider(world.folder.appending("not-there").string)
      #expect(await failure { _ = try await missing.flavors(in: "here") }?.kind == .misconfigured)
    }
  }

  @Test("a program that never answers is ended, with all that it started")
  func silent() async throws {
    try await HostWorld.run { world in
      var provider = try asked(world, "sleep 4321.5 & echo $! >\"$0.pid\"; wait")
      provider.deadline = .seconds(1)
      let told = await failure { [provider] in _ = try await provider.instances(in: "here") }
      #expect(told?.kind == .transient && told?.message.contains("did not end") == true)
      let pid = world.contents(FilePath((provider.configuration.settings["program"] ?? "") + ".pid"))
      let number = try #require(pid_t(pid.trimmingCharacters(in: .newlines)))
      try await HostWorld.until("it ends", seconds: 5) {
        let stat = try? String(contentsOfFile: "/proc/\(number)/stat", encoding: .utf8)
        return stat == nil || stat?.contains(") Z ") == true
      }
    }
  }
}
