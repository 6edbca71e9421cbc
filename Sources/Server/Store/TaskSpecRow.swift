import Foundation
import GRDB
import ScitqProtocol

/// One row of `task_spec`: what is to be run, in columns that people can read.
enum TaskSpecRow {
  static let columns = [
    "id", "command", "container", "shell", "inputs", "resources", "output", "env", "container_options", "cpu",
    "memory_bytes", "disk_bytes", "gpu", "download_timeout_ms", "run_timeout_ms", "upload_timeout_ms",
    "publish", "publish_move", "skip_if_exists", "queue_timeout_ms", "retry_rules", "retry_delay_ms",
    "time_estimate_ms",
  ]
  static let selection = columns.dropFirst().map { "task_spec.\($0)" }.joined(separator: ", ")
  static let insertion =
    "INSERT INTO task_spec (\(columns.joined(separator: ", "))) VALUES (\(columns.map { _ in "?" }.joined(separator: ", ")))"

  static func bind(_ statement: HotStatement, id: Int64, _ spec: WireTaskSpec) {
    statement.bind(id)
    statement.bind(spec.command)
    statement.bind(spec.container)
    statement.bind(spec.shell)
    statement.bind(list(spec.inputs))
    statement.bind(list(spec.resources))
    statement.bind(spec.output)
    statement.bind(spec.env.isEmpty ? "{}" : json(spec.env))
    statement.bind(list(spec.containerOptions))
    statement.bind(spec.needs.cpu)
    statement.bind(spec.needs.memoryBytes)
    statement.bind(spec.needs.diskBytes)
    statement.bind(Int64(spec.needs.gpu))
    statement.bind(spec.downloadTimeoutMs)
    statement.bind(spec.runTimeoutMs)
    statement.bind(spec.uploadTimeoutMs)
    statement.bind(spec.publish)
    statement.bind(spec.publishMode == .move)
    statement.bind(spec.skipIfExists)
    statement.bind(spec.queueTimeoutMs)
    statement.bind(RetryRules.encode(spec.retryRules))
    statement.bind(spec.retryDelayMs)
    statement.bind(spec.timeEstimateMs)
  }

  /// From the columns of `selection`, wherever in the row they begin.
  static func read(_ row: inout HotStatement.Row) -> WireTaskSpec {
    var spec = WireTaskSpec()
    spec.command = row.text()
    spec.container = row.text()
    spec.shell = row.text()
    spec.inputs = parseList(row.text())
    spec.resources = parseList(row.text())
    spec.output = row.text()
    let env = row.text()
    if env != "{}" {
      spec.env = (try? JSONDecoder().decode([String: String].self, from: Data(env.utf8))) ?? [:]
    }
    spec.containerOptions = parseList(row.text())
    spec.needs.cpu = row.real()
    spec.needs.memoryBytes = row.integer()
    spec.needs.diskBytes = row.integer()
    spec.needs.gpu = UInt32(clamping: row.integer())
    spec.downloadTimeoutMs = row.integer()
    spec.runTimeoutMs = row.integer()
    spec.uploadTimeoutMs = row.integer()
    spec.publish = row.text()
    spec.publishMode = row.integer() != 0 ? .move : .copy
    spec.skipIfExists = row.integer() != 0
    spec.queueTimeoutMs = row.integer()
    spec.retryRules = RetryRules.decode(row.text())
    spec.retryDelayMs = row.integer()
    spec.timeEstimateMs = row.integer()
    return spec
  }

  private static func list(_ values: [String]) -> String { values.isEmpty ? "[]" : json(values) }

  private static func parseList(_ text: String) -> [String] {
    text == "[]" ? [] : (try? JSONDecoder().decode([String].self, from: Data(text.utf8))) ?? []
  }

  static func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "null"
  }
}
