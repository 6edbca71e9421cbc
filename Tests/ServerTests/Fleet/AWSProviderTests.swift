import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// The real `aws` against moto, which makes no hosts and refuses nothing; what refuses stands before it.
@Suite(
  "Hosts of EC2", .serialized, .timeLimit(.minutes(5)),
  .enabled(if: CloudStandIn.has("aws", "moto_server"), "takes aws and moto_server on PATH"))
struct AWSProviderTests {
  private let region = "eu-west-1"
  private let image = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

  private func provider(
    _ cloud: CloudStandIn, server: String = "s1", market: String = "spot", prices: [String: Double] = [:],
    _ change: (inout ProviderConfiguration) -> Void = { _ in }
  ) -> AWSProvider {
    var configuration = ProviderConfiguration(kind: .aws, name: "aws.test", regions: [region])
    configuration.settings = ["image": image, "endpoint": cloud.endpoint, "market": market]
    configuration.lists = ["families": ["c5", "g4dn"]]
    configuration.prices = prices
    change(&configuration)
    var provider = AWSProvider(configuration, server: server, folder: cloud.folder.appending("boot"))
    provider.client.environment.merge(
      [
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
      ], uniquingKeysWith: { $1 })
    provider.deadline = .seconds(60)
    return provider
  }

  private func order(_ key: String, _ type: String = "c5.large", isSpot: Bool = true) -> InstanceOrder {
    let flavor = Flavor(
      provider: "aws.test", region: region, name: type, cpu: 2, memory: 4, isSpot: isSpot, price: 0.1)
    return InstanceOrder(key: key, flavor: flavor, boot: CloudStandIn.boot(key), concurrency: 4)
  }

  /// What the real client says to a question of the test itself.
  private func ask(_ provider: AWSProvider, _ arguments: String...) async throws -> Any {
    let answer = await provider.client.run(arguments + ["--region", region, "--output", "json"])
    try #require(answer.isSuccess, "\(answer.error)")
    return try JSONSerialization.jsonObject(with: Data(answer.output))
  }

  @Test("a host is made, listed, found by its key again, and ended")
  func life() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let provider = provider(cloud) { $0.settings["disk_gb"] = "60" }
      let order = order("scitq-s1-1")
      let host = try await provider.deploy(order)
      #expect(host.key == order.key && host.region == region && !host.address.isEmpty)
      #expect(try await provider.deploy(order).id == host.id)
      let made = try await cloud.seen().filter { $0["call"] == "RunInstances" }
      #expect(made.count == 1)
      let request = try #require(made.first)
      #expect(request["ClientToken"] == order.key)
      #expect(request["InstanceMarketOptions.MarketType"] == "spot")
      #expect(request["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "terminate")
      #expect(request["BlockDeviceMapping.1.Ebs.VolumeSize"] == "60")
      #expect(request["BlockDeviceMapping.1.DeviceName"]?.hasPrefix("/dev/") == true)
      #expect(try await provider.instances(in: region).map(\.id) == [host.id])
      #expect(try await provider.instances(in: "eu-central-1").isEmpty)

      // What the host gets is the script to the last byte, and nothing of it stays here.
      let stored = try await ask(
        provider, "ec2", "describe-instance-attribute", "--instance-id", host.id, "--attribute", "userData")
      let value = (stored as? [String: Any])?["UserData"] as? [String: String]
      let bytes = Data(base64Encoded: value?["Value"] ?? "")
      #expect(bytes == Data(order.boot.text.utf8))
      let left = try FileManager.default.contentsOfDirectory(atPath: cloud.folder.appending("boot").string)
      #expect(left.isEmpty)

      try await provider.terminate(host)
      try await provider.terminate(host)
      #expect(try await provider.instances(in: region).isEmpty)
    }
  }

  @Test("another's host is neither seen nor touched, whatever a row says")
  func others() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let (ours, theirs) = (provider(cloud), provider(cloud, server: "s1-b"))
      let their = try await theirs.deploy(order("scitq-s1-b-1", isSpot: false))
      let made = try await ask(
        ours, "ec2", "run-instances", "--image-id", "ami-12345678", "--instance-type", "c5.large")
      let anybodys =
        ((made as? [String: Any])?["Instances"] as? [[String: Any]])?.first?["InstanceId"] as? String
      let other = try #require(anybodys)
      #expect(try await ours.instances(in: region).isEmpty)
      for id in [their.id, other] {
        try await ours.terminate(Instance(key: "scitq-s1-7", id: id, region: region, state: .running))
      }
      let kept = try await refusal { try await ours.terminate(their) }
      #expect(kept?.kind == .misconfigured)
      let told = try await refusal { _ = try await ours.deploy(order("scitq-s1-b-2")) }
      #expect(told?.kind == .misconfigured)
      #expect(try await cloud.seen().allSatisfy { $0["call"] != "TerminateInstances" })
      #expect(try await theirs.instances(in: region).map(\.id) == [their.id])
    }
  }

  @Test("a host that stands still is listed as leaving, and can be ended")
  func stopped() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let provider = provider(cloud)
      let host = try await provider.deploy(order("scitq-s1-2", isSpot: false))
      _ = try await ask(provider, "ec2", "stop-instances", "--instance-ids", host.id)
      #expect(try await provider.instances(in: region).map(\.state) == [.leaving])
      try await provider.terminate(host)
      #expect(try await provider.instances(in: region).isEmpty)
    }
  }

  @Test("flavors have what their client tells, once for each market")
  func flavors() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let spot = try await provider(cloud).flavors(in: region)
      let large = try #require(spot.first { $0.name == "c5.large" })
      #expect(large.cpu == 2 && large.memory == 4 && large.price == 0.00001 && large.disk > 0)
      #expect(large.isSpot && large.eviction == 5 && large.gpuCount == 0 && large.bandwidth == 0.75)
      let gpu = try #require(spot.first { $0.name == "g4dn.xlarge" })
      #expect(gpu.gpu == "NVIDIA T4" && gpu.gpuCount == 1 && gpu.gpuMemory == 16 && gpu.hasQuickDisks)
      #expect(spot.allSatisfy { $0.name.hasPrefix("c5.") || $0.name.hasPrefix("g4dn.") })
      #expect(!spot.contains { $0.name.contains("metal") })

      let both = try await provider(cloud, market: "both", prices: ["c5.large": 0.096]) {
        $0.settings["spot_eviction"] = "12"
        $0.settings["disk_gb"] = "100"
      }.flavors(in: region).filter { $0.name == "c5.large" }
      #expect(both.map(\.isSpot) == [true, false] && both.map(\.price) == [0.00001, 0.096])
      #expect(both.map(\.eviction) == [12, 0] && both.map(\.disk) == [100, 100])

      // The price list is asked where nothing is configured; an account that may not ask it has no prices.
      let product = #"""
        {"product":{"attributes":{"instanceType":"c5.xlarge","regionCode":"eu-west-1"}},"terms":{"OnDemand":
        {"A.B":{"priceDimensions":{"A.B.C":{"unit":"Hrs","pricePerUnit":{"USD":"0.1920000000"}}}}}}}
        """#
      let list = try JSONSerialization.data(withJSONObject: [
        "FormatVersion": "aws_v1", "PriceList": [product],
      ])
      try await cloud.tell([
        "do": "print", "call": "GetProducts", "text": String(decoding: list, as: UTF8.self),
      ])
      let demand = try await provider(cloud, market: "on-demand").flavors(in: region)
      #expect(
        demand.map(\.name) == ["c5.xlarge"] && demand.map(\.price) == [0.192]
          && demand.map(\.isSpot) == [false])
      try await cloud.refuse(
        "GetProducts", 400, "AccessDeniedException", "not authorized to perform: pricing:GetProducts")
      #expect(try await provider(cloud, market: "on-demand").flavors(in: region).isEmpty)
    }
  }

  @Test("what is refused has a class, by the service's own code")
  func refusals() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let provider = provider(cloud)
      let cases: [(Int, String, String, ProviderError.Class, Int?)] = [
        (
          500, "InsufficientInstanceCapacity", "We currently do not have sufficient c5.large capacity",
          .capacity, nil
        ),
        (
          400, "InstanceLimitExceeded",
          "You have requested more instances (3) than your current instance limit of 2 allows", .quota, 2
        ),
        (
          400, "VcpuLimitExceeded", "more vCPU capacity than your current vCPU limit of 32 allows", .quota,
          nil
        ),
        (400, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", .quota, nil),
        (400, "Unsupported", "Your requested instance type (c5.large) is not supported", .unsupported, nil),
        (400, "InvalidParameterValue", "Invalid value 'c5.lrge' for InstanceType.", .unsupported, nil),
        (400, "InvalidParameterValue", "Value (x) for parameter groupId is invalid.", .misconfigured, nil),
        (400, "InvalidAMIID.NotFound", "The image id '[ami-0]' does not exist", .misconfigured, nil),
        (
          401, "AuthFailure", "AWS was not able to validate the provided access credentials", .credentials,
          nil
        ),
        (400, "ExpiredToken", "The provided token has expired.", .credentials, nil),
        (503, "RequestLimitExceeded", "Request limit exceeded.", .transient, nil),
        (400, "IdempotentParameterMismatch", "Arguments on this idempotent request differ", .transient, nil),
      ]
      for (number, (status, code, message, kind, limit)) in cases.enumerated() {
        try await cloud.refuse("RunInstances", status, code, message)
        let order = order("scitq-s1-\(number)")
        let told = try await refusal { _ = try await provider.deploy(order) }
        #expect(told?.kind == kind && told?.limit == limit, "\(code): \(told as Any)")
        #expect(told?.message.contains(code) == true)
        #expect(told?.message.contains("a-secret") == false && told?.message.contains("ticket") == false)
      }
      // Each was asked for once: whether to ask again is not the client's to decide.
      let runs = try await cloud.seen().filter { $0["call"] == "RunInstances" }
      #expect(runs.count == cases.count)
      try await cloud.tell(["do": "clear"])
      #expect(try await provider.instances(in: region).isEmpty)
    }
  }

  @Test(
    "garbage, silence and a missing client are told apart, and an answer that got lost makes no second host")
  func trouble() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      var provider = provider(cloud)
      try await cloud.tell(["do": "garble", "call": "DescribeInstances"])
      let garbage = try await refusal { _ = try await provider.instances(in: region) }
      #expect(garbage?.kind == .transient)
      try await cloud.tell(["do": "clear"])

      // The host is made, and nobody hears of it.
      try await cloud.tell(["do": "stall", "call": "RunInstances"])
      provider.deadline = .seconds(6)
      let began = ContinuousClock.now
      let order = order("scitq-s1-9")
      let silence = try await refusal { _ = try await provider.deploy(order) }
      #expect(silence?.kind == .transient && silence?.message.contains("did not end within") == true)
      #expect(ContinuousClock.now - began < .seconds(40))
      try await cloud.tell(["do": "clear"])
      provider.deadline = .seconds(60)
      let found = try await provider.deploy(order)
      #expect(try await provider.instances(in: region).map(\.id) == [found.id])

      // A list that cannot be understood is not an empty one.
      for words in [
        "echo '{\"Reservations\": [{\"Instances\": [{}]}]}'", "echo '{}'", "echo", "head -c 99 /dev/urandom",
      ] {
        provider.client.program = try cloud.client(words)
        let told = try await refusal { _ = try await provider.instances(in: region) }
        #expect(told?.kind == .transient, "\(words): \(told as Any)")
      }
      provider.client.program = "\(cloud.folder)/nothing"
      let none = try await refusal { _ = try await provider.instances(in: region) }
      #expect(none?.kind == .misconfigured)
    }
  }

  @Test("who is not known to the client itself is told so without a call")
  func profiles() async throws {
    try await CloudStandIn.run("ec2_front.py") { cloud in
      let unknown = provider(cloud) { $0.settings["profile"] = "nobody" }
      let told = try await refusal { _ = try await unknown.instances(in: region) }
      #expect(told?.kind == .misconfigured && told?.message.contains("nobody") == true)
      var nameless = provider(cloud)
      for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] { nameless.client.environment[key] = "" }
      let missing = try await refusal { _ = try await nameless.instances(in: region) }
      #expect(missing?.kind == .credentials)
      #expect(try await cloud.seen().isEmpty)
      let market = provider(cloud, market: "cheap")
      let unheard = try await refusal { _ = try await market.flavors(in: region) }
      #expect(unheard?.kind == .misconfigured)
    }
  }
}
