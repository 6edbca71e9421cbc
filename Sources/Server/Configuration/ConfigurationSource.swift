import Foundation
import Yams

/// A YAML document with the place it came from. Values are taken out by name; what nobody took is refused.
final class ConfigurationSource {
  let file: String?
  private let environment: [String: String]

  init(file: String?, environment: [String: String]) {
    self.file = file
    self.environment = environment
  }

  /// The mapping at the top, or nil for a document without values.
  func root(of text: String) throws(ConfigurationError) -> Node.Mapping? {
    let node: Node?
    do {
      node = try Yams.compose(yaml: text)
    } catch let error as YamlError {
      throw ConfigurationError(
        file: file, line: Self.line(of: error), key: "", message: Self.sentence(of: error))
    } catch {
      throw ConfigurationError(file: file, key: "", message: "is no valid YAML")
    }
    guard let node, !Self.isNull(node) else { return nil }
    guard case .mapping(let mapping) = node else {
      throw ConfigurationError(
        file: file, line: node.mark?.line, key: "", message: "must hold sections such as server: and workers:"
      )
    }
    return mapping
  }

  func section(_ mapping: Node.Mapping?, path: String, line: Int? = nil) -> ConfigurationSection {
    ConfigurationSection(source: self, mapping: mapping, path: path, line: line)
  }

  static func isNull(_ node: Node) -> Bool {
    guard case .scalar(let scalar) = node, scalar.style == .plain || scalar.style == .any else {
      return false
    }
    return ["", "~", "null", "Null", "NULL"].contains(scalar.string)
  }

  /// Puts in the variables. The result says whether there were any.
  func substitute(
    _ text: String, key: String, line: Int?
  ) throws(ConfigurationError) -> (text: String, hadVariables: Bool) {
    guard text.contains("$") else { return (text, false) }
    func fail(_ message: String) -> ConfigurationError {
      ConfigurationError(file: file, line: line, key: key, message: message)
    }
    var result = ""
    var hadVariables = false
    var rest = text[...]
    while let dollar = rest.firstIndex(of: "$") {
      result += rest[..<dollar]
      rest = rest[rest.index(after: dollar)...]
      if rest.first == "$" {
        result += "$"
        rest = rest.dropFirst()
        continue
      }
      guard rest.first == "{", let end = rest.firstIndex(of: "}") else {
        throw fail("has a $ that begins no ${VARIABLE}; write $$ for the sign itself")
      }
      let inner = rest[rest.index(after: rest.startIndex)..<end]
      rest = rest[rest.index(after: end)...]
      let split = inner.range(of: ":-")
      let name = String(inner[..<(split?.lowerBound ?? inner.endIndex)])
      guard let first = name.utf8.first, !(48...57).contains(first),
        name.utf8.allSatisfy({
          $0 == 95 || (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0)
        })
      else {
        throw fail(
          "has ${…} without the name of a variable; write ${NAME} or ${NAME:-default}, and $$ for $ itself")
      }
      // As in a shell, `:-` also stands in for a variable that is empty.
      if let value = environment[name], split == nil || !value.isEmpty {
        result += value
      } else if let split {
        result += inner[split.upperBound...]
      } else {
        throw fail("the environment has no variable \(name); set it, or write ${\(name):-default}")
      }
      hadVariables = true
    }
    return (result + rest, hadVariables)
  }

  private static func line(of error: YamlError) -> Int? {
    switch error {
    case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _): mark.line
    case .duplicatedKeysInMapping(_, let context): context.mark.line
    default: nil
    }
  }

  /// Without the lines around, which may hold secrets.
  private static func sentence(of error: YamlError) -> String {
    switch error {
    case .scanner(_, let problem, _, _), .parser(_, let problem, _, _), .composer(_, let problem, _, _):
      "is no valid YAML: \(problem)"
    case .duplicatedKeysInMapping(let keys, _):
      "has a key twice (\(keys.joined(separator: ", "))); keep one of them"
    default: "is no valid YAML"
    }
  }
}

/// One mapping of the document. Each key that is asked for is a known one.
final class ConfigurationSection {
  private let source: ConfigurationSource
  private let path: String
  /// Where it begins; nil: it is not in the document, or is all of it.
  private let line: Int?
  private var nodes: [String: (node: Node, line: Int?)] = [:]
  private var order: [String] = []
  private var known: [String] = []
  private var children: [ConfigurationSection] = []
  private var badKeyLine: (line: Int?, isBad: Bool) = (nil, false)

  init(source: ConfigurationSource, mapping: Node.Mapping?, path: String, line: Int? = nil) {
    self.source = source
    self.path = path
    self.line = line
    for (key, value) in mapping ?? [:] {
      guard case .scalar(let name) = key else {
        badKeyLine = (key.mark?.line, true)
        continue
      }
      nodes[name.string] = (value, key.mark?.line ?? value.mark?.line)
      order.append(name.string)
    }
  }

  /// The keys in the document, in its order.
  var givenKeys: [String] { order }

  /// The keys that were asked for, and those of the sections below.
  var allKeys: [String] {
    known.filter { key in !children.contains { $0.path == full(key) && !$0.known.isEmpty } }.map(full)
      + children.flatMap(\.allKeys)
  }

  /// What is missing has the line of the section that lacks it.
  func error(_ key: String, _ message: String) -> ConfigurationError {
    ConfigurationError(file: source.file, line: nodes[key]?.line ?? line, key: full(key), message: message)
  }

  /// Refuses what nobody asked for.
  func finish() throws(ConfigurationError) { try refuseOthers(than: known) }

  /// Refuses all but these keys. To be asked before values are taken out: who misspelled a required key is
  /// better told of that than that it is missing.
  func refuseOthers(than known: [String]) throws(ConfigurationError) {
    if badKeyLine.isBad {
      throw ConfigurationError(
        file: source.file, line: badKeyLine.line, key: path, message: "has a key that is no plain text")
    }
    guard let unknown = order.first(where: { !known.contains($0) }) else { return }
    let nearest = known.map { ($0, Self.distance($0, unknown)) }.min { $0.1 < $1.1 }
    let advice =
      if let nearest, nearest.1 <= max(2, unknown.count / 3) {
        "did you mean \(nearest.0)?"
      } else {
        "known here: \(known.joined(separator: ", "))"
      }
    throw error(unknown, "is no known key; \(advice)")
  }

  /// The section below a known key; an absent or empty one has no values.
  func section(_ key: String) throws(ConfigurationError) -> ConfigurationSection {
    known.append(key)
    var mapping: Node.Mapping?
    if let (node, _) = nodes[key], !ConfigurationSource.isNull(node) {
      guard case .mapping(let found) = node else {
        throw error(key, "must be a section: indented lines of key: value below it")
      }
      mapping = found
    }
    let child = source.section(mapping, path: full(key), line: nodes[key]?.line)
    if child.badKeyLine.isBad {
      throw error(key, "has a key that is no plain text")
    }
    children.append(child)
    return child
  }

  // MARK: Values

  /// A value that is one word, as text; nil where the key is absent.
  private func word(
    _ key: String, _ wanted: String
  ) throws(ConfigurationError) -> (text: String, isPlain: Bool, hadVariables: Bool)? {
    known.append(key)
    guard let (node, line) = nodes[key] else { return nil }
    guard !ConfigurationSource.isNull(node) else {
      throw error(key, "has no value; write \(wanted), or leave the line out for the default")
    }
    guard case .scalar(let scalar) = node else {
      throw error(key, "must be \(wanted), not \(Self.kind(node))")
    }
    let (text, hadVariables) = try source.substitute(scalar.string, key: full(key), line: line)
    return (text, scalar.style == .plain || scalar.style == .any, hadVariables)
  }

  /// Any scalar, as it is written.
  func scalar(_ key: String) throws(ConfigurationError) -> String {
    guard let (node, _) = nodes[key], !ConfigurationSource.isNull(node) else {
      known.append(key)
      return ""
    }
    return try word(key, "text, a number, true or false")?.text ?? ""
  }

  func text(_ key: String, _ value: inout String, mayBeEmpty: Bool = false) throws(ConfigurationError) {
    guard let (text, isPlain, hadVariables) = try word(key, "text") else { return }
    if isPlain, !hadVariables, Self.isBoolean(text) {
      throw error(key, "must be text, not true or false; put it in quotes if it is meant so")
    }
    guard mayBeEmpty || !text.isEmpty else {
      throw error(key, "is empty; write text, or leave the line out for the default")
    }
    guard !text.unicodeScalars.contains(where: { $0.value == 0 }) else {
      throw error(key, "holds a zero byte")
    }
    value = text
  }

  func text(_ key: String, _ value: inout String?) throws(ConfigurationError) {
    var found = ""
    try text(key, &found)
    if !found.isEmpty { value = found }
  }

  func value<T>(
    _ key: String, _ value: inout T, _ wanted: String, _ parse: (String) -> T?
  ) throws(ConfigurationError) {
    guard let (text, _, _) = try word(key, wanted) else { return }
    guard let parsed = parse(text) else { throw error(key, "must be \(wanted)") }
    value = parsed
  }

  func duration(_ key: String, _ value: inout Duration, atLeast: Duration) throws(ConfigurationError) {
    let least = DurationText.format(atLeast)
    try self.value(key, &value, "a time of at least \(least), such as 30s, 5m, 2h or 7d") {
      DurationText.parse($0).flatMap { $0 >= atLeast ? $0 : nil }
    }
  }

  func duration(_ key: String, _ value: inout Duration?, atLeast: Duration) throws(ConfigurationError) {
    var found = Duration.zero
    try duration(key, &found, atLeast: atLeast)
    if found > .zero { value = found }
  }

  func integer(_ key: String, _ value: inout Int, _ range: ClosedRange<Int>) throws(ConfigurationError) {
    let wanted = "a whole number within \(range.lowerBound)…\(range.upperBound)"
    guard let (text, isPlain, hadVariables) = try word(key, wanted) else { return }
    guard isPlain || hadVariables else { throw error(key, "must be \(wanted), without quotes") }
    guard let number = Int(text.replacing("_", with: "")), range.contains(number) else {
      throw error(key, "must be \(wanted)")
    }
    value = number
  }

  func boolean(_ key: String, _ value: inout Bool) throws(ConfigurationError) {
    guard let (text, isPlain, hadVariables) = try word(key, "true or false") else { return }
    guard isPlain || hadVariables, let parsed = ["true": true, "false": false][text.lowercased()] else {
      throw error(key, "must be true or false, without quotes")
    }
    value = parsed
  }

  func list(
    _ key: String, _ value: inout [String], _ wanted: String, _ isValid: (String) -> Bool
  ) throws(ConfigurationError) {
    known.append(key)
    guard let (node, line) = nodes[key] else { return }
    guard case .sequence(let sequence) = node else {
      throw error(key, "must be a list, such as [a, b], of \(wanted), not \(Self.kind(node))")
    }
    var items: [String] = []
    for item in sequence {
      guard case .scalar(let scalar) = item else {
        throw error(key, "must be a list of \(wanted); one item is \(Self.kind(item))")
      }
      let (text, _) = try source.substitute(scalar.string, key: full(key), line: item.mark?.line ?? line)
      guard isValid(text) else { throw error(key, "must be a list of \(wanted); \"\(text)\" is none") }
      items.append(text)
    }
    value = items
  }

  /// A list of names, each once.
  func names(_ key: String, _ value: inout [String], _ wanted: String) throws(ConfigurationError) {
    try list(key, &value, wanted) { !$0.isEmpty }
    var seen: Set<String> = []
    guard let twice = value.first(where: { !seen.insert($0).inserted }) else { return }
    throw error(key, "names \(twice) twice; keep one of them")
  }

  private func full(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  private static func isBoolean(_ text: String) -> Bool { ["true", "false"].contains(text.lowercased()) }

  private static func kind(_ node: Node) -> String {
    switch node {
    case .scalar: "a single value"
    case .mapping: "a section"
    case .sequence: "a list"
    case .alias: "an alias"
    }
  }

  /// How many letters to change, add or leave out to make one of the other.
  private static func distance(_ a: String, _ b: String) -> Int {
    let a = Array(a.lowercased().utf8.prefix(64))
    let b = Array(b.lowercased().utf8.prefix(64))
    var row = Array(0...b.count)
    for i in a.indices {
      var previous = row[0]
      row[0] = i + 1
      for j in b.indices {
        let current = row[j + 1]
        row[j + 1] = min(current + 1, row[j] + 1, previous + (a[i] == b[j] ? 0 : 1))
        previous = current
      }
    }
    return row[b.count]
  }
}
