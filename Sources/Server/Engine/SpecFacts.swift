import GRDB
import Scheduling
import ScitqProtocol

/// What the engine has to know of a spec, without its texts.
struct SpecFacts: Sendable {
  private var wanted = WireNeeds()
  private var container = ""
  private var seconds: Int32 = 0
  var policy = RetryPolicy()
  /// The longest that a task may be ready without being run, in microseconds; zero: no limit.
  var queueLimit: Int64 = 0

  init() {}

  init(_ spec: WireTaskSpec) {
    wanted = spec.needs
    container = spec.container
    seconds = Self.seconds(spec.timeEstimateMs)
    policy = RetryPolicy(spec)
    queueLimit = spec.queueTimeoutMs * 1000
  }

  static let selection = [
    "cpu", "memory_bytes", "disk_bytes", "gpu", "container", "retry_rules", "retry_delay_ms",
    "queue_timeout_ms", "time_estimate_ms",
  ].map { "task_spec.\($0)" }.joined(separator: ", ")

  /// From the columns of `selection`, wherever in the row they begin.
  init(_ row: inout HotStatement.Row) {
    wanted.cpu = row.real()
    wanted.memoryBytes = row.integer()
    wanted.diskBytes = row.integer()
    wanted.gpu = UInt32(clamping: row.integer())
    container = row.text()
    let rules = RetryRules.decode(row.text())
    policy = RetryPolicy(rules: rules, delayMs: row.integer())
    queueLimit = row.integer() * 1000
    seconds = Self.seconds(row.integer())
  }

  /// What a task asks of its host, with the memory that retries have led to.
  func needs(_ memoryMilli: Int64) -> Needs {
    var scaled = wanted
    if memoryMilli != 1000 { scaled.memoryBytes = TaskRow.scaled(wanted.memoryBytes, memoryMilli) }
    var needs = Needs(scaled, container: container)
    needs.seconds = seconds
    return needs
  }

  private static func seconds(_ milliseconds: Int64) -> Int32 { Int32(clamping: (milliseconds + 999) / 1000) }
}

extension Database {
  func facts(ofSpec id: Int64) throws -> SpecFacts? {
    let statement = try HotStatement(self, "SELECT \(SpecFacts.selection) FROM task_spec WHERE id = ?")
    statement.bind(id)
    var found: SpecFacts?
    try statement.each { row in
      var row = row
      found = SpecFacts(&row)
    }
    return found
  }

  func spec(_ id: Int64) throws -> WireTaskSpec? {
    let statement = try HotStatement(self, "SELECT \(TaskSpecRow.selection) FROM task_spec WHERE id = ?")
    statement.bind(id)
    var found: WireTaskSpec?
    try statement.each { row in
      var row = row
      found = TaskSpecRow.read(&row)
    }
    return found
  }
}
