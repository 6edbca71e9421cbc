package import ScitqProtocol

/// What recruitment is decided by: all of it at one moment.
package struct FleetSnapshot: Sendable {
  /// Microseconds.
  package var now: Int64
  package var recruiters: [Recruiter]
  /// Those with recruiters, or with rented workers.
  package var steps: [StepID: StepNeed]
  package var workflows: [WorkflowID: WorkflowBounds]
  package var workers: [FleetWorker]
  package var offers: [Offer]
  /// Of a region that is not named nothing is known, so nothing bounds it.
  package var regions: [Region: RegionBounds]
  package var patience: Patience

  package init(
    now: Int64, recruiters: [Recruiter] = [], steps: [StepID: StepNeed] = [:],
    workflows: [WorkflowID: WorkflowBounds] = [:], workers: [FleetWorker] = [], offers: [Offer] = [],
    regions: [Region: RegionBounds] = [:], patience: Patience = Patience()
  ) {
    self.now = now
    self.recruiters = recruiters
    self.steps = steps
    self.workflows = workflows
    self.workers = workers
    self.offers = offers
    self.regions = regions
    self.patience = patience
  }
}

/// What a step asks for.
package struct StepNeed: Sendable, Hashable {
  package var workflow: WorkflowID
  /// Tasks that can run now, of each shape.
  package var demands: [Demand]
  /// There are more, which the limits of their owner keep from starting.
  package var isCut: Bool
  /// Tasks that may become ready and are on no worker, those of `demands` included.
  package var coming: Int
  /// Nothing of it is assigned now.
  package var isHeld: Bool

  package struct Demand: Sendable, Hashable {
    package var needs: Needs
    /// Of each task, in thousandths of a slot.
    package var weightMilli: Int64
    package var tasks: Int

    package init(needs: Needs, weightMilli: Int64 = 1000, tasks: Int) {
      self.needs = needs
      self.weightMilli = weightMilli
      self.tasks = tasks
    }
  }

  package init(
    workflow: WorkflowID, demands: [Demand] = [], isCut: Bool = false, coming: Int = 0, isHeld: Bool = false
  ) {
    self.workflow = workflow
    self.demands = demands
    self.isCut = isCut
    self.coming = coming
    self.isHeld = isHeld
  }
}

package struct WorkflowBounds: Sendable, Hashable {
  /// Nil: no bound.
  package var maximumWorkers: Int?
  /// As much was spent as may be: nothing more is bought.
  package var isSpent: Bool

  package init(maximumWorkers: Int? = nil, isSpent: Bool = false) {
    self.maximumWorkers = maximumWorkers
    self.isSpent = isSpent
  }
}

/// A worker, also one whose host is still being made.
package struct FleetWorker: Sendable, Hashable {
  package var id: WorkerID
  package var step: StepID?
  package var scope: WorkerScope
  package var concurrency: Int
  /// Σ weight of the tasks that hold its slots, in thousandths.
  package var loadMilli: Int64
  package var capacity: Needs
  /// Its host was rented, and is this.
  package var flavor: Flavor?
  /// Whose maximum it counts for.
  package var rank: Int?
  /// It has not reported yet.
  package var isDeploying: Bool
  /// Nobody was asked for its host yet: to give it up costs nothing.
  package var isOrdered: Bool
  /// It takes tasks: connected, and neither draining nor paused.
  package var isAvailable: Bool
  /// It leaves, and counts only where it costs.
  package var isLeaving: Bool
  package var isPermanent: Bool
  /// It has ended a task.
  package var hasWorked: Bool
  /// Since when it has had nothing to do, uploads included; nil: it has. Microseconds.
  package var idleSince: Int64?

  package init(
    id: WorkerID, step: StepID? = nil, scope: WorkerScope = .workflow, concurrency: Int = 1,
    loadMilli: Int64 = 0, capacity: Needs = Needs(), flavor: Flavor? = nil, rank: Int? = nil,
    isDeploying: Bool = false, isOrdered: Bool = false, isAvailable: Bool = true, isLeaving: Bool = false,
    isPermanent: Bool = false,
    hasWorked: Bool = true, idleSince: Int64? = nil
  ) {
    self.id = id
    self.step = step
    self.scope = scope
    self.concurrency = concurrency
    self.loadMilli = loadMilli
    self.capacity = capacity
    self.flavor = flavor
    self.rank = rank
    self.isDeploying = isDeploying
    self.isOrdered = isOrdered
    self.isAvailable = isAvailable
    self.isLeaving = isLeaving
    self.isPermanent = isPermanent
    self.hasWorked = hasWorked
    self.idleSince = idleSince
  }
}

/// A flavor that can be bought, or could be.
package struct Offer: Sendable, Hashable {
  package var flavor: Flavor
  package var isDefaultRegion: Bool
  /// What a worker on it is known, or expected, to offer to tasks.
  package var capacity: Needs
  /// How many of 100 were taken back lately, by our own record; nil: too few to tell.
  package var seenEviction: Double?
  /// Why it is not bought for now.
  package var obstacle: String?

  package init(
    flavor: Flavor, isDefaultRegion: Bool = true, capacity: Needs? = nil, seenEviction: Double? = nil,
    obstacle: String? = nil
  ) {
    self.flavor = flavor
    self.isDefaultRegion = isDefaultRegion
    self.capacity = capacity ?? Needs(of: flavor)
    self.seenEviction = seenEviction
    self.obstacle = obstacle
  }

  /// An hour's, with what is done again where a host is taken back.
  package var expectedPrice: Double {
    flavor.price * (1 + max(flavor.eviction, seenEviction ?? 0) / 100)
  }

  package var region: Region { Region(provider: flavor.provider, name: flavor.region) }
}

extension Needs {
  /// What a host of that flavor offers. Its system takes some of the memory that is sold; a disk that nobody tells of
  /// bounds nothing.
  package init(of flavor: Flavor) {
    self.init(
      cpuMilli: Self.whole(flavor.cpu * 1000),
      memoryMiB: Self.whole(flavor.memory * 1024 * 0.94),
      diskMiB: flavor.disk > 0 ? Self.whole(flavor.disk * 1024 * 0.9) : .max,
      gpu: Int32(clamping: flavor.gpuCount), seconds: .max, engines: [.containers, .processes])
  }

  /// Figures are of providers, and may be anything.
  private static func whole(_ value: Double) -> Int32 {
    value.isFinite ? Int32(max(0, min(value, Double(Int32.max)))) : 0
  }
}

/// A region of a provider.
package struct Region: Sendable, Hashable, Comparable, CustomStringConvertible {
  package var provider: String
  package var name: String

  package init(provider: String, name: String) {
    self.provider = provider
    self.name = name
  }

  package static func < (a: Region, b: Region) -> Bool { (a.provider, a.name) < (b.provider, b.name) }
  package var description: String { name == provider ? provider : "\(provider) \(name)" }
}

/// What may be had of a region at once, and what there is: derived from rows, those being made or deleted included.
package struct RegionBounds: Sendable, Hashable {
  package var cpu: Double?
  package var memory: Double?
  package var instances: Int?
  package var used: Used
  /// Why nothing is bought there for now.
  package var obstacle: String?

  package struct Used: Sendable, Hashable {
    package var cpu = 0.0
    package var memory = 0.0
    package var instances = 0

    package init(cpu: Double = 0, memory: Double = 0, instances: Int = 0) {
      self.cpu = cpu
      self.memory = memory
      self.instances = instances
    }

    package mutating func add(_ flavor: Flavor) {
      cpu += flavor.cpu
      memory += flavor.memory
      instances += 1
    }
  }

  package init(
    cpu: Double? = nil, memory: Double? = nil, instances: Int? = nil, used: Used = Used(),
    obstacle: String? = nil
  ) {
    self.cpu = cpu
    self.memory = memory
    self.instances = instances
    self.used = used
    self.obstacle = obstacle
  }

  /// Which bound one more host of that flavor would pass; nil: none.
  package func bound(against flavor: Flavor) -> String? {
    if let instances, used.instances + 1 > instances { return "\(used.instances) of \(instances) instances" }
    if let cpu, used.cpu + flavor.cpu > cpu { return "\(decimal(used.cpu)) of \(decimal(cpu)) cpus" }
    if let memory, used.memory + flavor.memory > memory {
      return "\(decimal(used.memory)) of \(decimal(memory)) GB of memory"
    }
    return nil
  }

  private func decimal(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15
      ? String(Int64(value)) : String((value * 10).rounded() / 10)
  }
}

/// How long rented workers are kept that have nothing to do. Microseconds.
package struct Patience: Sendable, Hashable {
  package var idle: Int64
  /// Of one that has never ended a task.
  package var newcomer: Int64

  package init(idle: Int64 = 300_000_000, newcomer: Int64 = 900_000_000) {
    self.idle = idle
    self.newcomer = newcomer
  }

  /// Where nothing more can come.
  package var short: Int64 { idle / 10 }
}

/// What is to be done, and why not more.
package struct FleetPlan: Sendable, Hashable {
  package struct Recycled: Sendable, Hashable {
    package var worker: WorkerID
    package var to: Recruiter.Key
    package var concurrency: Int
    package var prefetch: Int
  }
  package struct Bought: Sendable, Hashable {
    package var by: Recruiter.Key
    package var flavor: Flavor
    package var concurrency: Int
    package var prefetch: Int
  }
  package struct Returned: Sendable, Hashable {
    package var worker: WorkerID
    package var why: String
  }

  package var recycled: [Recycled] = []
  package var bought: [Bought] = []
  package var returned: [Returned] = []
  /// Since when each recruiter has a need that is not met; those without one are not named.
  package var needSince: [Recruiter.Key: Int64] = [:]
  /// How many slots were wanted of each, before anything was done.
  package var wanted: [Recruiter.Key: Int] = [:]
  /// Why a recruiter does no more, in a sentence without a full stop.
  package var remarks: [Recruiter.Key: [String]] = [:]

  package init() {}
}
