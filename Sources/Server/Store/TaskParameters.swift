import Foundation
import ScitqProtocol

/// What is a task's own of a spec that it shares with the others of its array: the column `task.parameters`.
struct TaskParameters: Codable, Sendable, Hashable {
  /// By the name of the column: what stands for `{name}`.
  var values: [String: String]?
  /// Instead of the spec's.
  var inputs: [String]?
  /// The folder below the spec's outputs that is this task's.
  var folder: String?

  var json: String? {
    values == nil && inputs == nil && folder == nil ? nil : TaskSpecRow.json(self)
  }

  /// Puts its own in the place of what is common.
  func apply(to spec: inout WireTaskSpec) {
    if let inputs { spec.inputs = inputs }
    if let values, !values.isEmpty {
      spec.command = Self.filled(spec.command, values)
      spec.inputs = spec.inputs.map { Self.filled($0, values) }
      spec.output = Self.filled(spec.output, values)
      spec.publish = Self.filled(spec.publish, values)
    }
    if let folder {
      spec.output = Self.below(spec.output, folder)
      spec.publish = Self.below(spec.publish, folder)
    }
  }

  private static func below(_ place: String, _ folder: String) -> String {
    place.isEmpty ? "" : (place.hasSuffix("/") ? place : place + "/") + folder + "/"
  }

  /// The text with `{name}` replaced, for each name that is known. Other braces stay as they are: shells use them.
  /// What was put in is not looked at again.
  static func filled(_ text: String, _ values: [String: String]) -> String {
    guard text.utf8.contains(UInt8(ascii: "{")) else { return text }
    var result = ""
    var rest = Substring(text)
    while let open = rest.firstIndex(of: "{") {
      result += rest[..<open]
      rest = rest[open...]
      let inner = rest.dropFirst()
      if let close = inner.firstIndex(where: { $0 == "}" || $0 == "{" }), inner[close] == "}",
        let value = values[String(inner[..<close])]
      {
        result += value
        rest = rest[rest.index(after: close)...]
      } else {
        result += "{"
        rest = inner
      }
    }
    return result + rest
  }
}

extension TaskRow {
  /// What this very task is to do: the common spec with its own values, and the memory that retries have led to.
  func expand(_ spec: inout WireTaskSpec) {
    if let parameters, let own = try? JSONDecoder().decode(TaskParameters.self, from: Data(parameters.utf8)) {
      own.apply(to: &spec)
    }
    if memoryMilli != 1000, spec.needs.memoryBytes > 0 {
      spec.needs.memoryBytes = Self.scaled(spec.needs.memoryBytes, memoryMilli)
    }
  }

  static func scaled(_ bytes: Int64, _ milli: Int64) -> Int64 {
    let (product, overflow) = bytes.multipliedReportingOverflow(by: milli)
    return overflow ? .max : product / 1000
  }
}
