import Foundation
import Scheduling
import SystemPackage

/// Servers of an OpenStack cloud, by its client `openstack`.
///
/// Names are not unique there and a create has no token, so that the order's key is looked for before a
/// server is made, and again after it. What the scheduler thinks of an order shows only then, as a server in
/// the state ERROR: such a server is deleted at once, and its fault is the answer.
struct OpenStackProvider: Provider {
  var client = ClientProgram(program: "openstack")
  /// How long one call may take.
  var deadline = Duration.seconds(120)
  /// How long a new server is looked at until the scheduler has found a place for it, and between two looks.
  var settling = (limit: Duration.seconds(60), pause: Duration.seconds(2))

  private let configuration: ProviderConfiguration
  private let own: OwnKeys
  private let folder: FilePath

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    self.own = OwnKeys(server: server)
    self.folder = folder
  }

  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    let rows = try await json(["flavor", "list", "--long"], in: region, as: [FlavorRow].self)
    return rows.compactMap { row in
      guard let price = configuration.prices[row.name] else { return nil }
      let gpu = row.gpu
      return Flavor(
        provider: configuration.name, region: region, name: row.name, cpu: row.vcpus, memory: row.ram / 1024,
        disk: row.disk, gpu: gpu?.name ?? "", gpuCount: gpu?.count ?? 0, price: price)
    }
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try own.check(order.key)
    let region = order.flavor.region
    let known = try await servers(named: order.key, in: region).first
    var server: ServerRow
    if let known { server = known } else { server = try await create(order) }
    let clock = ContinuousClock()
    let end = clock.now + settling.limit
    while true {
      if server.status == "ERROR" { throw try await failure(of: server, in: region) }
      if server.isPlaced || clock.now >= end { return instance(server, in: region) }
      do { try await Task.sleep(for: settling.pause) } catch { return instance(server, in: region) }
      let all = try await servers(named: order.key, in: region)
      // Two calls at once may both have found nothing: both keep the same one.
      if all.count > 1 { try await delete(all.dropFirst().map(\.id), in: region) }
      if let first = all.first { server = first }
    }
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try own.check(instance.key)
    // Asked for by its key, and not by the id alone: what is deleted has this server's tags, or it is not
    // deleted.
    let found = try await servers(named: instance.key, in: instance.region)
    try await delete(found.map(\.id), in: instance.region)
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    try await servers(matching: "^\(own.prefix)", in: region).map { instance($0, in: region) }
  }

  // MARK: - Calls

  private func create(_ order: InstanceOrder) async throws(ProviderError) -> ServerRow {
    let region = order.flavor.region
    return try await order.boot.handedOver(in: folder) { path throws(ProviderError) in
      var arguments = ["server", "create", "--flavor", order.flavor.name]
      arguments += ["--image", configuration.settings["image"] ?? ""]
      arguments += ["--network", configuration.settings["network"] ?? ""]
      for group in configuration.lists["security_groups"] ?? [] { arguments += ["--security-group", group] }
      if let key = configuration.settings["key_name"] { arguments += ["--key-name", key] }
      arguments += ["--property", "\(OwnKeys.order)=\(order.key)"]
      arguments += ["--property", "\(OwnKeys.owner)=\(own.server)"]
      arguments += ["--user-data", path.string]
      // Of the columns these alone: another one has the password of the new server.
      arguments += ["-c", "id", "-c", "status", order.key]
      let made = try await json(arguments, in: region, as: MadeRow.self)
      return ServerRow(id: made.id, name: order.key, status: made.status)
    }
  }

  /// Why a server came to nothing. It is deleted: it counts against the quota, and will never run.
  private func failure(of server: ServerRow, in region: String) async throws(ProviderError) -> ProviderError {
    let shown = try? await json(["server", "show", "-c", "fault", server.id], in: region, as: ShownRow.self)
    try await delete([server.id], in: region)
    let fault = shown?.fault?.message ?? "the cloud does not say why"
    return ProviderError(
      Self.classify(fault) ?? .transient,
      "openstack: \(server.name ?? server.id) came to nothing: \(fault.prefix(300))",
      limit: Self.limit(fault))
  }

  private func delete(_ ids: [String], in region: String) async throws(ProviderError) {
    guard !ids.isEmpty else { return }
    let arguments = global(region) + ["server", "delete"] + ids
    let answer = await client.run(arguments, deadline: deadline)
    if answer.isSuccess { return }
    // Of several it says which it could not delete, a line each: all of those must be gone already.
    let lines = answer.error.split(whereSeparator: \.isNewline).filter { $0.contains("Failed to delete") }
    let gone = ["No Server found", "could not be found", "HTTP 404"]
    if answer.code > 0, !lines.isEmpty, lines.allSatisfy({ line in gone.contains { line.contains($0) } }) {
      return
    }
    throw Self.error(answer)
  }

  private func servers(named key: String, in region: String) async throws(ProviderError) -> [ServerRow] {
    try await servers(matching: "^\(key)$", in: region).filter { $0.name == key }
  }

  /// This server's, by their ids: the order is the same for all who ask.
  private func servers(matching pattern: String, in region: String) async throws(ProviderError) -> [ServerRow]
  {
    // --no-name-lookup: names of images and flavors take more requests, and are not read.
    let rows = try await json(
      ["server", "list", "--long", "--no-name-lookup", "--name", pattern], in: region, as: [ServerRow].self)
    // A part of the cloud that does not answer leaves an id without a name: which hosts there are is not
    // known then.
    if rows.contains(where: { $0.status == "UNKNOWN" && ($0.name ?? "").isEmpty }) {
      throw ProviderError(
        .transient, "openstack: a part of the region \(region) does not tell of its servers")
    }
    return rows.filter { own.contains($0.name ?? "", tags: $0.properties) }.sorted { $0.id < $1.id }
  }

  private func json<Value: Decodable>(
    _ arguments: [String], in region: String, as type: Value.Type
  ) async throws(ProviderError) -> Value {
    let all = global(region) + arguments.prefix(2) + ["-f", "json"] + arguments.dropFirst(2)
    do throws(ProviderError) {
      return try await client.json(all, as: type, deadline: deadline, classify: Self.classify)
    } catch {
      var error = error
      if error.kind == .quota { error.limit = Self.limit(error.message) }
      throw error
    }
  }

  private func global(_ region: String) -> [String] {
    var arguments: [String] = []
    if let cloud = configuration.settings["cloud"] { arguments += ["--os-cloud", cloud] }
    if let endpoint = configuration.settings["endpoint"] { arguments += ["--os-auth-url", endpoint] }
    // A provider without regions has one of its kind's name, which the cloud does not know.
    if region != configuration.kind.rawValue { arguments += ["--os-region-name", region] }
    return arguments
  }
}

// MARK: - What failures mean

extension OpenStackProvider {
  /// By the words of the services; the client adds no codes of its own.
  static func classify(_ text: String) -> ProviderError.Class? {
    func says(_ words: String...) -> Bool { words.contains { text.localizedCaseInsensitiveContains($0) } }
    if says(
      "no valid host", "NoValidHost", "MaxRetriesExceeded", "exceeded maximum number of retries",
      "insufficient compute resources", "not enough hosts")
    {
      return .capacity
    }
    if says("quota exceeded", "exceeded for quota", "QuotaError", "TooManyInstances", "over quota") {
      return .quota
    }
    if says(
      "No Flavor found", "FlavorNotFound", "FlavorDisk", "FlavorMemory", "Only volume-backed servers",
      "too small for requested image") || (says("Flavor ") && says("could not be found"))
    {
      return .unsupported
    }
    if says(
      "HTTP 401", "401: Client Error", "requires authentication", "Missing value", "Unauthorized",
      "HTTP 403", "403: Client Error", "ForbiddenException")
    {
      return .credentials
    }
    if says(
      "was not found.", "No Image found", "No Network found", "No SecurityGroup found", "Invalid key_name",
      "region not found", "unrecognized arguments", "is not an openstack command", "More than one")
    {
      return .misconfigured
    }
    return nil
  }

  /// How many instances the account may have: `Quota exceeded for cores, instances: Requested 2, 1, but
  /// already used 20, 10 of 20, 10 cores, instances`, where the limits stand in the order of the names.
  static func limit(_ text: String) -> Int? {
    guard let words = text.firstMatch(of: /exceeded for ([a-z_, ]+): Requested .*? of ([0-9, ]+)/) else {
      return nil
    }
    func parts(_ list: Substring) -> [String] {
      list.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let limits = parts(words.2)
    guard let place = parts(words.1).firstIndex(of: "instances"), place < limits.count else { return nil }
    return Int(limits[place])
  }

  static func error(_ answer: ClientProgram.Answer) -> ProviderError {
    switch answer.code {
    case -1: ProviderError(.misconfigured, answer.error)
    case -2: ProviderError(.transient, answer.error)
    default:
      ProviderError(classify(answer.error + answer.text) ?? .transient, "openstack: \(answer.sentence)")
    }
  }
}

// MARK: - What the client prints

extension OpenStackProvider {
  private struct FlavorRow: Decodable {
    var name: String
    var ram: Double
    var disk: Double
    var vcpus: Double
    var properties: [String: String]?

    private enum CodingKeys: String, CodingKey {
      case name = "Name"
      case ram = "RAM"
      case disk = "Disk"
      case vcpus = "VCPUs"
      case properties = "Properties"
    }

    /// Whole devices, by the name that the cloud's operator gave them (`a100:2`), or a part of one.
    var gpu: (name: String, count: Int)? {
      let alias = properties?["pci_passthrough:alias"]?.split(separator: ",").first?.split(separator: ":")
      if let alias, let name = alias.first {
        return (String(name), alias.count > 1 ? Int(alias[1]) ?? 1 : 1)
      }
      return properties?["resources:VGPU"].flatMap { Int($0) }.map { ("vgpu", $0) }
    }
  }

  private struct MadeRow: Decodable {
    var id: String
    var status: String
  }

  private struct ShownRow: Decodable {
    struct Fault: Decodable {
      var message: String
    }

    var fault: Fault?
  }

  private struct ServerRow: Decodable {
    var id: String
    var name: String?
    var status: String
    var task: String?
    var networks: [String: [String]]?
    var properties: [String: String]?

    private enum CodingKeys: String, CodingKey {
      case id = "ID"
      case name = "Name"
      case status = "Status"
      case task = "Task State"
      case networks = "Networks"
      case properties = "Properties"
    }

    init(id: String, name: String, status: String) {
      self.id = id
      self.name = name
      self.status = status
    }

    /// The scheduler has found a place for it.
    var isPlaced: Bool { status != "BUILD" || !["scheduling", "None", ""].contains(task ?? "") }

    var state: Instance.State {
      if task == "deleting" || task == "soft-deleting" { return .leaving }
      return switch status {
      case "DELETED", "SOFT_DELETED": .leaving
      case "SUSPENDED", "PAUSED", "SHELVED", "SHELVED_OFFLOADED": .suspended
      // One that failed or was shut down does not run, and is paid for until it is returned: the limit of
      // those that do not join ends it.
      case "BUILD", "ERROR", "SHUTOFF": .pending
      default: .running
      }
    }
  }

  private func instance(_ row: ServerRow, in region: String) -> Instance {
    let addresses = (row.networks ?? [:]).sorted { $0.key < $1.key }.flatMap(\.value)
    return Instance(
      key: row.name ?? "", id: row.id, region: region, state: row.state,
      address: addresses.first { $0.contains(".") } ?? addresses.first ?? "")
  }
}
