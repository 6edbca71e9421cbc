import Foundation
import Logging
import Scheduling
import ScitqProtocol
import ServiceLifecycle
import SystemPackage

/// Does what the engine's rows ask of providers, and tells it what became of it.
///
/// It keeps nothing that is worth keeping: after a restart the rows say what is to be done, and an order that may have
/// been carried out is looked for before it is given again.
struct Fleet: Service {
  let engine: Engine
  let providers: [(configuration: ProviderConfiguration, provider: any Provider)]
  let configuration: Configuration
  let tickets: Tickets
  let boot: BootSource
  let logger: Logger

  init(
    engine: Engine, configuration: Configuration, server: String, folder: FilePath, tickets: Tickets,
    boot: BootSource, logger: Logger
  ) {
    self.engine = engine
    self.configuration = configuration
    self.tickets = tickets
    self.boot = boot
    self.logger = logger
    providers = configuration.providers.map {
      let own = folder.appending($0.name)
      BootScript.sweep(own)
      return ($0, $0.provider(server: server, folder: own))
    }
  }

  /// Calls under way at once, of each provider: one that is slow keeps no other one waiting.
  private static let width = 8

  func run() async throws {
    guard !providers.isEmpty else {
      try? await gracefulShutdown()
      return
    }
    await cancelWhenGracefulShutdown {
      // It answers once it has read its rows.
      try? await engine.write { _ in }
      await withDiscardingTaskGroup { group in
        group.addTask { await runErrands() }
        let withHosts = await engine.regionsWithHosts()
        for (configuration, provider) in providers {
          for region in configuration.regions {
            let place = Region(provider: configuration.name, name: region)
            group.addTask { await refresh(place, provider) }
            group.addTask { await reconcile(place, provider, configuration.kind) }
          }
          // What is left in regions that are not configured any more is not forgotten.
          for place in withHosts
          where place.provider == configuration.name && !configuration.regions.contains(place.name) {
            group.addTask { await reconcile(place, provider, configuration.kind) }
          }
        }
      }
    }
  }

  private func provider(of region: Region) -> (kind: ProviderConfiguration.Kind, provider: any Provider)? {
    providers.first { $0.configuration.name == region.provider }.map { ($0.configuration.kind, $0.provider) }
  }

  // MARK: Orders

  private func runErrands() async {
    let underWay = UnderWay()
    await withDiscardingTaskGroup { group in
      while !Task.isCancelled {
        for errand in await engine.errands(besides: underWay.instances) {
          guard await underWay.begin(errand, atMost: Self.width) else { continue }
          group.addTask {
            await carryOut(errand)
            await underWay.end(errand.instance)
          }
        }
        let next = await engine.nextErrand().map { Duration.microseconds(max(0, $0 - microsecondsNow())) }
        await wait(for: underWay, atMost: min(next ?? .seconds(60), .seconds(60)))
      }
    }
  }

  /// Until there is more to do, or something has ended.
  private func wait(for underWay: UnderWay, atMost limit: Duration) async {
    await withTaskGroup { group in
      group.addTask { await engine.errandBell.ring() }
      group.addTask { await underWay.bell.ring() }
      group.addTask { try? await Task.sleep(for: max(limit, .milliseconds(10))) }
      await group.next()
      group.cancelAll()
    }
  }

  private func carryOut(_ errand: FleetErrand) async {
    guard let (kind, provider) = provider(of: errand.region) else { return await unknown(errand) }
    switch errand {
    case .deploy(let row, let flavor, let concurrency, let prefetch, let lookFirst):
      if lookFirst {
        do throws(ProviderError) {
          let found = try await provider.instances(in: flavor.region).first { $0.key == row.key }
          if let found { return await tell(.deployed(row.id, found, isFree: isFree(found, kind))) }
          if row.isUnwanted { return await tell(.returned(row.id)) }
        } catch {
          await tell(.troubled(errand.region, error))
          return await tell(.unclear(row.id, error))
        }
      }
      do {
        try await ask(.attempting(row.id))
      } catch {
        return
      }
      do throws(ProviderError) {
        var script = try await boot.script(
          for: row, ticket: tickets.ticket(for: row.id), concurrency: concurrency, prefetch: prefetch,
          isLocal: kind == .local)
        switch kind {
        case .aws, .azure, .gcp: script.metadata = kind.rawValue
        case .local: script.share = (flavor.cpu, flavor.memory)
        default: break
        }
        let instance = try await provider.deploy(
          InstanceOrder(key: row.key, flavor: flavor, boot: script, concurrency: concurrency))
        await tell(.deployed(row.id, instance, isFree: isFree(instance, kind)))
        logger.info(
          "a host was ordered",
          metadata: [
            "order": "\(row.key)", "host": "\(instance.id)", "flavor": "\(flavor.name)",
            "region": "\(errand.region)", "price": "\(flavor.price)",
          ])
      } catch {
        logger.warning(
          "a host was not deployed",
          metadata: ["order": "\(row.key)", "class": "\(error.kind.rawValue)", "why": "\(error.message)"])
        await tell(.refused(row.id, error))
      }
    case .terminate(let row, let region):
      do throws(ProviderError) {
        try await provider.terminate(
          Instance(
            key: row.key, id: row.reference, region: region.name, state: .leaving, address: row.address))
        await tell(.returned(row.id))
        logger.info("a host was returned", metadata: ["order": "\(row.key)", "host": "\(row.reference)"])
      } catch {
        logger.warning(
          "a host was not returned",
          metadata: ["order": "\(row.key)", "class": "\(error.kind.rawValue)", "why": "\(error.message)"])
        await tell(.kept(row.id, error))
      }
    }
  }

  /// Its provider is not configured any more.
  private func unknown(_ errand: FleetErrand) async {
    let error = ProviderError(
      .misconfigured,
      "the configuration has no provider \(errand.region.provider); put it back, or delete the worker "
        + "with --undeployed")
    switch errand {
    case .deploy(let row, _, _, _, let lookFirst):
      await tell(lookFirst ? .unclear(row.id, error) : .refused(row.id, error))
    case .terminate(let row, _): await tell(.kept(row.id, error))
    }
  }

  private func isFree(_ instance: Instance, _ kind: ProviderConfiguration.Kind) -> Bool {
    kind.queues && instance.state == .pending
  }

  @discardableResult
  private func ask(_ report: FleetReport) async throws(CallError) -> [Instance] {
    try await engine.ask { .fleet(report, $0) }
  }

  /// What has happened is told until the engine has it: it has happened.
  private func tell(_ report: FleetReport) async {
    while !Task.isCancelled {
      do {
        try await ask(report)
        return
      } catch {
        logger.error("the engine does not take what a provider said", metadata: ["error": "\(error)"])
        try? await Task.sleep(for: .seconds(1))
      }
    }
  }

  // MARK: Flavors

  private func refresh(_ region: Region, _ provider: any Provider) async {
    var failures = 0
    while !Task.isCancelled {
      do throws(ProviderError) {
        await tell(.flavors(region, try await provider.flavors(in: region.name)))
        failures = 0
      } catch {
        failures += 1
        logger.warning(
          "flavors cannot be read; those known are kept",
          metadata: ["region": "\(region)", "class": "\(error.kind.rawValue)", "why": "\(error.message)"])
        await tell(.troubled(region, error))
      }
      // At once a minute at most into a wall, and less often the longer it stands.
      let pause =
        failures == 0
        ? configuration.fleet.refreshInterval
        : min(.seconds(60 << Int64(min(failures - 1, 4))), configuration.fleet.refreshInterval)
      try? await Task.sleep(for: pause)
    }
  }

  // MARK: What there is

  private func reconcile(_ region: Region, _ provider: any Provider, _ kind: ProviderConfiguration.Kind) async
  {
    var interval = configuration.fleet.reconcileInterval
    // A pilot that is suspended would be taken for lost otherwise.
    if kind.queues { interval = min(interval, configuration.workers.offlineTimeout / 3) }
    var strangers: [Instance: Int64] = [:]
    var failures = 0
    while !Task.isCancelled {
      do throws(ProviderError) {
        let asked = microsecondsNow()
        let found = try await provider.instances(in: region.name)
        failures = 0
        let unknown = (try? await ask(.seen(region, found, at: asked, queues: kind.queues))) ?? []
        // By what tells one from another: its state and address may change.
        let now = microsecondsNow()
        var remembered: [Instance: Int64] = [:]
        for stranger in unknown where stranger.state != .leaving {
          var identity = Instance(
            key: stranger.key, id: stranger.id, region: stranger.region, state: .running)
          identity.address = ""
          let since = strangers[identity] ?? now
          remembered[identity] = since
          guard now - since >= configuration.fleet.orphanGrace.microseconds else { continue }
          logger.notice("a host that no order knows is returned", metadata: ["host": "\(stranger.key)"])
          do throws(ProviderError) {
            try await provider.terminate(stranger)
            remembered[identity] = nil
            await tell(.swept(region, key: stranger.key))
          } catch {
            // The next one may go.
            logger.warning(
              "a host that no order knows was not returned; it is tried again",
              metadata: ["host": "\(stranger.key)", "why": "\(error.message)"])
          }
        }
        strangers = remembered
      } catch {
        failures += 1
        await tell(.troubled(region, error))
      }
      // A queue that does not answer is asked as often as ever: which pilots stand still has to be known
      // within a lease, and after an outage first of all.
      let pause =
        failures == 0 || kind.queues
        ? interval : max(interval, .seconds(60 << Int64(min(failures - 1, 4))))
      try? await Task.sleep(for: pause)
    }
  }
}

/// Which errands are being carried out.
private actor UnderWay {
  private var providers: [InstanceID: String] = [:]
  nonisolated let bell = Bell()

  var instances: Set<InstanceID> { Set(providers.keys) }

  /// False where its provider has as many already.
  func begin(_ errand: FleetErrand, atMost width: Int) -> Bool {
    let provider = errand.region.provider
    guard providers.values.count(where: { $0 == provider }) < width else { return false }
    providers[errand.instance] = provider
    return true
  }

  func end(_ id: InstanceID) {
    providers[id] = nil
    bell.strike()
  }
}
