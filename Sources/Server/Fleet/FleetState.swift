import Scheduling
import ScitqProtocol

/// What the engine holds of rented hosts: a mirror of the tables `instance`, `flavor`, `region`, `recruiter` and
/// `instance_use`.
struct FleetState: Sendable {
  /// This server's own word in the tags of its hosts.
  var server = ""
  var recruiters: [Recruiter.Key: Recruiter] = [:]
  var flavors: [FlavorRow.Key: FlavorRow] = [:]
  var flavorKeys: [Int64: FlavorRow.Key] = [:]
  var regions: [Region: RegionRow] = [:]
  /// Those that have not ended.
  var instances: [InstanceID: InstanceRow] = [:]
  /// What each host is paid for now, and since when.
  var uses: [InstanceID: Use] = [:]
  /// What was paid for the steps of each workflow, open uses aside.
  var paid: [WorkflowID: Double] = [:]
  var nextInstance: Int64 = 1
  var nextFlavor: Int64 = 1

  // What the database has none or a part of: it is found out anew.
  /// Since when rented workers have had nothing to do.
  var idleSince: [WorkerID: Int64] = [:]
  /// Those that were given something since the last pass.
  var busy: Set<WorkerID> = []
  /// Those that said that they leave.
  var leaving: Set<WorkerID> = []
  /// How often in a row their provider did not know them.
  var missing: [InstanceID: Int] = [:]
  /// Where a host was had since one was last refused: only there more than one is asked for at a time.
  var trusted: Set<Region> = []
  /// Where hosts of late have come to be workers: elsewhere it is seen with one whether they do.
  var proven: Set<Region> = []
  /// When hosts of a region ended: for some minutes more their provider counts them.
  var ends: [Region: [Int64]] = [:]
  /// Those that did not answer when they were asked what there is, and have refused nothing since.
  var silent: Set<Region> = []

  struct Use: Sendable {
    var workflow: WorkflowID?
    var since: Int64
  }

  func flavor(of instance: InstanceRow) -> FlavorRow? {
    flavorKeys[instance.flavorID].flatMap { flavors[$0] }
  }

  func instance(of worker: WorkerRow) -> InstanceRow? { worker.instance.flatMap { instances[$0] } }

  /// What of a region is used, by rows: those being made or returned included.
  func used() -> [Region: RegionBounds.Used] {
    var used: [Region: RegionBounds.Used] = [:]
    for instance in instances.values {
      guard let row = flavor(of: instance) else { continue }
      used[row.region, default: .init()].add(row.flavor)
    }
    return used
  }

  static func cost(_ price: Double, from start: Int64, to end: Int64) -> Double {
    price * Double(max(0, end - start)) / 3_600_000_000
  }
}

/// What is to be asked of a provider.
enum FleetErrand: Sendable {
  /// Where `lookFirst`, it was asked before and nobody knows what came of it.
  case deploy(InstanceRow, Flavor, concurrency: Int, prefetch: Int, lookFirst: Bool)
  case terminate(InstanceRow, Region)

  var instance: InstanceID {
    switch self {
    case .deploy(let row, _, _, _, _), .terminate(let row, _): row.id
    }
  }

  var region: Region {
    switch self {
    case .deploy(_, let flavor, _, _, _): Region(provider: flavor.provider, name: flavor.region)
    case .terminate(_, let region): region
    }
  }
}

/// What providers have answered, and what hosts say while they boot.
enum FleetReport: Sendable {
  /// The provider is about to be asked for a host.
  case attempting(InstanceID)
  case deployed(InstanceID, Instance, isFree: Bool)
  case refused(InstanceID, ProviderError)
  /// It was asked for before, and nobody can tell what came of it.
  case unclear(InstanceID, ProviderError)
  case returned(InstanceID)
  /// It could not be returned.
  case kept(InstanceID, ProviderError)
  /// All that there is, as of a time; what is pending is not paid for where the provider queues.
  case seen(Region, [Instance], at: Int64, queues: Bool)
  case flavors(Region, [Flavor])
  case troubled(Region, ProviderError)
  case progress(InstanceID, phase: String, words: String)
  /// A host with our tag that nobody knows was returned.
  case swept(Region, key: String)
}
