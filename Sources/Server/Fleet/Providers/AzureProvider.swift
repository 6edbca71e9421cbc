import Foundation
import Scheduling
import SystemPackage

/// Virtual machines of Azure, by its client `az`.
///
/// A machine's name is the order's key, and is unique in a resource group. It comes with parts of its own
/// that are paid for too: a disk and a network interface, which the service deletes with it, and a public
/// address where no subnet was configured, which it does not. All carry the order's tag, so that what a
/// failed create or a delete leaves is found and returned as well. Closed to the world without a security
/// group, as such addresses are.
struct AzureProvider: Provider {
  var client = ClientProgram(program: "az")
  /// How long one call may take; and one that waits until the service has made or deleted a machine.
  var deadline = Duration.seconds(180)
  var longDeadline = Duration.seconds(600)

  private let configuration: ProviderConfiguration
  private let own: OwnKeys
  private let folder: FilePath
  private var group: String { configuration.settings["resource_group"] ?? "" }

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    self.own = OwnKeys(server: server)
    self.folder = folder
  }

  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    let market = configuration.settings["market"] ?? "spot"
    // Only what is read: all of it is some ten megabytes a region.
    let query = "[].{name:name, family:family, capabilities:capabilities, restrictions:restrictions[].type}"
    let skus = try await json(
      ["vm", "list-skus", "--location", region, "--resource-type", "virtualMachines", "--query", query],
      as: [SkuRow].self)
    let prices = try await prices(in: region)
    let families = configuration.lists["families"] ?? []
    let eviction = configuration.settings["spot_eviction"].flatMap { Double($0) } ?? 5
    // The disk of the system, where the worker keeps its store; images of Linux have one of 30 GB.
    let disk = configuration.settings["disk_gb"].flatMap { Double($0) } ?? 30
    return skus.filter { $0.isUsable && $0.isOne(of: families) }.flatMap { sku in
      [false, true].compactMap { isSpot in
        guard market == "both" || (market == "spot") == isSpot, !isSpot || sku.isSpotCapable,
          let price = (isSpot ? prices.spot : prices.onDemand)[sku.name] ?? configuration.prices[sku.name]
        else { return nil }
        return Flavor(
          provider: configuration.name, region: region, name: sku.name, cpu: sku.number("vCPUs"),
          memory: sku.number("MemoryGB"), disk: disk, gpu: sku.number("GPUs") > 0 ? sku.shortFamily : "",
          gpuCount: Int(sku.number("GPUs")), hasQuickDisks: sku.number("NvmeDiskSizeInMiB") > 0,
          isSpot: isSpot,
          eviction: isSpot ? eviction : 0, price: price)
      }
    }
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try own.check(order.key)
    if let known = try await machine(order.key) {
      guard known.provisioningState == "Failed" else { return known.instance }
      try await remove(order.key)
      throw ProviderError(.transient, "az: \(order.key) came to nothing, and was deleted")
    }
    do throws(ProviderError) {
      return try await create(order)
    } catch {
      // A failed create leaves the machine and its parts. Where it may still go on, they are left for the
      // next look.
      if [.capacity, .quota, .unsupported].contains(error.kind) { try? await remove(order.key) }
      throw error
    }
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try own.check(instance.key)
    try await remove(instance.key)
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    let query = "[].{id:id, name:name, location:location, provisioningState:provisioningState, tags:tags}"
    let machines = try await json(
      ["vm", "list", "--resource-group", group, "--query", query], as: [Machine].self
    )
    .filter { own.contains($0.name, tags: $0.tags) }
    let keys = Set(machines.map(\.name))
    // Parts without a machine are paid for as well: they are told of as a host that has not begun to run.
    var orphans: [String: Instance] = [:]
    for part in try await parts("\(OwnKeys.owner)=\(own.server)") {
      guard let key = part.tags?[OwnKeys.order], own.contains(key), !keys.contains(key),
        part.location == region
      else { continue }
      orphans[key] = Instance(key: key, id: part.id, region: region, state: .pending)
    }
    return machines.filter { $0.location == region }.map(\.instance)
      + orphans.values.sorted { $0.key < $1.key }
  }

  // MARK: - Calls

  private func create(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    let settings = configuration.settings
    let region = order.flavor.region
    return try await order.boot.handedOver(in: folder) { path throws(ProviderError) in
      var arguments = ["vm", "create", "--name", order.key, "--resource-group", group, "--location", region]
      arguments += [
        "--size", order.flavor.name, "--image", settings["image"] ?? "", "--custom-data", path.string,
      ]
      arguments += ["--admin-username", settings["admin_username"] ?? "scitq"]
      // A machine has a key, or a password, which would stand in the arguments. Without a configured key the client
      // takes that of the server's user, ~/.ssh/id_rsa, and makes it where there is none.
      arguments += settings["ssh_key"].map { ["--ssh-key-values", $0] } ?? ["--generate-ssh-keys"]
      if order.flavor.isSpot { arguments += ["--priority", "Spot", "--eviction-policy", "Delete"] }
      if let disk = settings["disk_gb"] { arguments += ["--os-disk-size-gb", disk] }
      if let subnet = settings["subnet"] {
        // It has a way out of its own.
        arguments += ["--subnet", subnet, "--public-ip-address", ""]
      } else {
        // One network for all machines of a region: it costs nothing and stays, and another is not made for
        // each.
        arguments += ["--vnet-name", "scitq-net-\(own.server)-\(region)", "--subnet", "workers"]
        arguments += ["--vnet-address-prefix", "10.0.0.0/16", "--subnet-address-prefix", "10.0.0.0/16"]
        arguments += ["--public-ip-address", order.key, "--public-ip-sku", "Standard"]
      }
      arguments += ["--nsg", "", "--nic-delete-option", "Delete", "--os-disk-delete-option", "Delete"]
      arguments += ["--tags", "\(OwnKeys.order)=\(order.key)", "\(OwnKeys.owner)=\(own.server)"]
      let made = try await json(arguments, as: Made.self, deadline: longDeadline)
      let address = [made.publicIpAddress, made.privateIpAddress].compactMap { $0 }.first { !$0.isEmpty }
      return Instance(key: order.key, id: made.id, region: region, state: .running, address: address ?? "")
    }
  }

  /// The machine of that name, if it is this server's.
  private func machine(_ key: String) async throws(ProviderError) -> Machine? {
    let found: Machine
    do throws(ProviderError) {
      found = try await json(["vm", "show", "--resource-group", group, "--name", key], as: Machine.self)
    } catch {
      if error.message.contains("(ResourceNotFound)") { return nil }
      throw error
    }
    guard own.contains(found.name, tags: found.tags) else {
      throw ProviderError(.misconfigured, "az: there is a machine \(key) in \(group) that is another's")
    }
    return found
  }

  /// Deletes the machine, and then what it has left.
  private func remove(_ key: String) async throws(ProviderError) {
    if try await machine(key) != nil {
      try await call(
        ["vm", "delete", "--resource-group", group, "--name", key, "--yes"], deadline: longDeadline)
    }
    let left = try await parts("\(OwnKeys.order)=\(key)").filter {
      $0.tags?[OwnKeys.owner] == own.server
    }
    guard !left.isEmpty else { return }
    try await call(["resource", "delete", "--ids"] + left.map(\.id), deadline: longDeadline)
  }

  /// What carries a tag in the resource group. Networks are all machines' own: they stay.
  private func parts(_ tag: String) async throws(ProviderError) -> [Part] {
    let query = "[].{id:id, type:type, group:resourceGroup, location:location, tags:tags}"
    let all = try await json(["resource", "list", "--tag", tag, "--query", query], as: [Part].self)
    return all.filter {
      $0.group.caseInsensitiveCompare(group) == .orderedSame && !$0.type.hasSuffix("/virtualNetworks")
        && $0.type != "Microsoft.Compute/virtualMachines"
    }
  }

  private func json<Value: Decodable>(
    _ arguments: [String], as type: Value.Type, deadline: Duration? = nil
  ) async throws(ProviderError) -> Value {
    let answer = try await call(arguments + ["-o", "json"], deadline: deadline ?? self.deadline)
    do { return try JSONDecoder().decode(type, from: Data(answer.output)) } catch {
      throw ProviderError(
        .transient,
        "az answered what cannot be understood: \(String(answer.text.prefix(200)).debugDescription)")
    }
  }

  @discardableResult
  private func call(_ arguments: [String], deadline: Duration) async throws(ProviderError)
    -> ClientProgram.Answer
  {
    let subscription = configuration.settings["subscription"].map { ["--subscription", $0] } ?? []
    var client = client
    // It tells nobody of its use, and asks for nothing.
    let manners = [
      "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_NO_COLOR": "yes",
      "AZURE_CORE_DISABLE_CONFIRM_PROMPT": "yes",
      "AZURE_CORE_DISPLAY_REGION_IDENTIFIED": "no",
    ]
    client.environment.merge(manners) { given, _ in given }
    let answer = await client.run(
      arguments + (arguments[0] == "rest" ? [] : subscription) + ["--only-show-errors"], deadline: deadline)
    switch answer.code {
    case 0: return answer
    case -1: throw ProviderError(.misconfigured, answer.error)
    case -2: throw ProviderError(.transient, answer.error)
    default: throw ProviderError(Self.classify(answer.error) ?? .transient, "az: \(Self.sentence(answer))")
    }
  }
}

// MARK: - Prices

extension AzureProvider {
  private struct PricePage: Decodable {
    struct Item: Decodable {
      var armSkuName: String?
      var skuName: String?
      var productName: String?
      var unitOfMeasure: String?
      var type: String?
      var retailPrice: Double?
    }

    var Items: [Item]
    var NextPageLink: String?
  }

  /// By the public list of prices, which asks for no account. Where it does not answer, the configured ones
  /// are enough, if there are any.
  private func prices(
    in region: String
  ) async throws(ProviderError) -> (onDemand: [String: Double], spot: [String: Double]) {
    let list = configuration.settings["prices_url"] ?? "https://prices.azure.com/api/retail/prices"
    var result: (onDemand: [String: Double], spot: [String: Double]) = ([:], [:])
    guard !list.isEmpty else { return result }
    let filter =
      "serviceName eq 'Virtual Machines' and armRegionName eq '\(region)' and priceType eq 'Consumption'"
    var question = [list, "--uri-parameters", "$filter=\(filter)"]
    do throws(ProviderError) {
      // A region has some ten pages; a list without an end is not followed.
      for _ in 0..<100 {
        let page = try await json(
          ["rest", "--method", "get", "--skip-authorization-header", "--url"] + question, as: PricePage.self)
        for item in page.Items {
          guard let name = item.armSkuName, let sku = item.skuName, let price = item.retailPrice, price > 0,
            item.unitOfMeasure == "1 Hour", item.type == "Consumption", !sku.hasSuffix("Low Priority"),
            let product = item.productName, !product.contains("Windows"), !product.contains("CloudServices")
          else { continue }
          if sku.hasSuffix("Spot") {
            result.spot[name] = min(price, result.spot[name] ?? price)
          } else {
            result.onDemand[name] = min(price, result.onDemand[name] ?? price)
          }
        }
        guard let next = page.NextPageLink, !next.isEmpty else { break }
        question = [next]
      }
    } catch {
      if configuration.prices.isEmpty { throw error }
    }
    return result
  }
}

// MARK: - What failures mean

extension AzureProvider {
  /// The innermost error of the service, `(Code) words`: around it the client prints others, or how it came
  /// to fail.
  static func sentence(_ answer: ClientProgram.Answer) -> String {
    let told = answer.error.matches(of: /\([A-Z][A-Za-z]+\) [^\n]+/).last
    return told.map { String($0.output.prefix(500)) } ?? answer.sentence
  }

  /// By the codes of the service, which the client prints in brackets.
  static func classify(_ text: String) -> ProviderError.Class? {
    func says(_ words: String...) -> Bool { words.contains { text.localizedCaseInsensitiveContains($0) } }
    if says("QuotaExceeded", "CountLimitReached") || (says("OperationNotAllowed") && says("quota")) {
      return .quota
    }
    if says(
      "SkuNotAvailable", "AllocationFailed", "OverconstrainedAllocationRequest",
      "OverconstrainedZonalAllocationRequest", "AllocationTimeout")
    {
      return .capacity
    }
    if says("AADSTS", "az login", "AuthorizationFailed", "AuthenticationToken", "AuthenticationFailed") {
      return .credentials
    }
    if says("VMSizeNotSupported", "InvalidVMSize", "cannot boot Hypervisor Generation", "VMSizeDoesntSupport")
      || (says("InvalidParameter", "BadRequest") && says("vmSize", "VM size"))
    {
      return .unsupported
    }
    if says(
      "ResourceGroupNotFound", "SubscriptionNotFound", "doesn't exist in cloud", "ImageNotFound",
      "Invalid image", "InvalidResourceReference", "MarketplacePurchaseEligibilityFailed",
      "unrecognized arguments", "arguments are required", "NoRegisteredProviderFound", "LocationNotAvailable",
      "MissingSubscriptionRegistration", "incorrect usage", "usage error", "InvalidArgumentValue")
    {
      return .misconfigured
    }
    return nil
  }
}

// MARK: - What the client prints

extension AzureProvider {
  private struct Machine: Decodable {
    var id: String
    var name: String
    var location: String
    var provisioningState: String
    var tags: [String: String]?

    var instance: Instance {
      // One that failed does not run, and is paid for until it is returned: the limit of those that do not
      // join ends it.
      let state: Instance.State =
        switch provisioningState {
        case "Creating", "Failed": .pending
        case "Deleting": .leaving
        default: .running
        }
      return Instance(key: name, id: id, region: location, state: state)
    }
  }

  private struct Made: Decodable {
    var id: String
    var publicIpAddress: String?
    var privateIpAddress: String?
  }

  private struct Part: Decodable {
    var id: String
    var type: String
    var group: String
    var location: String?
    var tags: [String: String]?
  }

  private struct SkuRow: Decodable {
    struct Capability: Decodable {
      var name: String
      var value: String
    }

    var name: String
    var family: String?
    var capabilities: [Capability]?
    var restrictions: [String]?

    func text(_ capability: String) -> String? { capabilities?.first { $0.name == capability }?.value }
    func number(_ capability: String) -> Double { text(capability).flatMap { Double($0) } ?? 0 }

    /// Not where the account may not, nor of another processor than images are commonly for.
    var isUsable: Bool {
      number("vCPUs") > 0 && text("CpuArchitectureType") != "Arm64"
        && restrictions?.contains("Location") != true
    }
    var isSpotCapable: Bool { text("LowPriorityCapable") == "True" }

    /// `standardNCASv3_T4Family` is `NCASv3_T4`: the service has no other word for its GPUs.
    var shortFamily: String {
      var word = family ?? name
      for part in ["Standard", "Family"] {
        word = word.replacing(part, with: "").replacing(part.lowercased(), with: "")
      }
      return word.trimmingCharacters(in: .whitespaces)
    }

    /// Families by their own name (`DSv5`) or by how the names of their sizes begin (`D`).
    func isOne(of families: [String]) -> Bool {
      families.isEmpty
        || families.contains { word in
          shortFamily.caseInsensitiveCompare(word) == .orderedSame
            || name.lowercased().hasPrefix("standard_\(word.lowercased())")
        }
    }
  }
}
