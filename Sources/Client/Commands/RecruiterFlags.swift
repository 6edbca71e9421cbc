import ArgumentParser
import ScitqProtocol

/// A command whose `--timeout` is not the one that every command has: that one is `--server-timeout` there.
protocol HasOwnTimeout {}

/// The flags that every command takes, where `--timeout` means something else.
struct GlobalsBesideTimeout: ParsableArguments {
  @Option(
    name: [.long, .customShort("s")],
    help: "Where the server is, as host:port (default: $SCITQ_SERVER, or localhost:50051).",
    transform: Values.server)
  var server: ServerAddress?
  @Option(help: "The token from 'scitq login'; prefer $SCITQ_TOKEN, which 'ps' does not show.")
  var token: String?
  @Flag(help: "Print JSON.") var json = false
  @Flag(help: "Print ids alone.") var quiet = false
  @Option(
    name: .customLong("server-timeout"), help: "How long to wait for the server, as 30s or 2m.",
    transform: Values.duration)
  var serverTimeout: Duration?

  mutating func validate() throws {
    if let serverTimeout, serverTimeout <= .zero {
      throw ValidationError("--server-timeout is 0; give a time such as 30s")
    }
    var globals = globals
    try globals.validate()
  }

  var globals: Globals {
    var globals = Globals()
    globals.server = server
    globals.token = token
    globals.json = json
    globals.quiet = quiet
    globals.timeout = serverTimeout
    return globals
  }
}

/// What flags of a recruiter are for: where one is made, a flag that is not given stands for something.
protocol RecruiterUse: Sendable {
  static var hasDefaults: Bool { get }
}

enum NewRecruiter: RecruiterUse { static let hasDefaults = true }
enum ChangedRecruiter: RecruiterUse { static let hasDefaults = false }

extension RecruiterUse {
  static func help(_ text: String, default value: String) -> ArgumentHelp {
    ArgumentHelp(stringLiteral: hasDefaults ? "\(text) (default: \(value))." : "\(text).")
  }
}

/// How a recruiter's workers are, and how many: what `create` and `update` share.
struct RecruiterFlags<Use: RecruiterUse>: ParsableArguments {
  @Option(
    help: Use.help(
      "How many tasks every worker runs at once",
      default: "1, where nothing is said of what a task takes"),
    transform: Values.positive)
  var concurrency: UInt32?
  @Option(
    help: Use.help("How many more tasks a worker makes ready meanwhile", default: "0"),
    transform: Values.count)
  var prefetch: UInt32?
  @Option(
    name: .customLong("prefetch-percent"), help: "The same as a share of the concurrency, such as 50.",
    transform: Values.count)
  var prefetchPercent: UInt32?
  @Option(
    name: .customLong("cpu-per-task"),
    help: "CPUs that a task takes: a worker runs as many tasks as it has room for.",
    transform: Values.amount)
  var cpuPerTask: Double?
  @Option(
    name: .customLong("memory-per-task"), help: "Memory in GB that a task takes.", transform: Values.amount)
  var memoryPerTask: Double?
  @Option(name: .customLong("disk-per-task"), help: "Disk in GB that a task takes.", transform: Values.amount)
  var diskPerTask: Double?
  @Option(
    name: .customLong("concurrency-min"), help: "At least so many tasks at once; 0: no bound.",
    transform: Values.count)
  var concurrencyMin: UInt32?
  @Option(
    name: .customLong("concurrency-max"), help: "At most so many tasks at once; 0: no bound.",
    transform: Values.count)
  var concurrencyMax: UInt32?
  @Option(
    name: .customLong("max-workers"),
    help: Use.help("The most workers it may have; 0: no limit", default: "0"),
    transform: Values.count)
  var maxWorkers: UInt32?
  @Option(
    help: Use.help("How many rounds of tasks each worker is meant to run", default: "1"),
    transform: Values.positive)
  var rounds: UInt32?
  @Option(
    help: Use.help("How long a need has to last, and between purchases, in seconds or as 2m", default: "10"),
    transform: Values.seconds)
  var timeout: UInt32?

  /// The first flag that asks for a concurrency fitted to each worker.
  private var adaptiveFlag: String? {
    let flags: [(String, Bool)] = [
      ("--cpu-per-task", cpuPerTask != nil), ("--memory-per-task", memoryPerTask != nil),
      ("--disk-per-task", diskPerTask != nil), ("--concurrency-min", concurrencyMin != nil),
      ("--concurrency-max", concurrencyMax != nil),
    ]
    return flags.first(where: \.1)?.0
  }

  var isGiven: Bool {
    concurrency != nil || prefetch != nil || prefetchPercent != nil || adaptiveFlag != nil
      || maxWorkers != nil || rounds != nil || timeout != nil
  }

  /// What a task takes, by flag.
  private var amounts: [(flag: String, value: Double?)] {
    [
      ("--cpu-per-task", cpuPerTask), ("--memory-per-task", memoryPerTask), ("--disk-per-task", diskPerTask),
    ]
  }

  private static func outOfRange(_ flag: String, _ value: Double) -> ValidationError {
    ValidationError("\(flag) is \(Quantity.plain(value)); it is from 0.001 to 1000000")
  }

  mutating func validate() throws {
    for case (let flag, let value?) in amounts where value != 0 && !(0.001...1_000_000).contains(value) {
      throw Self.outOfRange(flag, value)
    }
    if concurrency != nil, let adaptiveFlag {
      throw ValidationError(
        "--concurrency and \(adaptiveFlag) exclude each other: concurrency is fixed, or fitted to each worker"
      )
    }
    if prefetch != nil, prefetchPercent != nil {
      throw ValidationError("--prefetch and --prefetch-percent exclude each other; give one of them")
    }
    if let concurrencyMin, let concurrencyMax, concurrencyMax > 0, concurrencyMin > concurrencyMax {
      throw ValidationError(
        "--concurrency-min \(concurrencyMin) is more than --concurrency-max \(concurrencyMax)")
    }
  }

  /// Refuses a task that takes nothing, and bounds without anything to be bounded: without what a task takes
  /// each worker would run the least.
  func checkWhole() throws {
    for case (let flag, let value?) in amounts where value == 0 { throw Self.outOfRange(flag, value) }
    guard let adaptiveFlag else { return }
    if [cpuPerTask, memoryPerTask, diskPerTask].contains(where: { ($0 ?? 0) > 0 }) { return }
    throw ValidationError(
      "\(adaptiveFlag) alone fits nothing to a worker; say what a task takes by --cpu-per-task, --memory-per-task or --disk-per-task"
    )
  }

  func fill(_ recruiter: inout WireRecruiter) {
    recruiter.concurrency = adaptiveFlag == nil ? concurrency ?? 1 : 0
    recruiter.cpuPerTask = cpuPerTask ?? 0
    recruiter.memoryPerTask = memoryPerTask ?? 0
    recruiter.diskPerTask = diskPerTask ?? 0
    recruiter.concurrencyMin = concurrencyMin ?? 0
    recruiter.concurrencyMax = concurrencyMax ?? 0
    recruiter.prefetch = prefetch ?? 0
    recruiter.prefetchPercent = prefetchPercent ?? 0
    recruiter.maximumWorkers = maxWorkers ?? 0
    recruiter.rounds = rounds ?? 1
    recruiter.timeout = timeout ?? 10
  }

  func fill(_ change: inout WireUpdateRecruiter) {
    if let concurrency { change.concurrency = concurrency }
    if let cpuPerTask { change.cpuPerTask = cpuPerTask }
    if let memoryPerTask { change.memoryPerTask = memoryPerTask }
    if let diskPerTask { change.diskPerTask = diskPerTask }
    if let concurrencyMin { change.concurrencyMin = concurrencyMin }
    if let concurrencyMax { change.concurrencyMax = concurrencyMax }
    if let prefetch {
      change.prefetch = prefetch
      // A percentage that stood before would count more.
      change.prefetchPercent = 0
    }
    if let prefetchPercent { change.prefetchPercent = prefetchPercent }
    if let maxWorkers { change.maximumWorkers = maxWorkers }
    if let rounds { change.rounds = rounds }
    if let timeout { change.timeout = timeout }
  }
}
