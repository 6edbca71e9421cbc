import Foundation
import Logging
import Scheduling
import Synchronization
import SystemPackage

/// A program of the operator's own that answers the four questions in JSON. `docs/providers.md` has the
/// format.
///
/// It is called with the question's word as its only argument. All else goes in by standard input, so that
/// the boot script's ticket is in no list of processes.
struct ExecProvider: Provider {
  let configuration: ProviderConfiguration
  let keys: OwnKeys
  var environment: [String: String] = [:]
  var deadline: Duration = .seconds(300)
  var logger = Logger(label: "scitq-server") { StreamLogHandler.standardError(label: $0) }
  private let unpriced = Unpriced()

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    keys = OwnKeys(server: server)
  }

  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    let answer = try await ask("flavors", Question(region: region), as: FlavorsAnswer.self)
    var flavors: [Flavor] = []
    var withoutPrice: [String] = []
    for told in answer.flavors {
      guard !told.name.isEmpty, told.cpu > 0, told.memory > 0, (told.price ?? 0) >= 0 else {
        throw misunderstood("a flavor \(told.name.debugDescription) that is none")
      }
      // The recruiter buys by price: what has none cannot be compared.
      guard let price = told.price ?? configuration.prices[told.name] else {
        withoutPrice.append(told.name)
        continue
      }
      flavors.append(
        Flavor(
          provider: configuration.name, region: region, name: told.name, cpu: told.cpu, memory: told.memory,
          disk: told.disk ?? 0, bandwidth: told.bandwidth ?? 0, gpu: told.gpu ?? "",
          gpuCount: told.gpu_count ?? 0, gpuMemory: told.gpu_memory ?? 0,
          hasQuickDisks: told.quick_disks ?? false, isSpot: told.spot ?? false,
          eviction: told.eviction ?? 0, price: price))
    }
    let new = unpriced.notYetTold(of: withoutPrice)
    if !new.isEmpty {
      logger.warning(
        "flavors without a price are not used; give them one below prices",
        metadata: ["provider": "\(configuration.name)", "flavors": "\(new.joined(separator: ", "))"])
    }
    return flavors
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let question = Question(
      region: order.flavor.region, key: order.key, flavor: order.flavor.name, spot: order.flavor.isSpot,
      concurrency: order.concurrency, boot: order.boot.text, pilot: order.boot.pilot.text)
    let told = try await ask("deploy", question, as: InstanceAnswer.self).instance
    guard told.key == order.key else { throw misunderstood("the host of \(told.key.debugDescription)") }
    return try instance(told, in: order.flavor.region)
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    let question = Question(region: instance.region, key: instance.key, id: instance.id)
    _ = try await ask("terminate", question, as: [String: String].self)
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    let question = Question(region: region, prefix: keys.prefix)
    let answer = try await ask("instances", question, as: InstancesAnswer.self)
    var found: [Instance] = []
    for told in answer.instances where keys.contains(told.key) {
      found.append(try instance(told, in: region))
    }
    return found
  }

  private func instance(_ told: ToldInstance, in region: String) throws(ProviderError) -> Instance {
    guard let state = Instance.State(rawValue: told.state), !told.id.isEmpty else {
      throw misunderstood("a host in the state \(told.state.debugDescription)")
    }
    return Instance(
      key: told.key, id: told.id, region: region, state: state, address: told.address ?? "",
      endsAt: told.ends_at.flatMap(Instance.moment))
  }

  private var program: String { configuration.settings["program"] ?? "" }

  private func misunderstood(_ what: String) -> ProviderError {
    ProviderError(.transient, "\(program) answered what cannot be understood: \(what)")
  }

  private func ask<Answer: Decodable>(
    _ word: String, _ question: Question, as type: Answer.Type
  ) async throws(ProviderError) -> Answer {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let input = try? encoder.encode(question) else { throw misunderstood("nothing: it was not asked") }
    let answer = await ClientProgram(program: program, environment: environment)
      .run([word], input: String(decoding: input, as: UTF8.self), deadline: deadline)
    if answer.code == -1 { throw ProviderError(.misconfigured, answer.error) }
    if answer.code == -2 { throw ProviderError(.transient, answer.error) }
    let data = Data(answer.output)
    // Also with a status of 0: who says that it failed is believed.
    if let failure = try? JSONDecoder().decode(ErrorAnswer.self, from: data).error {
      throw ProviderError(
        ProviderError.Class(rawValue: failure.class) ?? .transient,
        "\(program): \(failure.message.prefix(500))", limit: failure.limit)
    }
    guard answer.isSuccess else {
      throw ProviderError(.transient, "\(program) \(word) ended with \(answer.code): \(answer.sentence)")
    }
    do { return try JSONDecoder().decode(Answer.self, from: data) } catch {
      throw misunderstood(String(answer.text.prefix(200)).debugDescription)
    }
  }
}

/// The flavors that were told of as having no price: they are asked for again and again, and once is enough.
private final class Unpriced: Sendable {
  private let told = Mutex<Set<String>>([])

  func notYetTold(of names: [String]) -> [String] {
    told.withLock { told in names.filter { told.insert($0).inserted } }
  }
}

// The names are those of the JSON.

private struct Question: Encodable {
  var region: String
  var key: String?
  var id: String?
  var flavor: String?
  var spot: Bool?
  var concurrency: Int?
  var boot: String?
  var pilot: String?
  var prefix: String?
}

private struct ErrorAnswer: Decodable {
  struct Failure: Decodable {
    var `class`: String
    var message: String
    var limit: Int?
  }
  var error: Failure
}

private struct FlavorsAnswer: Decodable {
  struct ToldFlavor: Decodable {
    var name: String
    var cpu: Double
    var memory: Double
    var disk: Double?
    var bandwidth: Double?
    var gpu: String?
    var gpu_count: Int?
    var gpu_memory: Double?
    var quick_disks: Bool?
    var spot: Bool?
    var eviction: Double?
    var price: Double?
  }
  var flavors: [ToldFlavor]
}

private struct ToldInstance: Decodable {
  var key: String
  var id: String
  var state: String
  var address: String?
  var ends_at: Int64?
}

private struct InstanceAnswer: Decodable { var instance: ToldInstance }
private struct InstancesAnswer: Decodable { var instances: [ToldInstance] }
