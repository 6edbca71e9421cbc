import Foundation
import Scheduling
import SystemPackage

/// Instances of EC2, by `aws ec2`.
///
/// A host carries its order's key in the tag `scitq`, and is found, counted and ended by that tag alone. The key is the
/// client token as well, for the moments in which a new instance is not yet seen by those who ask.
struct AWSProvider: Provider {
  var client: ClientProgram
  var deadline: Duration = .seconds(120)
  private let configuration: ProviderConfiguration
  private let keys: OwnKeys
  private let folder: FilePath

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    self.keys = OwnKeys(server: server)
    self.folder = folder
    // One attempt: the fleet decides when to try again, and the client would take a lack of capacity for a hiccup.
    var environment = ["AWS_MAX_ATTEMPTS": "1", "AWS_PAGER": "", "AWS_CLI_AUTO_PROMPT": "off"]
    environment["AWS_PROFILE"] = configuration.settings["profile"]
    environment["AWS_ENDPOINT_URL"] = configuration.settings["endpoint"]
    self.client = ClientProgram(program: "aws", environment: environment)
  }

  // MARK: Flavors

  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    let image = try await image(in: region)
    var filters = [
      "Name=bare-metal,Values=false",
      "Name=processor-info.supported-architecture,Values=\(image.Architecture)",
    ]
    if let families = configuration.lists["families"], !families.isEmpty {
      filters.append(
        "Name=instance-type,Values="
          + families.map { $0.contains(".") ? $0 : "\($0).*" }.joined(separator: ","))
    }
    let types = try await call(
      ["ec2", "describe-instance-types", "--filters"] + filters, in: region, as: InstanceTypes.self
    ).InstanceTypes
    let markets = try configuration.spotMarkets
    let spot = markets.contains(true) ? try await spotPrices(in: region) : [:]
    let demand = markets.contains(false) ? try await pricesOnDemand(in: region) : [:]
    let disk = try configuration.diskSize ?? image.size
    var flavors: [Flavor] = []
    for type in types where configuration.isOffered(type.InstanceType, separator: ".") {
      let flavor = type.flavor(of: configuration.name, in: region, disk: Double(disk))
      flavors += try configuration.offers(of: flavor) { isSpot in
        guard type.SupportedUsageClasses?.contains(isSpot ? "spot" : "on-demand") ?? true else { return nil }
        return (isSpot ? spot : demand)[type.InstanceType] ?? configuration.prices[type.InstanceType]
      }
    }
    return flavors
  }

  /// The present price of each type. The dearest of the region's zones: the zone is not ours to choose, and what is paid
  /// is not to be more than what was said.
  private func spotPrices(in region: String) async throws(ProviderError) -> [String: Double] {
    let answer = try await call(
      [
        "ec2", "describe-spot-price-history", "--start-time", Date().formatted(.iso8601),
        "--product-descriptions", "Linux/UNIX",
      ], in: region, as: SpotPrices.self)
    var prices: [String: Double] = [:]
    for one in answer.SpotPriceHistory {
      guard let price = Double(one.SpotPrice) else { continue }
      prices[one.InstanceType] = max(price, prices[one.InstanceType] ?? 0)
    }
    return prices
  }

  /// What was configured, or what the price list says. The list is a service of its own that many accounts may not
  /// ask: without it there are just no prices.
  private func pricesOnDemand(in region: String) async throws(ProviderError) -> [String: Double] {
    guard configuration.prices.isEmpty else { return configuration.prices }
    let filters = [
      "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA",
      "capacitystatus": "Used",
    ].sorted { $0.key < $1.key }.map { "Type=TERM_MATCH,Field=\($0.key),Value=\($0.value)" }
    let answer: Products
    do {
      // It has endpoints in few regions, and tells of all.
      answer = try await call(
        ["pricing", "get-products", "--service-code", "AmazonEC2", "--filters"] + filters,
        in: region.hasPrefix("cn-") ? "cn-northwest-1" : "us-east-1", as: Products.self)
    } catch  where error.kind != .transient {
      return [:]
    }
    var prices: [String: Double] = [:]
    for text in answer.PriceList {
      guard let product = try? JSONDecoder().decode(Product.self, from: Data(text.utf8)),
        let type = product.product.attributes["instanceType"], let price = product.price
      else { continue }
      prices[type] = max(price, prices[type] ?? 0)
    }
    return prices
  }

  /// What the configured image is in a region. A parameter's name (`resolve:ssm:…`) is good in all regions, where an
  /// image's own id is good in one.
  private func image(in region: String) async throws(ProviderError) -> Images.Image {
    var id = try configured("image")
    if id.hasPrefix("resolve:ssm:") {
      id = try await call(
        ["ssm", "get-parameter", "--name", String(id.dropFirst("resolve:ssm:".count))], in: region,
        as: ParameterAnswer.self
      ).Parameter.Value
    }
    let images = try await call(["ec2", "describe-images", "--image-ids", id], in: region, as: Images.self)
    guard let image = images.Images.first else {
      throw ProviderError(.misconfigured, "\(configuration.name): there is no image \(id) in \(region)")
    }
    return image
  }

  private func configured(_ key: String) throws(ProviderError) -> String {
    guard let value = configuration.settings[key] else {
      throw ProviderError(.misconfigured, "\(configuration.name): \(key) is not configured")
    }
    return value
  }

  // MARK: Hosts

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let region = order.flavor.region
    let there = try await hosts("Values=\(order.key)", in: region)
    if let host = there.first(where: { $0.state != .leaving }) ?? there.first { return host }

    let tags = "Tags=[{Key=Name,Value=\(order.key)},{Key=scitq,Value=\(order.key)}]"
    var arguments = [
      "ec2", "run-instances", "--count", "1", "--client-token", order.key,
      "--instance-type", order.flavor.name,
      "--tag-specifications", "ResourceType=instance,\(tags)", "ResourceType=volume,\(tags)",
      // A host that switches itself off is not to stand there and cost its disk.
      "--instance-initiated-shutdown-behavior", "terminate",
    ]
    if let size = try configuration.diskSize {
      let image = try await image(in: region)
      arguments += [
        "--image-id", image.ImageId, "--block-device-mappings",
        "DeviceName=\(image.RootDeviceName),Ebs={VolumeSize=\(size),VolumeType=gp3,DeleteOnTermination=true}",
      ]
    } else {
      arguments += ["--image-id", try configured("image")]
    }
    if order.flavor.isSpot {
      arguments += [
        "--instance-market-options",
        "MarketType=spot,SpotOptions={SpotInstanceType=one-time,InstanceInterruptionBehavior=terminate}",
      ]
    }
    let settings = configuration.settings
    if let subnet = settings["subnet"] { arguments += ["--subnet-id", subnet] }
    if let key = settings["key_name"] { arguments += ["--key-name", key] }
    if let profile = settings["instance_profile"] {
      arguments += [
        "--iam-instance-profile", profile.hasPrefix("arn:") ? "Arn=\(profile)" : "Name=\(profile)",
      ]
    }
    if let groups = configuration.lists["security_groups"], !groups.isEmpty {
      let areIDs = groups.allSatisfy { $0.hasPrefix("sg-") }
      arguments += [areIDs ? "--security-group-ids" : "--security-groups"] + groups
    }
    let command = arguments
    let made = try await order.boot.handedOver(in: folder) { file throws(ProviderError) in
      // As bytes: as text it would be read in whatever language the server was started in.
      try await call(command + ["--user-data", "fileb://\(file)"], in: region, as: Reservation.self)
    }
    guard let host = made.Instances.first else {
      throw ProviderError(.transient, "aws: run-instances made nothing")
    }
    return host.instance(key: order.key, region: region)
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    // By its tag, not by the id that a row has: no mistake of ours ends another's host.
    let hosts = try await hosts("Values=\(instance.key)", in: instance.region)
    guard !hosts.isEmpty else { return }
    do {
      _ = try await call(
        ["ec2", "terminate-instances", "--instance-ids"] + hosts.map(\.id), in: instance.region,
        as: Termination.self)
    } catch  where error.message.contains("InvalidInstanceID.NotFound") {
      return
    }
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    try await hosts("Values=\(keys.prefix)*", in: region)
  }

  private func hosts(_ values: String, in region: String) async throws(ProviderError) -> [Instance] {
    let answer = try await call(
      [
        "ec2", "describe-instances", "--filters", "Name=tag:scitq,\(values)",
        "Name=instance-state-name,Values=pending,running,shutting-down,stopping,stopped",
      ], in: region, as: Reservations.self)
    return answer.Reservations.flatMap(\.Instances).compactMap { host in
      guard let key = host.Tags?.first(where: { $0.Key == "scitq" })?.Value, keys.contains(key) else {
        return nil
      }
      return host.instance(key: key, region: region)
    }
  }

  // MARK: The client

  private func call<Value: Decodable>(
    _ arguments: [String], in region: String, as type: Value.Type
  ) async throws(ProviderError) -> Value {
    do {
      return try await client.json(
        arguments + ["--region", region, "--output", "json"], as: type, deadline: deadline,
        classify: Self.classify)
    } catch {
      guard error.kind == .quota, let match = error.message.firstMatch(of: /current instance limit of (\d+)/)
      else { throw error }
      throw ProviderError(.quota, error.message, limit: Int(match.1))
    }
  }

  /// By the code of the service; what the client itself has to complain about has none.
  static func classify(_ complaint: String) -> ProviderError.Class? {
    guard let code = complaint.firstMatch(of: /An error occurred \(([A-Za-z0-9._]+)\)/)?.1 else {
      return clientComplaints.first { complaint.contains($0.words) }?.kind
    }
    if let kind = codes[String(code)] { return kind }
    switch code {
    case "InvalidParameterValue", "InvalidParameterCombination":
      return complaint.contains(/(?i)instance ?type/) ? .unsupported : .misconfigured
    case _ where code.hasSuffix("LimitExceeded"): return .quota
    case _ where code.hasPrefix("Invalid") || code.hasPrefix("Missing"): return .misconfigured
    default: return .transient
    }
  }

  private static let codes: [String: ProviderError.Class] = [
    "InsufficientInstanceCapacity": .capacity, "InsufficientHostCapacity": .capacity,
    "InsufficientCapacity": .capacity, "InsufficientFreeAddressesInSubnet": .capacity,
    "SpotMaxPriceTooLow": .capacity,
    // The key has had its host; another order has another key.
    "IdempotentInstanceTerminated": .capacity,
    "MaxSpotInstanceCountExceeded": .quota, "ResourceCountExceeded": .quota,
    "RequestLimitExceeded": .transient, "ThrottlingException": .transient, "Throttling": .transient,
    "Unsupported": .unsupported, "UnsupportedOperation": .unsupported, "InvalidInstanceType": .unsupported,
    "AuthFailure": .credentials, "ExpiredToken": .credentials, "ExpiredTokenException": .credentials,
    "RequestExpired": .credentials, "InvalidClientTokenId": .credentials,
    "UnauthorizedOperation": .credentials,
    "AccessDenied": .credentials, "AccessDeniedException": .credentials, "OptInRequired": .credentials,
    "SignatureDoesNotMatch": .credentials, "UnrecognizedClientException": .credentials,
    "Blocked": .credentials,
    "PendingVerification": .credentials,
    "VPCIdNotSpecified": .misconfigured, "ParameterNotFound": .misconfigured,
  ]

  private static let clientComplaints: [(words: String, kind: ProviderError.Class)] = [
    ("Unable to locate credentials", .credentials), ("Partial credentials", .credentials),
    ("Token has expired", .credentials), ("Error loading SSO", .credentials),
    ("config profile", .misconfigured), ("must specify a region", .misconfigured),
    ("Invalid endpoint", .misconfigured), ("Unknown options", .misconfigured),
    ("Invalid choice", .misconfigured), ("arameter validation failed", .misconfigured),
  ]
}

// MARK: - What the client prints, in its own names

private struct InstanceTypes: Decodable {
  struct Kind: Decodable {
    struct VCpu: Decodable { var DefaultVCpus: Double }
    struct Memory: Decodable { var SizeInMiB: Double }
    struct Storage: Decodable {
      struct Disk: Decodable { var `Type`: String? }
      var Disks: [Disk]?
    }
    struct Network: Decodable {
      struct Card: Decodable { var BaselineBandwidthInGbps: Double? }
      var NetworkCards: [Card]?
    }
    struct Gpus: Decodable {
      struct Gpu: Decodable {
        var Name: String?
        var Manufacturer: String?
        var Count: Int?
      }
      var Gpus: [Gpu]?
      var TotalGpuMemoryInMiB: Double?
    }

    var InstanceType: String
    var SupportedUsageClasses: [String]?
    var VCpuInfo: VCpu
    var MemoryInfo: Memory
    var InstanceStorageInfo: Storage?
    var NetworkInfo: Network?
    var GpuInfo: Gpus?

    /// - Parameter disk: the root disk, in which the worker's store is. Disks of the host itself are not mounted by
    ///   themselves, so that nothing may count on their size.
    func flavor(of provider: String, in region: String, disk: Double) -> Flavor {
      let gpus = GpuInfo?.Gpus ?? []
      return Flavor(
        provider: provider, region: region, name: InstanceType, cpu: VCpuInfo.DefaultVCpus,
        memory: MemoryInfo.SizeInMiB / 1024, disk: disk,
        bandwidth: (NetworkInfo?.NetworkCards ?? []).reduce(0) { $0 + ($1.BaselineBandwidthInGbps ?? 0) },
        gpu: gpus.first.map { [$0.Manufacturer, $0.Name].compactMap(\.self).joined(separator: " ") } ?? "",
        gpuCount: gpus.reduce(0) { $0 + ($1.Count ?? 0) },
        gpuMemory: (GpuInfo?.TotalGpuMemoryInMiB ?? 0) / 1024,
        hasQuickDisks: (InstanceStorageInfo?.Disks ?? []).contains { $0.Type == "ssd" })
    }
  }
  var InstanceTypes: [Kind]
}

private struct SpotPrices: Decodable {
  struct One: Decodable {
    var InstanceType: String
    var SpotPrice: String
  }
  var SpotPriceHistory: [One]
}

private struct Products: Decodable {
  /// Each is JSON in a string.
  var PriceList: [String]
}

private struct Product: Decodable {
  struct Attributes: Decodable { var attributes: [String: String] }
  struct Terms: Decodable {
    struct Term: Decodable { var priceDimensions: [String: Dimension] }
    struct Dimension: Decodable {
      var unit: String
      var pricePerUnit: [String: String]
    }
    var OnDemand: [String: Term]?
  }
  var product: Attributes
  var terms: Terms

  /// An hour's.
  var price: Double? {
    terms.OnDemand?.values.flatMap(\.priceDimensions.values).filter { $0.unit == "Hrs" }
      .compactMap { $0.pricePerUnit.values.first.flatMap(Double.init) }.max()
  }
}

private struct ParameterAnswer: Decodable {
  struct Content: Decodable { var Value: String }
  var Parameter: Content
}

private struct Images: Decodable {
  struct Image: Decodable {
    struct Device: Decodable {
      struct Volume: Decodable { var VolumeSize: Int? }
      var DeviceName: String?
      var Ebs: Volume?
    }
    var ImageId: String
    var Architecture: String
    var RootDeviceName: String
    var BlockDeviceMappings: [Device]?

    /// GB. Eight is what images have at least that do not say it.
    var size: Int { BlockDeviceMappings?.first { $0.DeviceName == RootDeviceName }?.Ebs?.VolumeSize ?? 8 }
  }
  var Images: [Image]
}

private struct Reservation: Decodable {
  struct Host: Decodable {
    struct Condition: Decodable { var Name: String }
    struct Tag: Decodable {
      var Key: String
      var Value: String
    }
    var InstanceId: String
    var State: Condition
    var Tags: [Tag]?
    var PublicIpAddress: String?
    var PrivateIpAddress: String?

    func instance(key: String, region: String) -> Instance {
      let state: Instance.State =
        switch State.Name {
        case "pending": .pending
        case "running": .running
        // One that was stopped does none of our work, costs its disk, and does not go on by itself.
        default: .leaving
        }
      return Instance(
        key: key, id: InstanceId, region: region, state: state,
        address: PublicIpAddress ?? PrivateIpAddress ?? "")
    }
  }
  var Instances: [Host]
}

private struct Reservations: Decodable {
  var Reservations: [Reservation]
}

private struct Termination: Decodable {
  struct One: Decodable {}
  var TerminatingInstances: [One]
}
