import Scheduling
import ScitqProtocol
import Testing

@Suite("Recruitment")
struct RecruitmentTests {
  private static func flavor(
    _ name: String, cpu: Double = 4, memory: Double = 16, price: Double = 1, region: String = "r",
    eviction: Double = 0
  ) -> Flavor {
    Flavor(
      provider: "p", region: region, name: name, cpu: cpu, memory: memory, disk: 100, eviction: eviction,
      price: price)
  }

  private static func recruiter(
    _ step: Int64 = 1, rank: Int = 1, filter: String = "", most: Int? = nil, rounds: Int = 1,
    timeout: Int = 0,
    concurrency: Int = 4
  ) throws -> Recruiter {
    Recruiter(
      key: .init(step: StepID(step), rank: rank), filter: try FlavorFilter(filter),
      concurrency: .fixed(concurrency), maximumWorkers: most, rounds: rounds, timeout: timeout)
  }

  private static func need(_ tasks: Int, workflow: Int64 = 1, needs: Needs = Needs()) -> StepNeed {
    StepNeed(workflow: WorkflowID(workflow), demands: [.init(needs: needs, tasks: tasks)], coming: tasks)
  }

  @Test("the need is the tasks by rounds, less the slots that are free or on their way")
  func need() throws {
    var snapshot = FleetSnapshot(
      now: 0, recruiters: [try Self.recruiter(rounds: 2)], steps: [1: Self.need(30)])
    snapshot.offers = [Offer(flavor: Self.flavor("a"))]
    #expect(Recruitment.plan(snapshot).bought.count == 4)
    snapshot.workers = [
      FleetWorker(
        id: 1, step: 1, concurrency: 4, capacity: Needs(of: Self.flavor("a")), flavor: Self.flavor("a"),
        isDeploying: true),
      FleetWorker(
        id: 2, step: 1, concurrency: 4, loadMilli: 3000, capacity: Needs(of: Self.flavor("a")),
        flavor: Self.flavor("a")),
    ]
    let plan = Recruitment.plan(snapshot)
    #expect(plan.wanted[.init(step: 1, rank: 1)] == 10)
    #expect(plan.bought.count == 3)
  }

  @Test("a need must last, and a purchase must have been some time ago; a need that goes is forgotten")
  func patience() throws {
    let key = Recruiter.Key(step: 1, rank: 1)
    var snapshot = FleetSnapshot(
      now: 5_000_000, recruiters: [try Self.recruiter(timeout: 10)], steps: [1: Self.need(3)])
    snapshot.offers = [Offer(flavor: Self.flavor("a"))]
    var plan = Recruitment.plan(snapshot)
    #expect(plan.bought.isEmpty && plan.needSince[key] == 5_000_000)
    snapshot.recruiters[0].needSince = 5_000_000
    snapshot.now = 15_000_000
    plan = Recruitment.plan(snapshot)
    #expect(plan.bought.count == 1)
    snapshot.recruiters[0].boughtAt = 14_000_000
    #expect(Recruitment.plan(snapshot).bought.isEmpty)
    snapshot.steps[1] = Self.need(0)
    #expect(Recruitment.plan(snapshot).needSince[key] == nil)
  }

  @Test("the cheapest for what is used of it is bought, evictions and needs counted")
  func cheapest() throws {
    var snapshot = FleetSnapshot(
      now: 0, recruiters: [try Self.recruiter(filter: "eviction<=100", concurrency: 1)],
      steps: [1: Self.need(1)])
    snapshot.recruiters[0].concurrency = .adaptive(cpu: 1, memory: nil, disk: nil, least: nil, most: nil)
    snapshot.offers = [
      Offer(flavor: Self.flavor("large", cpu: 32, price: 1.6)),
      Offer(flavor: Self.flavor("small", cpu: 2, price: 0.3)),
      Offer(flavor: Self.flavor("cheap", cpu: 2, price: 0.2, eviction: 80)),
    ]
    #expect(Recruitment.plan(snapshot).bought.map(\.flavor.name) == ["small"])
    snapshot.steps[1] = Self.need(32)
    #expect(Recruitment.plan(snapshot).bought.map(\.flavor.name) == ["large"])
    snapshot.steps[1] = Self.need(4, needs: Needs(memoryMiB: 20 << 10))
    let plan = Recruitment.plan(snapshot)
    #expect(plan.bought.isEmpty)
    #expect(
      plan.remarks[.init(step: 1, rank: 1)] == [
        "no flavor that passes its filter is large enough for what waits"
      ])
  }

  @Test("a higher rank buys what a lower one could not, and no more")
  func ranks() throws {
    var snapshot = FleetSnapshot(
      now: 0,
      recruiters: [
        try Self.recruiter(rank: 1, filter: "flavor=a", most: 2),
        try Self.recruiter(rank: 2, filter: "flavor=b"),
      ], steps: [1: Self.need(16)])
    snapshot.offers = [Offer(flavor: Self.flavor("a")), Offer(flavor: Self.flavor("b", price: 0.1))]
    #expect(Recruitment.plan(snapshot).bought.map(\.flavor.name) == ["a", "a", "b", "b"])
    snapshot.recruiters[0].timeout = 10
    #expect(Recruitment.plan(snapshot).bought.isEmpty, "the lower one may still get it")
  }

  @Test("an idle worker is recycled before anything is bought, as its scope allows")
  func recycling() throws {
    let flavor = Self.flavor("a")
    func worker(_ id: Int64, _ step: Int64, _ scope: WorkerScope, idle: Bool = true) -> FleetWorker {
      FleetWorker(
        id: WorkerID(id), step: StepID(step), scope: scope, concurrency: 4, loadMilli: idle ? 0 : 1000,
        capacity: Needs(of: flavor), flavor: flavor, rank: 1, idleSince: idle ? 0 : nil)
    }
    var snapshot = FleetSnapshot(
      now: 0, recruiters: [try Self.recruiter(1, timeout: 100)],
      steps: [1: Self.need(40), 2: Self.need(0), 3: Self.need(0, workflow: 2)])
    snapshot.offers = [Offer(flavor: flavor)]
    snapshot.workers = [
      worker(1, 2, .workflow), worker(2, 2, .none), worker(3, 2, .task), worker(4, 3, .workflow),
      worker(5, 3, .everything), worker(6, 2, .workflow, idle: false),
    ]
    #expect(Recruitment.plan(snapshot).recycled.map(\.worker) == [1, 5])
    snapshot.workflows[1] = WorkflowBounds(maximumWorkers: 4)
    #expect(Recruitment.plan(snapshot).recycled.map(\.worker) == [1], "the workflow has its four")
  }

  @Test("idle workers are returned in their time, permanent ones never, and at once where nothing can come")
  func lettingGo() {
    let flavor = Self.flavor("a")
    var snapshot = FleetSnapshot(now: 301_000_000, steps: [1: StepNeed(workflow: 1, coming: 3)])
    for id: Int64 in 1...6 {
      var worker = FleetWorker(
        id: WorkerID(id), step: 1, scope: .none, capacity: Needs(of: flavor), flavor: flavor, idleSince: 0)
      worker.isPermanent = id == 2
      worker.hasWorked = id != 3 && id != 6
      // The last was ordered by hand: a person may be about to give it something.
      worker.rank = id == 6 ? nil : 1
      if id == 4 { worker.idleSince = 100_000_000 }
      snapshot.workers.append(worker)
    }
    snapshot.workers[4].flavor = nil
    #expect(Recruitment.plan(snapshot).returned.map(\.worker) == [1])
    snapshot.steps[1]?.coming = 0
    #expect(Recruitment.plan(snapshot).returned.map(\.worker) == [1, 3, 4])
  }

  @Test("no maximum and no quota is passed, whatever the fleet is like", arguments: 0..<300 as Range<UInt64>)
  func bounds(seed: UInt64) throws {
    var random = Dice(seed: seed)
    let flavors = (0..<Int.random(in: 1...6, using: &random)).map {
      Self.flavor(
        "f\($0)", cpu: Double(Int.random(in: 1...16, using: &random)),
        memory: Double(Int.random(in: 2...64, using: &random)),
        price: Double.random(in: 0.01...2, using: &random),
        region: "r\(Int.random(in: 0...1, using: &random))")
    }
    var snapshot = FleetSnapshot(now: 1_000_000_000)
    snapshot.offers = flavors.map { Offer(flavor: $0) }
    for region in ["r0", "r1"] {
      snapshot.regions[Region(provider: "p", name: region)] = RegionBounds(
        cpu: Double(Int.random(in: 0...60, using: &random)), instances: Int.random(in: 0...12, using: &random)
      )
    }
    for step in 1...Int64(Int.random(in: 1...6, using: &random)) {
      snapshot.steps[StepID(step)] = Self.need(Int.random(in: 0...80, using: &random), workflow: step % 2 + 1)
      for rank in 1...Int.random(in: 1...3, using: &random) {
        snapshot.recruiters.append(
          try Self.recruiter(
            step, rank: rank, most: Bool.random(using: &random) ? Int.random(in: 1...5, using: &random) : nil,
            concurrency: Int.random(in: 1...4, using: &random)))
      }
    }
    snapshot.workflows[1] = WorkflowBounds(maximumWorkers: Int.random(in: 1...9, using: &random))
    for id in 1...Int64(Int.random(in: 1...20, using: &random)) {
      let flavor = flavors.randomElement(using: &random)!
      snapshot.workers.append(
        FleetWorker(
          id: WorkerID(id), step: StepID(Int64.random(in: 1...Int64(snapshot.steps.count), using: &random)),
          scope: WorkerScope.allCases.randomElement(using: &random)!, concurrency: 2,
          capacity: Needs(of: flavor), flavor: flavor, rank: 1, isDeploying: Bool.random(using: &random),
          idleSince: Bool.random(using: &random) ? Int64.random(in: 0...1_000_000_000, using: &random) : nil))
      snapshot.regions[Region(provider: "p", name: flavor.region)]!.used.add(flavor)
    }
    let plan = Recruitment.plan(snapshot)
    #expect(plan == Recruitment.plan(snapshot), "seed \(seed): the same snapshot made another plan")
    let moved = Dictionary(uniqueKeysWithValues: plan.recycled.map { ($0.worker, $0.to) })
    #expect(
      moved.count == plan.recycled.count && Set(plan.returned.map(\.worker)).isDisjoint(with: moved.keys))
    func count(_ matches: (Recruiter.Key) -> Bool) -> (before: Int, after: Int) {
      let own = snapshot.workers.map { Recruiter.Key(step: $0.step!, rank: $0.rank!) }
      let now = snapshot.workers.map { moved[$0.id] ?? .init(step: $0.step!, rank: $0.rank!) }
      return (
        own.filter(matches).count, now.filter(matches).count + plan.bought.map(\.by).filter(matches).count
      )
    }
    for recruiter in snapshot.recruiters {
      let (before, after) = count { $0 == recruiter.key }
      if let most = recruiter.maximumWorkers { #expect(after <= max(most, before), "seed \(seed)") }
    }
    let (before, after) = count { snapshot.steps[$0.step]?.workflow == 1 }
    #expect(after <= max(before, snapshot.workflows[1]!.maximumWorkers!), "seed \(seed)")
    for (region, bounds) in snapshot.regions {
      let new = plan.bought.map(\.flavor).filter { $0.region == region.name }
      guard !new.isEmpty else { continue }
      #expect(bounds.used.instances + new.count <= bounds.instances!, "seed \(seed)")
      #expect(bounds.used.cpu + new.map(\.cpu).reduce(0, +) <= bounds.cpu!, "seed \(seed)")
    }
  }

  @Test(
    "a filter says which token is wrong, and what would be right",
    arguments: [
      (
        "cpu>>8",
        "filter, token 1 (\"cpu>>8\"): cpu is compared by >= <= > < = or !=, such as cpu>=8, not by \">>\""
      ),
      (
        "cpu>=8:mem",
        "filter, token 2 (\"mem\"): mem is compared by >= <= > < = or !=, such as mem>=8, not by \"\""
      ),
      ("cpu>=x", "filter, token 1 (\"cpu>=x\"): \"x\" is no number; write such as cpu>=8"),
      (
        "cpu>=8::mem>1",
        "filter, token 2 (\"\"): is empty; write tokens such as cpu>=8 with one colon between them"
      ),
      (
        "region>a",
        "filter, token 1 (\"region>a\"): region is compared by = != ~ or !~, such as region~%word%, not by \">\""
      ),
    ])
  func badFilters(text: String, sentence: String) {
    #expect { try FlavorFilter(text) } throws: { "\($0)" == sentence }
  }

  @Test("each kind of condition is met and missed")
  func filters() throws {
    var flavor = Self.flavor(
      "Standard_D8s", cpu: 8, memory: 32, price: 0.4, region: "swedencentral", eviction: 3)
    flavor.gpu = "Tesla T4"
    flavor.gpuCount = 1
    flavor.gpuMemory = 16
    for text in [
      "", "cpu>=8", "cpu<=8:mem>31", "cpu==8", "cpu!=9", "region~%swed%", "region~SWEDEN%", "gpu~%tesla%",
      "gpumem>=10",
      "has_gpu", "provider=p", "flavor~%d8s", "region!~%west%", "region!=a", "region is default", "cost<0.5",
      "eviction<=3", "gpu_count=1", "disk>=100",
    ] { #expect(try FlavorFilter(text).matches(flavor, isDefaultRegion: true), "\(text)") }
    for text in [
      "cpu>8", "mem<32", "region~swed", "gpu~tesla", "has_quick_disks", "provider=q", "region!~%swed%",
      "eviction<3",
      "bandwidth>0",
    ] { #expect(try !FlavorFilter(text).matches(flavor, isDefaultRegion: true), "\(text)") }
    #expect(try !FlavorFilter("region is default").matches(flavor, isDefaultRegion: false))
    flavor.eviction = 6
    #expect(try !FlavorFilter("cpu>=8").matches(flavor, isDefaultRegion: true))
    #expect(try FlavorFilter("eviction<50").matches(flavor, isDefaultRegion: true))
  }

  @Test("an explanation says what keeps a recruiter from buying, not when it would")
  func explanations() throws {
    let (first, second) = (Recruiter.Key(step: 1, rank: 1), Recruiter.Key(step: 1, rank: 2))
    var snapshot = FleetSnapshot(
      now: 5_000_000,
      recruiters: [try Self.recruiter(timeout: 10), try Self.recruiter(rank: 2, most: 1, timeout: 10)],
      steps: [1: Self.need(1)])
    func remarks(_ key: Recruiter.Key) -> [String]? {
      Recruitment.plan(snapshot, explaining: key).remarks[key]
    }
    #expect(remarks(first) == ["no flavor is known"])
    snapshot.offers = [Offer(flavor: Self.flavor("a"))]
    #expect(remarks(first) == ["buys in 10 s if the need of 1 slot lasts"])
    #expect(remarks(second) == ["lower ranks come first"])
    let plan = Recruitment.plan(snapshot)
    #expect(plan.wanted == [first: 1, second: 1])
    snapshot.recruiters[0].filter = try FlavorFilter("provider=q")
    #expect(remarks(first) == ["no flavor passes its filter provider=q"])
    snapshot.recruiters[0].filter = try FlavorFilter("")
    snapshot.regions[Region(provider: "p", name: "r")] = RegionBounds(obstacle: "credentials, none")
    #expect(remarks(first) == ["p r: credentials, none"])
    snapshot.regions = [:]
    snapshot.workflows[1] = WorkflowBounds(isSpent: true)
    #expect(remarks(first) == ["its workflow has spent what it may (--maximum-cost)"])
    snapshot.workflows = [:]
    snapshot.recruiters[0].maximumWorkers = 1
    snapshot.workers = [
      FleetWorker(
        id: 1, step: 1, concurrency: 4, loadMilli: 4000, capacity: Needs(of: Self.flavor("a")),
        flavor: Self.flavor("a"), rank: 1)
    ]
    #expect(remarks(first) == ["has 1 of at most 1 worker"])
  }

  @Test("a filter tells which regions it could let pass")
  func regionsOfFilters() throws {
    let region = Region(provider: "aws.primary", name: "eu-west-1")
    for (filter, isAdmitted) in [
      ("", true), ("cpu>=1000", true), ("provider~aws%", true), ("provider=gcp", false),
      ("region!=eu-west-1", false),
      ("region is default", true), ("flavor=x:region~us%", false),
    ] {
      #expect(try FlavorFilter(filter).admits(region, isDefault: true) == isAdmitted, "\(filter)")
    }
    #expect(try !FlavorFilter("region is default").admits(region, isDefault: false))
    let failure = #expect(throws: FlavorFilter.Failure.self) { try FlavorFilter("region is here") }
    #expect(failure?.description.contains("region is default") == true)
  }
}
