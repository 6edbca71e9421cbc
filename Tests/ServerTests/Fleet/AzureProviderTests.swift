import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

@Suite("Machines of Azure", .serialized)
struct AzureProviderTests {
  static let hasClient = ["az", "python3", "openssl"].allSatisfy { CloudService.program($0) != nil }
  private static let missing: Comment = "az, python3 or openssl is not on PATH"

  @Test("a machine is made, listed and deleted, and nothing is left of it", .enabled(if: hasClient, missing))
  func life() async throws {
    try await Self.world { cloud, provider in
      let order = InstanceOrder.test("scitq-mine-1", "Standard_D2s_v5", region: "westeurope", isSpot: true)
      let made = try await provider.deploy(order)
      #expect(made.key == "scitq-mine-1" && made.address.hasPrefix("192.0.2.") && made.state == .running)
      let machine = try #require(try Self.parts(cloud).first { $0.isMachine })
      #expect(machine.tags == ["scitq-order": "scitq-mine-1", "scitq-server": "mine"])
      #expect(machine.properties.priority == "Spot" && machine.properties.evictionPolicy == "Delete")
      let data = try #require(machine.properties.osProfile?.customData.flatMap { Data(base64Encoded: $0) })
      #expect(String(decoding: data, as: UTF8.self).contains("the-ticket"))
      #expect(try Self.files(cloud).isEmpty)
      // The same order again.
      #expect(try await provider.deploy(order).id == made.id)
      #expect(try Self.parts(cloud).count { $0.isMachine } == 1)
      #expect(try cloud.requests("PUT ") == 1)
      #expect(try await provider.instances(in: "westeurope").map(\.key) == ["scitq-mine-1"])
      #expect(try await provider.instances(in: "northeurope").isEmpty)
      try await provider.terminate(made)
      #expect(try Self.parts(cloud).map(\.type) == ["Microsoft.Network/virtualNetworks"])
      #expect(try await provider.instances(in: "westeurope").isEmpty)
      try await provider.terminate(made)
    }
  }

  @Test("with a subnet a machine has no address of its own", .enabled(if: hasClient, missing))
  func subnet() async throws {
    try await Self.world { cloud, provider in
      _ = try await provider.deploy(.test("scitq-mine-1", "Standard_D2s_v5", region: "westeurope"))
      let network = try #require(try Self.parts(cloud).first { $0.type.hasSuffix("/virtualNetworks") })
      let inside = try Self.provider(
        cloud, settings: ["subnet": network.id + "/subnets/workers", "disk_gb": "100"])
      let made = try await inside.deploy(.test("scitq-mine-2", "Standard_D2s_v5", region: "westeurope"))
      #expect(made.address.hasPrefix("10.0.0."))
      #expect(try Self.parts(cloud).count { $0.type.hasSuffix("/publicIPAddresses") } == 1)
      // On demand, unless the flavor is spot.
      #expect(try Self.parts(cloud).filter { $0.isMachine }.allSatisfy { $0.properties.priority == nil })
    }
  }

  @Test("another's machine is not seen, and not deleted", .enabled(if: hasClient, missing))
  func others() async throws {
    try await Self.world { cloud, provider in
      let elsewhere = try Self.provider(cloud, server: "mine-b")
      let foreign = try await elsewhere.deploy(
        .test("scitq-mine-b-1", "Standard_D2s_v5", region: "westeurope"))
      let named = await provider.client.run([
        "vm", "create", "--name", "scitq-mine-7", "--resource-group", "workers", "--location", "westeurope",
        "--image",
        "Debian:debian-12:12:latest", "--size", "Standard_D2s_v5", "--generate-ssh-keys", "--admin-username",
        "other",
        "--nsg", "", "-o", "json",
      ])
      #expect(named.isSuccess, "\(named.error)")
      let before = try Self.parts(cloud).count
      #expect(try await provider.instances(in: "westeurope").isEmpty)
      let taken = Instance(key: "scitq-mine-7", id: "any", region: "westeurope", state: .running)
      for instance in [foreign, taken] {
        let error = try await failure { () throws(ProviderError) in try await provider.terminate(instance) }
        #expect(error.kind == .misconfigured, "\(error)")
      }
      #expect(try Self.parts(cloud).count == before)
    }
  }

  @Test("sizes come with prices of their market", .enabled(if: hasClient, missing))
  func flavors() async throws {
    try await Self.world { cloud, provider in
      let spot = try await provider.flavors(in: "westeurope")
      // Not one of another processor, nor one that the account may not have, nor one without a price.
      #expect(spot.map(\.name) == ["Standard_D2s_v5", "Standard_NC8as_T4_v3", "Standard_L8s_v3"])
      #expect(
        spot.allSatisfy { $0.isSpot && $0.eviction == 5 && $0.provider == "azure.some" && $0.disk == 30 })
      #expect(spot.map(\.price) == [0.023, 0.25, 0.15])
      #expect(spot[0].cpu == 2 && spot[0].memory == 8)
      #expect(spot[1].gpu == "NCASv3_T4" && spot[1].gpuCount == 2)
      #expect(spot[2].hasQuickDisks && !spot[0].hasQuickDisks)
      let both = try await Self.provider(
        cloud, settings: ["market": "both", "spot_eviction": "9"], families: ["DSv5", "B"]
      )
      .flavors(in: "westeurope")
      #expect(
        both.map { "\($0.name) \($0.isSpot) \($0.eviction) \($0.price)" } == [
          "Standard_D2s_v5 false 0.0 0.115", "Standard_D2s_v5 true 9.0 0.023", "Standard_B2s false 0.0 0.048",
        ])
      // Without the list of prices, those that were configured.
      let port = try cloud.text("port")
      let own = try await Self.provider(
        cloud, settings: ["prices_url": "https://127.0.0.1:\(port)/nowhere"], prices: ["Standard_D8s_v5": 0.4]
      ).flavors(in: "westeurope")
      #expect(own.map(\.name) == ["Standard_D8s_v5"] && own[0].price == 0.4)
    }
  }

  @Test("a refusal has its class, and leaves nothing", .enabled(if: hasClient, missing))
  func refusals() async throws {
    try await Self.world { cloud, provider in
      func refused(_ flavor: String, _ provider: AzureProvider) async throws -> ProviderError {
        let order = InstanceOrder.test("scitq-mine-8", flavor, region: "westeurope", isSpot: true)
        return try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
      }
      let capacity = try await refused("Standard_D8s_v5", provider)
      #expect(capacity.kind == .capacity && capacity.message.contains("(SkuNotAvailable)"), "\(capacity)")
      #expect(try await refused("Standard_Nope", provider).kind == .unsupported)
      let group = try await refused(
        "Standard_D2s_v5", Self.provider(cloud, settings: ["resource_group": "nope"]))
      #expect(group.kind == .misconfigured && group.message.contains("(ResourceGroupNotFound)"), "\(group)")
      try cloud.behave("quota")
      let quota = try await refused("Standard_D2s_v5", provider)
      #expect(quota.kind == .quota && quota.message.contains("LowPriorityCores"), "\(quota)")
      // Its machine fails after its parts were made.
      try cloud.behave("stuck")
      let stuck = try await refused("Standard_D2s_v5", provider)
      #expect(stuck.kind == .capacity && stuck.message.contains("AllocationFailed"), "\(stuck)")
      #expect(try Self.parts(cloud).allSatisfy { $0.type.hasSuffix("/virtualNetworks") })
      try cloud.behave("refused")
      #expect(try await refused("Standard_D2s_v5", provider).kind == .credentials)
      try cloud.behave("garbage")
      #expect(try await refused("Standard_D2s_v5", provider).kind == .transient)
      #expect(try Self.files(cloud).isEmpty)
    }
  }

  @Test("parts without a machine are told of, and deleted", .enabled(if: hasClient, missing))
  func orphans() async throws {
    try await Self.world { cloud, provider in
      let made = try await provider.deploy(.test("scitq-mine-3", "Standard_D2s_v5", region: "westeurope"))
      let deleted = await provider.client.run([
        "vm", "delete", "--resource-group", "workers", "--name", made.key, "--yes",
      ])
      #expect(deleted.isSuccess, "\(deleted.error)")
      let left = try await provider.instances(in: "westeurope")
      #expect(left.map(\.key) == ["scitq-mine-3"] && left.map(\.state) == [.pending])
      for instance in left { try await provider.terminate(instance) }
      #expect(try await provider.instances(in: "westeurope").isEmpty)
      #expect(try Self.parts(cloud).count == 1)
    }
  }

  @Test("a machine that failed is deleted before its order is tried again", .enabled(if: hasClient, missing))
  func failed() async throws {
    try await Self.world { cloud, provider in
      try cloud.behave("stuck")
      var impatient = provider
      // It gives up waiting; what the service does with it is open.
      impatient.longDeadline = .milliseconds(1)
      let order = InstanceOrder.test("scitq-mine-4", "Standard_D2s_v5", region: "westeurope")
      let open = try await failure { () throws(ProviderError) in _ = try await impatient.deploy(order) }
      #expect(open.kind == .transient, "\(open)")
      let made = await provider.client.run([
        "vm", "create", "--name", order.key, "--resource-group", "workers", "--location", "westeurope",
        "--image",
        "Debian:debian-12:12:latest", "--size", "Standard_D2s_v5", "--generate-ssh-keys", "--admin-username",
        "other",
        "--nsg", "", "--tags", "scitq-order=\(order.key)", "scitq-server=mine", "-o", "json",
      ])
      #expect(!made.isSuccess)
      #expect(try await provider.instances(in: "westeurope").map(\.state) == [.pending])
      try cloud.behave("")
      let again = try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
      #expect(again.kind == .transient && again.message.contains("came to nothing"), "\(again)")
      #expect(try await provider.deploy(order).state == .running)
    }
  }

  @Test("a service that never answers is not waited for", .enabled(if: hasClient, missing))
  func silence() async throws {
    try await Self.world { cloud, provider in
      try cloud.behave("silent")
      var provider = provider
      provider.deadline = .seconds(3)
      let began = ContinuousClock.now
      let error = try await failure { () throws(ProviderError) in
        _ = try await provider.instances(in: "westeurope")
      }
      #expect(error.kind == .transient && error.message.contains("did not end within"), "\(error)")
      #expect(ContinuousClock.now - began < .seconds(20))
    }
  }

  @Test("nobody who has logged in is told as credentials", .enabled(if: hasClient, missing))
  func stranger() async throws {
    let folder = try CloudService.folder()
    defer { try? FileManager.default.removeItem(at: folder) }
    var provider = AzureProvider(Self.configuration(), server: "mine", folder: FilePath(folder.path))
    provider.client.environment = ["AZURE_CONFIG_DIR": folder.path, "HOME": folder.path]
    let error = try await failure { () throws(ProviderError) in
      _ = try await provider.instances(in: "westeurope")
    }
    #expect(error.kind == .credentials && error.message.contains("az login"), "\(error)")
  }

  @Test("a client that prints what it likes, or is not there, is told of")
  func rogue() async throws {
    let rogue = try RogueClient("printf '[{\"name\": 7'")
    defer { rogue.remove() }
    var provider = AzureProvider(Self.configuration(), server: "mine", folder: FilePath(rogue.folder.path))
    provider.client = ClientProgram(program: rogue.program)
    let garbage = try await failure { () throws(ProviderError) in _ = try await provider.instances(in: "x") }
    #expect(garbage.kind == .transient && garbage.message.contains("cannot be understood"), "\(garbage)")
    provider.client = ClientProgram(program: rogue.program + ".missing")
    let missing = try await failure { () throws(ProviderError) in _ = try await provider.instances(in: "x") }
    #expect(missing.kind == .misconfigured, "\(missing)")
  }

  @Test("the ticket is in a file of this user alone, and not in an argument")
  func secret() async throws {
    let rogue = try RogueClient(
      """
      here=$(dirname "$0")
      echo "$@" >>"$here/calls"
      case "$*" in
        *'resource list'*) echo '[]'; exit 0 ;;
        *'vm show'*) echo 'ERROR: (ResourceNotFound) The Resource was not found.' >&2; exit 3 ;;
      esac
      for word; do case $word in */handed/boot-*) stat -c %a "$word" >>"$here/rights"; esac; done
      echo 'ERROR: (OperationNotAllowed) Operation could not be completed: exceeding approved Cores quota.' >&2
      exit 1
      """)
    defer { rogue.remove() }
    let folder = rogue.folder.appending(path: "handed")
    var provider = AzureProvider(Self.configuration(), server: "mine", folder: FilePath(folder.path))
    provider.client = ClientProgram(program: rogue.program)
    let order = InstanceOrder.test("scitq-mine-1", "Standard_D2s_v5", region: "westeurope", isSpot: true)
    let error = try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
    #expect(error.kind == .quota, "\(error)")
    #expect(try String(contentsOf: rogue.folder.appending(path: "rights"), encoding: .utf8) == "600\n")
    let calls = try String(contentsOf: rogue.folder.appending(path: "calls"), encoding: .utf8)
    #expect(!calls.contains("the-ticket"), "\(calls)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
  }

  @Test("the codes of the service have their classes")
  func codes() {
    let known: [(String, ProviderError.Class?)] = [
      ("ERROR: (OverconstrainedAllocationRequest) Allocation failed.", .capacity),
      ("ERROR: (ZonalAllocationFailed) Allocation failed.", .capacity),
      (
        "ERROR: (OperationNotAllowed) Operation could not be completed: exceeding approved Cores quota.",
        .quota
      ),
      ("ERROR: AADSTS7000215: Invalid client secret provided.", .credentials),
      ("ERROR: (AuthorizationFailed) The client does not have authorization.", .credentials),
      ("ERROR: (InvalidParameter) The value X provided for the VM size is not valid.", .unsupported),
      ("ERROR: (SubscriptionNotFound) The subscription could not be found.", .misconfigured),
      ("ERROR: (OperationNotAllowed) The machine is being deleted.", nil),
      ("ERROR: Connection aborted.", nil),
    ]
    for (text, kind) in known { #expect(AzureProvider.classify(text) == kind, "\(text)") }
  }

  // MARK: - The world

  private struct Part: Decodable {
    struct Properties: Decodable {
      struct Profile: Decodable {
        var customData: String?
      }

      var priority: String?
      var evictionPolicy: String?
      var osProfile: Profile?
    }

    var id: String
    var type: String
    var tags: [String: String]?
    var properties: Properties

    var isMachine: Bool { type == "Microsoft.Compute/virtualMachines" }
  }

  private static func parts(_ cloud: CloudService) throws -> [Part] {
    try cloud.rows("resources.json", as: Part.self)
  }

  private static func files(_ cloud: CloudService) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: cloud.folder.appending(path: "handed").path)
  }

  private static func configuration(_ settings: [String: String] = [:]) -> ProviderConfiguration {
    var configuration = ProviderConfiguration(kind: .azure, name: "azure.some", regions: ["westeurope"])
    configuration.settings = ["resource_group": "workers", "image": "Debian:debian-12:12:latest"]
    configuration.settings.merge(settings) { $1 }
    return configuration
  }

  private static func provider(
    _ cloud: CloudService, server: String = "mine", settings: [String: String] = [:], families: [String] = [],
    prices: [String: Double] = [:]
  ) throws -> AzureProvider {
    var configuration = configuration(
      ["prices_url": "https://127.0.0.1:\(try cloud.text("port"))/prices"].merging(settings) { $1 })
    configuration.lists = ["families": families]
    configuration.prices = prices
    var provider = AzureProvider(
      configuration, server: server, folder: FilePath(cloud.folder.appending(path: "handed").path))
    let tokens = "http://127.0.0.1:\(try cloud.text("tokens"))/token"
    provider.client.environment = [
      "AZURE_CONFIG_DIR": cloud.folder.appending(path: "config").path, "HOME": cloud.folder.path,
      "REQUESTS_CA_BUNDLE": cloud.folder.appending(path: "authority.pem").path, "IDENTITY_ENDPOINT": tokens,
      "IDENTITY_HEADER": "x", "AZURE_CORE_COLLECT_TELEMETRY": "no", "no_proxy": "127.0.0.1",
      "AZURE_CORE_DISPLAY_REGION_IDENTIFIED": "no",
    ]
    return provider
  }

  private static func world(_ body: (CloudService, AzureProvider) async throws -> Void) async throws {
    try await CloudService.with("azure_standin.py") { cloud in
      let provider = try provider(cloud)
      let endpoint = "https://127.0.0.1:\(try cloud.text("port"))"
      for arguments in [
        ["cloud", "register", "-n", "standin", "--endpoint-resource-manager", endpoint],
        ["cloud", "set", "-n", "standin"],
        ["login", "--identity"],
      ] {
        let answer = await provider.client.run(arguments)
        try #require(answer.isSuccess, "\(arguments): \(answer.error)")
      }
      try await body(cloud, provider)
    }
  }
}
