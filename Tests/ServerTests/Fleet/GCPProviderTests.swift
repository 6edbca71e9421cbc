import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// The real `gcloud` against a stand-in for the service.
@Suite(
  "Hosts of Compute Engine", .serialized, .timeLimit(.minutes(5)),
  .enabled(if: CloudStandIn.has("gcloud", "python3"), "takes gcloud on PATH"))
struct GCPProviderTests {
  private let region = "europe-west1"

  private func provider(
    _ cloud: CloudStandIn, server: String = "s1", market: String = "spot",
    _ change: (inout ProviderConfiguration) -> Void = { _ in }
  ) throws -> GCPProvider {
    var configuration = ProviderConfiguration(kind: .gcp, name: "gcp.test", regions: [region])
    configuration.settings = [
      "project": "project", "image_family": "debian-12", "image_project": "debian-cloud", "market": market,
      "endpoint": "\(cloud.endpoint)/compute/v1/",
    ]
    configuration.prices = ["e2-standard-4": 0.15, "n2-standard-8": 0.4, "n2-standard-8/spot": 0.1]
    change(&configuration)
    let token = cloud.folder.appending("token")
    try Data("a-secret\n".utf8).write(to: URL(filePath: token.string))
    var provider = GCPProvider(configuration, server: server, folder: cloud.folder.appending("boot"))
    provider.client.environment.merge(
      [
        "CLOUDSDK_CONFIG": cloud.folder.appending("gcloud").string,
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": token.string,
      ], uniquingKeysWith: { $1 })
    provider.deadline = .seconds(60)
    provider.longDeadline = .seconds(60)
    return provider
  }

  private func order(
    _ key: String, _ type: String = "e2-standard-4", in place: String? = nil, isSpot: Bool = true
  ) -> InstanceOrder {
    let flavor = Flavor(
      provider: "gcp.test", region: place ?? region, name: type, cpu: 4, memory: 16, isSpot: isSpot,
      price: 0.1)
    return InstanceOrder(key: key, flavor: flavor, boot: CloudStandIn.boot(key), concurrency: 4)
  }

  @Test("a host is made, listed, found by its key again, and ended")
  func life() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let provider = try provider(cloud) { $0.settings["disk_gb"] = "60" }
      let order = order("scitq-s1-1")
      let host = try await provider.deploy(order)
      #expect(host.id == "europe-west1-b/scitq-s1-1" && host.key == order.key && host.region == region)
      #expect(host.state == .running && host.address.hasPrefix("192.0.2."))
      #expect(try await provider.deploy(order) == host)
      let made = try await cloud.seen().filter { $0["call"] == "insert" }
      #expect(made.count == 1)
      let request = try #require(made.first)
      // The script to the last byte, and nothing of it stays here.
      #expect(request["script"] == order.boot.text)
      #expect(request["market"] == "SPOT" && request["disk"] == "60" && request["accounts"] == "[]")
      let left = try FileManager.default.contentsOfDirectory(atPath: cloud.folder.appending("boot").string)
      #expect(left.isEmpty)
      #expect(try await provider.instances(in: region) == [host])
      #expect(try await provider.instances(in: "europe-west4").isEmpty)
      try await provider.terminate(host)
      try await provider.terminate(host)
      #expect(try await provider.instances(in: region).isEmpty)
      #expect(try await cloud.seen().count { $0["call"] == "delete" } == 1)
    }
  }

  @Test("another's host is neither seen nor touched, even by a name like ours")
  func others() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let provider = try provider(cloud)
      try await cloud.tell([
        "do": "place", "name": "scitq-s1-7", "labels": ["owner": "x"], "status": "RUNNING",
      ])
      try await cloud.tell([
        "do": "place", "name": "scitq-s1-b-1", "labels": ["scitq": "scitq-s1-b-1", "scitq-server": "s1-b"],
        "status": "RUNNING",
      ])
      #expect(try await provider.instances(in: region).isEmpty)
      for key in ["scitq-s1-7", "scitq-s1-8"] {
        let id = "europe-west1-b/scitq-s1-b-1"
        try await provider.terminate(Instance(key: key, id: id, region: region, state: .running))
      }
      let their = Instance(
        key: "scitq-s1-b-1", id: "europe-west1-b/scitq-s1-b-1", region: region, state: .running)
      let kept = try await refusal { try await provider.terminate(their) }
      #expect(kept?.kind == .misconfigured)
      let taken = try await refusal {
        _ = try await provider.deploy(order("scitq-s1-7", in: "europe-west1-b"))
      }
      #expect(taken?.kind == .misconfigured && taken?.message.contains("already exists") == true)
      #expect(try await cloud.seen().allSatisfy { $0["call"] != "delete" })
    }
  }

  @Test("a host that stands still is listed as leaving, and can be ended")
  func stopped() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let provider = try provider(cloud)
      try await cloud.tell([
        "do": "place", "name": "scitq-s1-3", "labels": ["scitq": "scitq-s1-3", "scitq-server": "s1"],
        "status": "TERMINATED",
      ])
      let hosts = try await provider.instances(in: region)
      #expect(hosts.map(\.state) == [.leaving])
      for host in hosts { try await provider.terminate(host) }
      #expect(try await provider.instances(in: region).isEmpty)
    }
  }

  @Test("flavors are those with a configured price, once for each market")
  func flavors() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let spot = try await provider(cloud).flavors(in: region)
      #expect(spot.map(\.name) == ["e2-standard-4", "n2-standard-8"] && spot.map(\.price) == [0.15, 0.1])
      #expect(spot.allSatisfy { $0.isSpot && $0.eviction == 5 && $0.disk == 10 && $0.region == region })
      #expect(spot.map(\.cpu) == [4, 8] && spot.map(\.memory) == [16, 32])
      #expect(try await cloud.seen().filter { $0["call"] == "types" }.count == 2)
      let both = try await provider(cloud, market: "both") {
        $0.prices["a2-ultragpu-1g"] = 5
        $0.prices["t2a-standard-4"] = 0.01
        $0.lists["families"] = ["a2", "n2", "t2a"]
      }.flavors(in: "europe-west4-a")
      #expect(both.map(\.price) == [0.1, 0.4, 5, 5] && both.map(\.isSpot) == [true, false, true, false])
      let gpu = try #require(both.last)
      #expect(gpu.gpu == "nvidia-a100-80gb" && gpu.gpuCount == 1 && gpu.gpuMemory == 80 && gpu.hasQuickDisks)
      let nowhere = try await refusal { _ = try await provider(cloud).flavors(in: "mars-west1") }
      #expect(nowhere?.kind == .misconfigured)
    }
  }

  @Test("a zone that has none is passed over for the next one of its region")
  func zones() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let provider = try provider(cloud)
      try await cloud.tell([
        "do": "fail", "call": "insert", "zone": "europe-west1-b", "code": "ZONE_RESOURCE_POOL_EXHAUSTED",
        "message":
          "The zone 'projects/project/zones/europe-west1-b' does not have enough resources available",
      ])
      let host = try await provider.deploy(order("scitq-s1-4", isSpot: false))
      #expect(host.id == "europe-west1-c/scitq-s1-4" && host.region == region)
      let none = try await refusal {
        _ = try await provider.deploy(order("scitq-s1-5", in: "europe-west1-b"))
      }
      #expect(none?.kind == .capacity)
      #expect(try await provider.instances(in: region).map(\.key) == ["scitq-s1-4"])
    }
  }

  @Test("what is refused has a class, by the service's own words")
  func refusals() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      let provider = try provider(cloud)
      let cases: [(String, Int, String, String, ProviderError.Class, Int?)] = [
        (
          "fail", 0, "QUOTA_EXCEEDED", "Quota 'INSTANCES' exceeded.  Limit: 24.0 in region europe-west1.",
          .quota, 24
        ),
        (
          "refuse", 403, "quotaExceeded", "Quota 'N2_CPUS' exceeded.  Limit: 8.0 in region europe-west1.",
          .quota, nil
        ),
        (
          "fail", 0, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
          "The zone 'z' does not have enough resources available to fulfill the request.", .capacity, nil
        ),
        (
          "refuse", 400, "invalid",
          "Invalid value for field 'resource.machineType': 'e2-x'. The referenced resource does not exist.",
          .unsupported, nil
        ),
        (
          "refuse", 401, "authError",
          "Request had invalid authentication credentials. Expected OAuth 2 access token.", .credentials, nil
        ),
        (
          "refuse", 403, "forbidden",
          "Required 'compute.instances.create' permission for 'projects/project/x'",
          .credentials, nil
        ),
        (
          "refuse", 404, "notFound", "The resource 'projects/project/global/networks/n' was not found",
          .misconfigured, nil
        ),
      ]
      for (number, (manner, status, code, message, kind, limit)) in cases.enumerated() {
        try await cloud.tell([
          "do": manner, "call": "insert", "status": status, "code": code, "message": message,
        ])
        let order = order("scitq-s1-\(number)", in: "europe-west1-b")
        let told = try await refusal { _ = try await provider.deploy(order) }
        #expect(told?.kind == kind && told?.limit == limit, "\(code): \(told as Any)")
        #expect(told?.message.contains("a-secret") == false && told?.message.contains("ticket") == false)
      }
      try await cloud.tell(["do": "clear"])
      #expect(try await provider.instances(in: region).isEmpty)
    }
  }

  @Test("garbage, silence and half a list are troubles, and an answer that got lost makes no second host")
  func trouble() async throws {
    try await CloudStandIn.run("gce.py") { cloud in
      var provider = try provider(cloud)
      for manner in ["garble", "veil"] {
        try await cloud.tell(["do": manner, "call": "list"])
        let told = try await refusal { _ = try await provider.instances(in: region) }
        #expect(told?.kind == .transient, "\(manner): \(told as Any)")
      }
      try await cloud.tell(["do": "clear"])

      // The host is made, and nobody hears of it.
      try await cloud.tell(["do": "stall", "call": "insert"])
      provider.longDeadline = .seconds(8)
      let order = order("scitq-s1-9", in: "europe-west1-b")
      let silence = try await refusal { _ = try await provider.deploy(order) }
      #expect(silence?.kind == .transient && silence?.message.contains("did not end within") == true)
      try await cloud.tell(["do": "clear"])
      let found = try await provider.deploy(order)
      #expect(try await provider.instances(in: region).map(\.id) == [found.id])
      #expect(try await cloud.seen().count { $0["call"] == "insert" } == 1)

      for words in ["echo '[{}]'", "echo '{}'", "echo", "head -c 99 /dev/urandom"] {
        provider.client.program = try cloud.client(words)
        let told = try await refusal { _ = try await provider.instances(in: region) }
        #expect(told?.kind == .transient, "\(words): \(told as Any)")
      }
      provider.client.program = "gcloud-that-is-not-there"
      let none = try await refusal { _ = try await provider.instances(in: region) }
      #expect(none?.kind == .misconfigured)
    }
  }
}
