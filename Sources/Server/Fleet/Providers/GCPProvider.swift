import Foundation
import Scheduling
import SystemPackage

/// Instances of Compute Engine, by `gcloud compute`.
///
/// A host's name is its order's key, which one zone holds once only; its labels say whose it is. A region of the
/// configuration is one of the provider's regions, in all zones of which a host is looked for in turn, or one zone.
struct GCPProvider: Provider {
  var client: ClientProgram
  var deadline: Duration = .seconds(120)
  /// To make or to end a host: the client waits until it is done, and that takes minutes at times.
  var longDeadline: Duration = .seconds(300)
  private let configuration: ProviderConfiguration
  private let server: String
  private let folder: FilePath
  private var keys: OwnKeys { OwnKeys(server: server) }

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    self.server = server
    self.folder = folder
    // It asks nothing, tells nobody, and keeps no log of its own of what it was given.
    var environment = [
      "CLOUDSDK_CORE_DISABLE_PROMPTS": "1", "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
      "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true", "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "1",
    ]
    environment["CLOUDSDK_CORE_PROJECT"] = configuration.settings["project"]
    environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"] = configuration.settings["endpoint"]
    self.client = ClientProgram(program: "gcloud", environment: environment)
  }

  // MARK: Flavors

  /// Its client tells no prices: the types are those that have one in the configuration, `n2-standard-8`, and
  /// `n2-standard-8/spot` where a spot host costs something else.
  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    let zones = try await zones(of: region)
    let types = try await call(
      [
        "machine-types", "list", "--zones=\(zones.joined(separator: ","))",
        "--format=json(name,guestCpus,memoryMb,accelerators,bundledLocalSsds,architecture)",
      ], as: [MachineType].self)
    let disk = try configuration.diskSize ?? 10
    var flavors: [Flavor] = []
    var seen: Set<String> = []
    for type in types where configuration.isOffered(type.name, separator: "-") && type.suits {
      guard seen.insert(type.name).inserted else { continue }
      let flavor = type.flavor(of: configuration.name, in: region, disk: Double(disk))
      flavors += try configuration.offers(of: flavor) { isSpot in
        (isSpot ? configuration.prices["\(type.name)/spot"] : nil) ?? configuration.prices[type.name]
      }
    }
    return flavors
  }

  private func zones(of region: String) async throws(ProviderError) -> [String] {
    if region.contains(/-[a-z]$/) { return [region] }
    let all = try await call(["zones", "list", "--format=json(name,status)"], as: [Zone].self)
    let zones = all.filter { $0.name.hasPrefix(region + "-") && $0.status != "DOWN" }.map(\.name).sorted()
    guard !zones.isEmpty else {
      throw ProviderError(.misconfigured, "\(configuration.name): there is no zone of \(region)")
    }
    return zones
  }

  // MARK: Hosts

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let region = order.flavor.region
    if let host = try await hosts(of: order.key, in: region).first { return host }
    let zones = try await zones(of: region)
    return try await order.boot.handedOver(in: folder) { file throws(ProviderError) in
      var refusal: ProviderError?
      for zone in zones {
        do throws(ProviderError) {
          return try await create(order, in: zone, boot: file)
        } catch  where error.message.contains("already exists") {
          // Another call of ours was quicker, or it is somebody else's.
          if let host = try await hosts(of: order.key, in: region).first { return host }
          throw ProviderError(.misconfigured, error.message)
        } catch  where error.kind == .capacity || error.kind == .unsupported {
          // Not in this zone. That there is none now weighs more than that some zones never have any.
          if refusal?.kind != .capacity { refusal = error }
        }
      }
      throw refusal ?? ProviderError(.misconfigured, "\(configuration.name): there is no zone of \(region)")
    }
  }

  private func create(
    _ order: InstanceOrder, in zone: String, boot: FilePath
  ) async throws(ProviderError) -> Instance {
    var arguments = [
      "instances", "create", order.key, "--zone=\(zone)", "--machine-type=\(order.flavor.name)",
      "--image-family=\(try configured("image_family"))",
      "--image-project=\(try configured("image_project"))",
      "--labels=scitq=\(order.key),scitq-server=\(server)", "--metadata-from-file=startup-script=\(boot)",
      "--format=json(\(Host.fields))",
    ]
    if order.flavor.isSpot {
      arguments += ["--provisioning-model=SPOT", "--instance-termination-action=DELETE"]
    }
    // Hosts with GPUs cannot be moved to another machine while they run.
    if order.flavor.gpuCount > 0 { arguments.append("--maintenance-policy=TERMINATE") }
    if let size = try configuration.diskSize { arguments.append("--boot-disk-size=\(size)GB") }
    let settings = configuration.settings
    if let network = settings["network"] { arguments.append("--network=\(network)") }
    if let subnet = settings["subnet"] { arguments.append("--subnet=\(subnet)") }
    if let account = settings["service_account"] {
      arguments += ["--service-account=\(account)", "--scopes=cloud-platform"]
    } else {
      // Else tasks could do in the project what its default account may, which is most things.
      arguments += ["--no-service-account", "--no-scopes"]
    }
    let made = try await call(arguments, as: [Host].self, deadline: longDeadline)
    guard let host = made.first else {
      throw ProviderError(.transient, "gcloud: instances create made nothing")
    }
    return host.instance(region: order.flavor.region)
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    // By its labels, not by the id that a row has: no mistake of ours ends another's host.
    for host in try await hosts(of: instance.key, in: instance.region) {
      do {
        try await client.checked(
          ["compute", "instances", "delete", host.key, "--zone=\(host.zone)", "--quiet"],
          deadline: longDeadline, classify: Self.classify)
      } catch  where error.message.contains("was not found") {
        continue
      }
    }
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    try await hosts(filter: "labels.scitq-server=\(server)", in: region)
  }

  private func hosts(of key: String, in region: String) async throws(ProviderError) -> [Instance] {
    try await hosts(filter: "labels.scitq=\(key)", in: region).filter { $0.key == key }
  }

  private func hosts(filter: String, in region: String) async throws(ProviderError) -> [Instance] {
    let hosts = try await call(
      ["instances", "list", "--filter=\(filter)", "--format=json(\(Host.fields))"], as: [Host].self)
    return hosts.filter { host in
      host.labels?["scitq-server"] == server && host.labels?["scitq"] == host.name
        && keys.contains(host.name)
        && (host.zoneName == region || host.zoneName.hasPrefix(region + "-"))
    }.map { $0.instance(region: region) }
  }

  // MARK: The client

  private func call<Value: Decodable>(
    _ arguments: [String], as type: Value.Type, deadline: Duration? = nil
  ) async throws(ProviderError) -> Value {
    do throws(ProviderError) {
      let answer = try await client.checked(
        ["compute"] + arguments, deadline: deadline ?? self.deadline, classify: Self.classify)
      // A list from which zones are missing is a success to the client. To us, hosts would be lost by it.
      guard !answer.error.contains("did not succeed") else {
        throw ProviderError(.transient, "gcloud: \(answer.sentence)")
      }
      guard let value = try? JSONDecoder().decode(type, from: Data(answer.output)) else {
        throw ProviderError(
          .transient, "gcloud answered what cannot be understood: \(answer.text.prefix(200).debugDescription)"
        )
      }
      return value
    } catch {
      guard error.kind == .quota,
        let match = error.message.firstMatch(of: /'INSTANCES' exceeded\. +Limit: (\d+)/)
      else { throw error }
      throw ProviderError(.quota, error.message, limit: Int(match.1))
    }
  }

  private func configured(_ key: String) throws(ProviderError) -> String {
    guard let value = configuration.settings[key] else {
      throw ProviderError(.misconfigured, "\(configuration.name): \(key) is not configured")
    }
    return value
  }

  /// By the service's codes where the client prints them, and by its words where not. The first that fits counts.
  static func classify(_ complaint: String) -> ProviderError.Class? {
    complaints.first { complaint.localizedCaseInsensitiveContains($0.words) }?.kind
  }

  private static let complaints: [(words: String, kind: ProviderError.Class)] = [
    ("RESOURCE_POOL_EXHAUSTED", .capacity), ("does not have enough resources available", .capacity),
    ("STOCKOUT", .capacity), ("resource_availability", .capacity),
    ("rateLimitExceeded", .transient), ("Rate Limit Exceeded", .transient),
    ("Quota exceeded for quota metric", .transient),
    ("QUOTA_EXCEEDED", .quota), ("quotaExceeded", .quota), ("' exceeded.  Limit:", .quota),
    ("' exceeded. Limit:", .quota),
    ("resource.machineType", .unsupported), ("/machineTypes/", .unsupported),
    ("UNSUPPORTED_OPERATION", .unsupported), ("Machine type with name", .unsupported),
    ("SERVICE_DISABLED", .misconfigured), ("or it is disabled", .misconfigured),
    ("do not currently have an active account", .credentials), ("invalid_grant", .credentials),
    ("invalid authentication credential", .credentials), ("required authentication credential", .credentials),
    ("refreshing your current auth tokens", .credentials), ("Reauthentication", .credentials),
    ("PERMISSION_DENIED", .credentials), ("does not have permission", .credentials),
    ("' permission for '", .credentials), ("UNAUTHENTICATED", .credentials),
    ("was not found", .misconfigured), ("Invalid value for", .misconfigured),
    ("unrecognized arguments", .misconfigured), ("Invalid choice", .misconfigured),
    ("required property", .misconfigured), ("argument --", .misconfigured),
  ]
}

extension Instance {
  /// An id of ours is ZONE/NAME.
  fileprivate var zone: Substring { id.prefix { $0 != "/" } }
}

// MARK: - What the client prints

private struct Zone: Decodable {
  var name: String
  var status: String?
}

private struct MachineType: Decodable {
  struct Accelerator: Decodable {
    var guestAcceleratorType: String
    var guestAcceleratorCount: Int
  }
  struct Disks: Decodable { var partitionCount: Int? }
  var name: String
  var guestCpus: Double
  var memoryMb: Double
  var accelerators: [Accelerator]?
  var bundledLocalSsds: Disks?
  var architecture: String?

  /// Whether it runs the worker that is handed out, which is one of the server's own architecture.
  var suits: Bool {
    #if arch(arm64)
      architecture == "ARM64"
    #else
      architecture != "ARM64"
    #endif
  }

  func flavor(of provider: String, in region: String, disk: Double) -> Flavor {
    let count = (accelerators ?? []).reduce(0) { $0 + $1.guestAcceleratorCount }
    let gpu = accelerators?.first?.guestAcceleratorType ?? ""
    return Flavor(
      provider: provider, region: region, name: name, cpu: guestCpus, memory: memoryMb / 1024, disk: disk,
      gpu: gpu, gpuCount: count, gpuMemory: Double(count) * Self.memory(of: gpu),
      hasQuickDisks: (bundledLocalSsds?.partitionCount ?? 0) > 0)
  }

  /// GB. No client tells it, but for those that have it in their name (`nvidia-h100-80gb`).
  private static func memory(of gpu: String) -> Double {
    if let match = gpu.firstMatch(of: /-(\d+)gb/) { return Double(match.1) ?? 0 }
    return switch gpu {
    case "nvidia-tesla-a100": 40
    case "nvidia-l4": 24
    case "nvidia-tesla-t4", "nvidia-tesla-v100", "nvidia-tesla-p100": 16
    default: 0
    }
  }
}

private struct Host: Decodable {
  struct Interface: Decodable {
    struct Access: Decodable { var natIP: String? }
    var networkIP: String?
    var accessConfigs: [Access]?
  }
  static let fields = "name,status,zone,labels,networkInterfaces"
  var name: String
  var status: String
  var zone: String
  var labels: [String: String]?
  var networkInterfaces: [Interface]?

  var zoneName: String { zone.split(separator: "/").last.map(String.init) ?? "" }

  func instance(region: String) -> Instance {
    let state: Instance.State =
      switch status {
      case "PROVISIONING", "STAGING", "PENDING": .pending
      case "RUNNING", "REPAIRING": .running
      case "SUSPENDING", "SUSPENDED": .suspended
      // One that was stopped does none of our work, costs its disk, and does not go on by itself.
      default: .leaving
      }
    let interface = networkInterfaces?.first
    return Instance(
      key: name, id: "\(zoneName)/\(name)", region: region, state: state,
      address: interface?.accessConfigs?.first?.natIP ?? interface?.networkIP ?? "")
  }
}
