import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

@Suite("Servers of OpenStack", .serialized)
struct OpenStackProviderTests {
  static let hasClient = CloudService.program("openstack") != nil && CloudService.program("python3") != nil
  private static let missing: Comment = "openstack or python3 is not on PATH"

  @Test("a server is made, listed with its address and deleted", .enabled(if: hasClient, missing))
  func life() async throws {
    try await Self.world { cloud, provider in
      let made = try await provider.deploy(.test("scitq-mine-1", "b2-7", region: "north"))
      #expect(made.key == "scitq-mine-1" && made.region == "north" && made.state == .running)
      #expect(made.address.hasPrefix("10.0.0."))
      let row = try #require(try cloud.rows("servers.json", as: Row.self).first)
      #expect(row.user_data.contains("the-ticket") && row.user_data.hasPrefix("#!/bin/sh"))
      #expect(row.metadata == ["scitq-order": "scitq-mine-1", "scitq-server": "mine"])
      #expect(row.key_name == "gate" && row.security_groups.map(\.name) == ["inside"])
      // The file with the ticket is gone.
      #expect(try Self.files(cloud).isEmpty)
      #expect(try await provider.instances(in: "north") == [made])
      try await provider.terminate(made)
      #expect(try await provider.instances(in: "north").isEmpty)
      // What is gone is gone.
      try await provider.terminate(made)
    }
  }

  @Test("the same order twice makes one server", .enabled(if: hasClient, missing))
  func twice() async throws {
    try await Self.world { cloud, provider in
      let order = InstanceOrder.test("scitq-mine-2", "b2-7", region: "north")
      let first = try await provider.deploy(order)
      #expect(try await provider.deploy(order).id == first.id)
      #expect(try cloud.requests("POST /compute/v2.1/servers") == 1)
    }
  }

  @Test("the same order twice at once leaves one server", .enabled(if: hasClient, missing))
  func atOnce() async throws {
    try await Self.world { cloud, provider in
      let order = InstanceOrder.test("scitq-mine-3", "b2-7", region: "north")
      async let first = provider.deploy(order)
      async let second = provider.deploy(order)
      _ = try await (first, second)
      #expect(try cloud.rows("servers.json", as: Row.self).count == 1)
      #expect(try await provider.instances(in: "north").count == 1)
    }
  }

  @Test("another's server is not seen, and not deleted", .enabled(if: hasClient, missing))
  func others() async throws {
    try await Self.world { cloud, provider in
      // Of a server whose id begins with this one's, and one that somebody has named so.
      let elsewhere = try Self.provider(cloud, server: "mine-b")
      let foreign = try await elsewhere.deploy(.test("scitq-mine-b-1", "b2-7", region: "north"))
      let named = await provider.client.run([
        "server", "create", "-f", "json", "-c", "id", "--flavor", "b2-7", "--image", "Debian 12", "--network",
        "private",
        "scitq-mine-7",
      ])
      #expect(named.isSuccess, "\(named.error)")
      #expect(try await provider.instances(in: "north").isEmpty)
      try await provider.terminate(Instance(key: "scitq-mine-7", id: "any", region: "north", state: .running))
      let error = try await failure { () throws(ProviderError) in try await provider.terminate(foreign) }
      #expect(error.kind == .misconfigured)
      #expect(try cloud.rows("servers.json", as: Row.self).count == 2)
    }
  }

  @Test(
    "flavors come with configured prices, and those without are left out", .enabled(if: hasClient, missing))
  func flavors() async throws {
    try await Self.world { _, provider in
      let flavors = try await provider.flavors(in: "north")
      #expect(flavors.map(\.name) == ["b2-7", "c2-full", "a100-1"])
      let small = try #require(flavors.first)
      #expect(small.provider == "openstack.some" && small.region == "north" && !small.isSpot)
      #expect(small.cpu == 2 && small.memory == 7 && small.disk == 50 && small.price == 0.068)
      let large = try #require(flavors.last)
      #expect(large.gpu == "a100" && large.gpuCount == 2)
    }
  }

  @Test("a server without a place is deleted, and told as capacity", .enabled(if: hasClient, missing))
  func capacity() async throws {
    try await Self.world { cloud, provider in
      let order = InstanceOrder.test("scitq-mine-4", "c2-full", region: "north")
      let error = try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
      #expect(error.kind == .capacity && error.message.contains("No valid host"), "\(error)")
      #expect(try cloud.rows("servers.json", as: Row.self).isEmpty)
      let broken = InstanceOrder.test("scitq-mine-5", "c2-broken", region: "north")
      let other = try await failure { () throws(ProviderError) in _ = try await provider.deploy(broken) }
      #expect(other.kind == .transient && other.message.contains("its disk is full"), "\(other)")
      #expect(try cloud.rows("servers.json", as: Row.self).isEmpty)
      // One whose place was found is not waited for, until it runs.
      let slow = try await provider.deploy(.test("scitq-mine-6", "c2-slow", region: "north"))
      #expect(slow.state == .pending)
    }
  }

  @Test("a refusal has its class", .enabled(if: hasClient, missing))
  func refusals() async throws {
    try await Self.world { cloud, provider in
      func refused(_ flavor: String, _ provider: OpenStackProvider, region: String = "north") async throws
        -> ProviderError
      {
        let order = InstanceOrder.test("scitq-mine-8", flavor, region: region)
        return try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
      }
      #expect(try await refused("nope", provider).kind == .unsupported)
      #expect(try await refused("b2-7", Self.provider(cloud, image: "nope")).kind == .misconfigured)
      #expect(try await refused("b2-7", provider, region: "east").kind == .misconfigured)
      try cloud.behave("quota")
      let quota = try await refused("b2-7", provider)
      #expect(quota.kind == .quota && quota.limit == 10, "\(quota)")
      try cloud.behave("refused")
      let credentials = try await refused("b2-7", provider)
      #expect(credentials.kind == .credentials && !credentials.message.contains("right"), "\(credentials)")
      try cloud.behave("garbage")
      #expect(try await refused("b2-7", provider).kind == .transient)
      #expect(try cloud.rows("servers.json", as: Row.self).isEmpty)
      #expect(try Self.files(cloud).isEmpty)
    }
  }

  @Test("a list with a part missing is no list", .enabled(if: hasClient, missing))
  func split() async throws {
    try await Self.world { cloud, provider in
      let made = try await provider.deploy(.test("scitq-mine-9", "b2-7", region: "north"))
      try cloud.behave("split")
      let error = try await failure { () throws(ProviderError) in
        _ = try await provider.instances(in: "north")
      }
      #expect(error.kind == .transient && error.message.contains("does not tell"), "\(error)")
      // What goes while it is being deleted is gone too.
      try cloud.behave("gone")
      try await provider.terminate(made)
    }
  }

  @Test("a cloud that never answers is not waited for", .enabled(if: hasClient, missing))
  func silence() async throws {
    try await Self.world { cloud, provider in
      try cloud.behave("silent")
      var provider = provider
      provider.deadline = .seconds(3)
      let began = ContinuousClock.now
      let error = try await failure { () throws(ProviderError) in _ = try await provider.flavors(in: "north")
      }
      #expect(error.kind == .transient && error.message.contains("did not end within"), "\(error)")
      #expect(ContinuousClock.now - began < .seconds(20))
    }
  }

  @Test("a client that prints what it likes, or is not there, is told of")
  func rogue() async throws {
    let rogue = try RogueClient("printf '[{\"Name\": 7'")
    defer { rogue.remove() }
    var provider = OpenStackProvider(
      Self.configuration(), server: "mine", folder: FilePath(rogue.folder.path))
    provider.client = ClientProgram(program: rogue.program)
    let garbage = try await failure { () throws(ProviderError) in
      _ = try await provider.instances(in: "north")
    }
    #expect(garbage.kind == .transient && garbage.message.contains("cannot be understood"), "\(garbage)")
    provider.client = ClientProgram(program: rogue.program + ".missing")
    let missing = try await failure { () throws(ProviderError) in
      _ = try await provider.instances(in: "north")
    }
    #expect(missing.kind == .misconfigured, "\(missing)")
  }

  @Test("the ticket is in a file of this user alone, and not in an argument")
  func secret() async throws {
    let rogue = try RogueClient(
      """
      here=$(dirname "$0")
      echo "$@" >>"$here/calls"
      case "$*" in *'server list'*) echo '[]'; exit 0;; esac
      for word; do case $word in */handed/boot-*) stat -c %a "$word" >>"$here/rights"; esac; done
      echo 'Quota exceeded for instances: Requested 1, but already used 4 of 4 instances' >&2
      exit 1
      """)
    defer { rogue.remove() }
    let folder = rogue.folder.appending(path: "handed")
    var provider = OpenStackProvider(Self.configuration(), server: "mine", folder: FilePath(folder.path))
    provider.client = ClientProgram(program: rogue.program)
    let order = InstanceOrder.test("scitq-mine-1", "b2-7", region: "openstack")
    let error = try await failure { () throws(ProviderError) in _ = try await provider.deploy(order) }
    #expect(error.kind == .quota && error.limit == 4)
    #expect(try String(contentsOf: rogue.folder.appending(path: "rights"), encoding: .utf8) == "600\n")
    let calls = try String(contentsOf: rogue.folder.appending(path: "calls"), encoding: .utf8)
    #expect(!calls.contains("the-ticket") && !calls.contains("--os-region-name"), "\(calls)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
  }

  @Test("the words of the services have their classes")
  func words() {
    let known: [(String, ProviderError.Class?)] = [
      ("No valid host was found. There are not enough hosts available.", .capacity),
      (
        "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures",
        .capacity
      ),
      (
        "ForbiddenException: 403: Client Error for url: x, Quota exceeded for cores: Requested 8, but already used 4 of 8 cores",
        .quota
      ),
      (
        "ForbiddenException: 403: Client Error for url: x, Policy doesn't allow os_compute_api:servers:create",
        .credentials
      ),
      ("No Flavor found for b9", .unsupported),
      ("Missing value auth-url required for auth plugin password", .credentials),
      ("Cloud nix was not found.", .misconfigured), ("Unable to establish connection to http://x", nil),
    ]
    for (text, kind) in known { #expect(OpenStackProvider.classify(text) == kind, "\(text)") }
    #expect(
      OpenStackProvider.limit("Quota exceeded for cores: Requested 8, but already used 4 of 8 cores") == nil)
  }

  // MARK: - The world

  private struct Row: Decodable {
    struct Group: Decodable {
      var name: String
    }

    var user_data: String
    var metadata: [String: String]
    var key_name: String?
    var security_groups: [Group]
  }

  private static func configuration(image: String = "Debian 12") -> ProviderConfiguration {
    var configuration = ProviderConfiguration(kind: .openstack, name: "openstack.some", regions: ["north"])
    configuration.settings = ["image": image, "network": "private", "key_name": "gate"]
    configuration.lists = ["security_groups": ["inside"]]
    configuration.prices = ["b2-7": 0.068, "c2-full": 0.2, "a100-1": 3]
    return configuration
  }

  private static func provider(
    _ cloud: CloudService, server: String = "mine", image: String = "Debian 12"
  ) throws -> OpenStackProvider {
    var provider = OpenStackProvider(
      configuration(image: image), server: server,
      folder: FilePath(cloud.folder.appending(path: "handed").path))
    provider.settling.pause = .milliseconds(100)
    provider.client.environment = [
      "OS_AUTH_URL": "http://127.0.0.1:\(try cloud.text("port"))/identity/v3", "OS_USERNAME": "somebody",
      "OS_PASSWORD": "right", "OS_PROJECT_NAME": "some", "OS_USER_DOMAIN_NAME": "Default",
      "OS_PROJECT_DOMAIN_NAME": "Default", "OS_IDENTITY_API_VERSION": "3", "HOME": cloud.folder.path,
      "no_proxy": "127.0.0.1",
    ]
    return provider
  }

  private static func files(_ cloud: CloudService) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: cloud.folder.appending(path: "handed").path)
  }

  private static func world(_ body: (CloudService, OpenStackProvider) async throws -> Void) async throws {
    try await CloudService.with("openstack_standin.py") { cloud in
      try await body(cloud, provider(cloud))
    }
  }
}
