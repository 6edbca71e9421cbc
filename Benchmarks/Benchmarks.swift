import ArgumentParser
import Foundation

/// `scitq-benchmark`: how fast the product is, beside how fast this machine can be at all.
///
/// Machines are shared and noisy, so a figure alone says little: each is measured in the same run as a floor, the two
/// in turn, and reported as medians and their ratio.
@main
struct Benchmarks: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scitq-benchmark",
    abstract: "Measures scheduling, submission, and the way of a task, each beside the machine's own limit.")

  enum Name: String, CaseIterable, ExpressibleByArgument {
    case cluster, fleet, bulk, single, noop, latency, files
  }

  @Argument(help: "What to measure; nothing: all of it.")
  var names: [Name] = []
  @Option(help: "How often each is measured.")
  var rounds = 5

  func validate() throws {
    guard rounds > 0 else { throw ValidationError("--rounds \(rounds) must be above 0") }
  }

  func run() async throws {
    #if DEBUG
      FileHandle.standardError.write(Data("This is a debug build: its figures mean nothing.\n".utf8))
    #endif
    for name in names.isEmpty ? Name.allCases : names {
      switch name {
      case .cluster: try ClusterBenchmark(rounds: rounds).run()
      case .fleet: try FleetSimulation().run()
      case .bulk: try await BulkBenchmark(rounds: rounds).run()
      case .single: try await SingleBenchmark(rounds: rounds).run()
      case .noop: try await NoopBenchmark(rounds: rounds).run()
      case .latency: try await LatencyBenchmark(rounds: rounds).run()
      case .files: try await FilesBenchmark(rounds: rounds).run()
      }
    }
  }
}

/// What one benchmark found: a line for each figure.
struct Report {
  let title: String

  init(_ title: String) {
    self.title = title
    print("\(title)")
  }

  /// One figure: the median of the rounds, their extent, and beside a floor the median of the rounds' ratios.
  func figure(_ name: String, _ values: [Double], unit: String, floor: [Double]? = nil, goal: String? = nil) {
    var line = "  \(name): \(Self.text(values.median)) \(unit)"
    if values.count > 1 { line += " (\(Self.text(values.min()!))–\(Self.text(values.max()!)))" }
    if let floor {
      let ratios = zip(values, floor).map { $0 / $1 }
      line += ", \(Self.text(ratios.median * 100)) % of the floor of \(Self.text(floor.median))"
    }
    if let goal { line += "; goal: \(goal)" }
    print(line)
  }

  private static func text(_ value: Double) -> String {
    value >= 1000
      ? Int(value.rounded()).formatted(.number.locale(Locale(identifier: "en_US")))
      : String(format: value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value)
  }
}

extension [Double] {
  var median: Double { percentile(0.5) }

  func percentile(_ share: Double) -> Double {
    let sorted = sorted()
    guard !sorted.isEmpty else { return .nan }
    return sorted[Swift.min(sorted.count - 1, Int(Double(sorted.count) * share))]
  }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

/// How long the body takes.
func timed(_ body: () async throws -> Void) async rethrows -> Duration {
  let start = ContinuousClock.now
  try await body()
  return ContinuousClock.now - start
}
