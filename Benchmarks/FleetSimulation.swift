import Foundation
import Scheduling
import ScitqProtocol

/// A day of recruitment with a made-up clock: fifty steps arrive, a million tasks are run, hosts boot, are taken back and
/// are returned. What it cost and how long it took stand beside what nobody could have done better.
struct FleetSimulation {
  private let steps = 50
  private let tasksPerStep = 20_000
  private let slots = 8
  private let workersPerStep = 200
  /// Seconds from an order to the first task.
  private let boot = 90
  /// Seconds between two looks of the recruiter, and the grain of all times: tasks end when it looks.
  private let beat = 30

  private struct Host {
    var worker: FleetWorker
    var price: Double
    var since: Int
    var readyAt: Int
    /// When its provider takes it back.
    var endsAt: Int
    /// When each task that it has ends.
    var ends: [Int] = []
  }

  /// First with quotas of twice what the steps may have, then with a tenth more than that: there the cheapest are had
  /// by those who come first, and a clairvoyant would exchange hosts whenever cheaper ones become free.
  func run() throws {
    for quotas in [(least: 4_000, more: 1_000), (least: 2_000, more: 500)] {
      try run(
        quotas: Dictionary(uniqueKeysWithValues: (0..<4).map { ("r\($0)", quotas.least + quotas.more * $0) }))
    }
  }

  private func run(quotas: [String: Int]) throws {
    var random = Random(state: 7)
    let flavors = (0..<24).map { number in
      Flavor(
        provider: "p", region: "r\(number % 4)", name: "f\(number)", cpu: [8, 16, 32][number % 3], memory: 64,
        disk: 500, isSpot: number % 2 == 0,
        eviction: number % 2 == 0 ? Double.random(in: 0.5...8, using: &random) : 0,
        price: Double.random(in: number % 2 == 0 ? 0.2...0.5 : 0.3...0.6, using: &random))
    }
    let arrivals = (0..<steps).map { _ in Int.random(in: 0...9_000, using: &random) / beat * beat }
    let means = (0..<steps).map { _ in Int.random(in: 600...1_800, using: &random) / beat * beat }
    var pending = [Int](repeating: 0, count: steps)
    var recruiters: [Recruiter] = []
    for step in 0..<steps {
      recruiters.append(
        Recruiter(
          key: .init(step: StepID(Int64(step + 1)), rank: 1), filter: try FlavorFilter("cpu>=8"),
          concurrency: .fixed(slots), maximumWorkers: workersPerStep, timeout: 0))
    }
    var hosts: [Int64: Host] = [:]
    var next: Int64 = 1
    var now = 0
    var left = steps * tasksPerStep
    var (cost, work, makespan) = (0.0, 0.0, 0)
    var (bought, takenBack, most, passed) = (0, 0, 0, 0)
    let start = ContinuousClock.now
    var planning = Duration.zero
    while left > 0 {
      for step in 0..<steps where arrivals[step] == now { pending[step] = tasksPerStep }
      // What has ended, and what was taken back with all that ran there.
      for (id, var host) in hosts.sorted(by: { $0.key < $1.key }) {
        let step = Int(host.worker.step!.rawValue) - 1
        let running = host.ends.count
        host.ends.removeAll { $0 <= now }
        left -= running - host.ends.count
        if running > host.ends.count { (makespan, host.worker.hasWorked) = (now, true) }
        if host.endsAt <= now {
          pending[step] += host.ends.count
          cost += host.price * Double(now - host.since) / 3600
          hosts[id] = nil
          takenBack += 1
          continue
        }
        if host.readyAt <= now {
          host.worker.isDeploying = false
          while host.ends.count < slots, pending[step] > 0 {
            let beats = means[step] / beat
            let seconds = Int.random(in: beats / 2...beats * 3 / 2, using: &random) * beat
            host.ends.append(now + seconds)
            work += Double(seconds)
            pending[step] -= 1
          }
        }
        host.worker.loadMilli = Int64(host.ends.count) * 1000
        host.worker.idleSince = host.ends.isEmpty ? host.worker.idleSince ?? Int64(now) * 1_000_000 : nil
        hosts[id] = host
      }
      var snapshot = FleetSnapshot(now: Int64(now) * 1_000_000, recruiters: recruiters)
      snapshot.offers = flavors.map { Offer(flavor: $0) }
      for (name, count) in quotas {
        snapshot.regions[Region(provider: "p", name: name)] = RegionBounds(instances: count)
      }
      for host in hosts.values {
        snapshot.workers.append(host.worker)
        snapshot.regions[Region(provider: "p", name: host.worker.flavor!.region)]!.used.add(
          host.worker.flavor!)
      }
      for step in 0..<steps {
        snapshot.steps[StepID(Int64(step + 1))] = StepNeed(
          workflow: WorkflowID(Int64(step + 1)),
          demands: [.init(needs: Needs(cpuMilli: 1000), tasks: pending[step])],
          coming: pending[step])
      }
      let began = ContinuousClock.now
      let plan = Recruitment.plan(snapshot)
      planning += ContinuousClock.now - began
      for order in plan.bought {
        var worker = FleetWorker(
          id: WorkerID(next), step: order.by.step, concurrency: slots, capacity: Needs(of: order.flavor),
          flavor: order.flavor, rank: 1, isDeploying: true, hasWorked: false)
        worker.idleSince = Int64(now) * 1_000_000
        let isTaken = Double.random(in: 0..<100, using: &random) < order.flavor.eviction
        hosts[next] = Host(
          worker: worker, price: order.flavor.price, since: now, readyAt: now + boot,
          endsAt: isTaken ? now + Int.random(in: 600...20_000, using: &random) : .max)
        next += 1
        bought += 1
      }
      for going in plan.returned {
        guard let host = hosts.removeValue(forKey: going.worker.rawValue) else { continue }
        cost += host.price * Double(now - host.since) / 3600
      }
      most = max(most, hosts.count)
      let byStep = Dictionary(grouping: hosts.values) { $0.worker.step! }
      let byRegion = Dictionary(grouping: hosts.values) { $0.worker.flavor!.region }
      passed += byStep.values.filter { $0.count > workersPerStep }.count
      passed += byRegion.filter { $0.value.count > quotas[$0.key]! }.count
      now += beat
    }
    for host in hosts.values { cost += host.price * Double(now - host.since) / 3600 }
    let took = ContinuousClock.now - start
    guard passed == 0 else { throw Trouble("a maximum or a quota was passed \(passed) times") }

    // Nobody is faster than all the workers a step may have, full from the moment they have booted; and nobody who is as
    // fast pays less than the cheapest hosts that the regions have for as many as work at that moment, never taken back.
    let spans = (0..<steps).map { step in
      let begin = arrivals[step] + boot
      return begin..<(begin + tasksPerStep * means[step] / (workersPerStep * slots))
    }
    let cheapest = flavors.filter { $0.eviction <= 5 }.sorted { $0.price < $1.price }
    let (leastTime, ideal) = (spans.map(\.upperBound).max()!, spans.map(\.count).reduce(0, +))
    var leastCost = 0.0
    for moment in stride(from: 0, to: leastTime, by: beat) {
      var wanted = spans.filter { $0.contains(moment) }.count * workersPerStep
      var room = quotas
      for flavor in cheapest where wanted > 0 {
        let taken = min(wanted, room[flavor.region]!)
        leastCost += Double(taken * beat) / 3600 * flavor.price
        wanted -= taken
        room[flavor.region]! -= taken
      }
    }
    leastCost *= work / Double(ideal * workersPerStep * slots)
    let report = Report(
      "fleet: \(steps) steps, \(steps * tasksPerStep) tasks, at most \(most) hosts at once, "
        + "\(bought) bought, \(takenBack) taken back; quotas of \(quotas.values.reduce(0, +))")
    report.figure("cost by the clairvoyant bound", [cost / leastCost], unit: "x", goal: "1.15")
    report.figure(
      "makespan by the clairvoyant bound", [Double(makespan) / Double(leastTime)], unit: "x", goal: "1.10")
    report.figure("simulated", [Double(makespan) / 3600], unit: "hours")
    report.figure("took", [took.seconds], unit: "s")
    report.figure("planning", [planning.seconds], unit: "s")
  }

  private struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
  }
}
