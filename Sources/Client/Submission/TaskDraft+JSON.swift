/// The keys of a JSON line: the names of the flags, in singular or plural where a flag may be repeated.
private enum DraftKey: String, CaseIterable {
  case command, container, shell, input, resource, output, publish, dependency, name, retry, priority, cpu,
    mem,
    disk, gpu
  case publishMode = "publish-mode"
  case skipIfExists = "skip-if-exists"
  case acceptFailure = "accept-failure"
  case onDependencyFailure = "on-dependency-failure"
  case downloadTimeout = "download-timeout"
  case runTimeout = "run-timeout"
  case uploadTimeout = "upload-timeout"
  case queueTimeout = "queue-timeout"
  case timeEstimate = "time-estimate"
  case retryOn = "retry-on"
  case retryDelay = "retry-delay"
  case stepID = "step-id"
  case env
  case containerOption = "container-option"
  case weight

  static let byName: [String: DraftKey] = {
    var keys = Dictionary(uniqueKeysWithValues: allCases.map { ($0.rawValue, $0) })
    keys["inputs"] = .input
    keys["resources"] = .resource
    keys["dependencies"] = .dependency
    keys["container-options"] = .containerOption
    return keys
  }()
}

extension TaskDraft {
  /// A draft from one line of a JSON-lines file. `null` says nothing. An unknown key is refused with the nearest known
  /// one; a `_` in a key stands for `-`.
  init(json: JSON) throws(TextProblem) {
    guard case .object(let members) = json else {
      throw TextProblem("this is \(json.kind); a task is an object such as {\"command\": \"echo hello\"}")
    }
    self.init()
    var seen: Set<DraftKey> = []
    for member in members {
      guard let key = DraftKey.byName[member.key.replacing("_", with: "-")] else {
        let hint =
          Nearest.sentence(to: member.key, among: DraftKey.byName.keys.sorted())
          ?? "the keys are the flags of 'scitq task create'"
        throw TextProblem("the key '\(Escaping.printable(member.key))' is not known; \(hint)")
      }
      guard seen.insert(key).inserted else {
        throw TextProblem(
          "the key '\(key.rawValue)' is given twice, in singular and plural or with '_' and '-'")
      }
      if member.value == .null { continue }
      do {
        try set(key, member.value)
      } catch {
        throw TextProblem("the value of '\(Escaping.printable(member.key))' is wrong: \(error)")
      }
    }
  }

  private mutating func set(_ key: DraftKey, _ value: JSON) throws(TextProblem) {
    switch key {
    case .command: command = try value.asText
    case .container: container = try value.asText
    case .shell: shell = try value.asText
    case .input: inputs = try value.asTexts
    case .resource: resources = try value.asTexts
    case .output: output = try value.asText
    case .publish: publish = try value.asText
    case .publishMode: publishMode = try TaskDraft.publishing(try value.asText)
    case .skipIfExists: skipIfExists = try value.asTruth
    case .dependency:
      dependencies = try value.asIDs.map { (id) throws(TextProblem) in .all(try TaskReference("\(id)")) }
    case .stepID: stepID = try Values.id(try value.asWholeText)
    case .name: name = try value.asText
    case .retry: retry = try Values.count(try value.asWholeText)
    case .priority: priority = try Values.priority(try value.asWholeText)
    case .cpu: cpu = try Values.processors(try value.asNumber)
    case .mem: memoryBytes = try Values.gigabytes(try value.asNumber)
    case .disk: diskBytes = try Values.gigabytes(try value.asNumber)
    case .gpu: gpu = try Values.count(try value.asWholeText)
    case .acceptFailure: acceptFailure = try value.asTruth
    case .onDependencyFailure:
      let word = try value.asText
      guard let choice = DependencyFailure(rawValue: word) else {
        throw TextProblem("'\(Escaping.printable(word))' is neither 'wait' nor 'cancel'")
      }
      onDependencyFailure = choice
    case .downloadTimeout: downloadTimeout = try value.asDuration
    case .runTimeout: runTimeout = try value.asDuration
    case .uploadTimeout: uploadTimeout = try value.asDuration
    case .queueTimeout: queueTimeout = try value.asDuration
    case .timeEstimate: timeEstimate = try value.asDuration
    case .retryDelay: retryDelay = try value.asDuration
    case .retryOn:
      retryRules = try value.asTexts.map { (text) throws(TextProblem) in try RetryRuleText.parse(text) }
    case .env: env = try value.asEnvironment
    case .containerOption: containerOptions = try value.asTexts
    case .weight: weight = try Values.weight(try value.asNumber)
    }
  }
}

extension TaskDraft {
  static func publishing(_ word: String) throws(TextProblem) -> Publishing {
    guard let choice = Publishing(rawValue: word) else {
      throw TextProblem("'\(Escaping.printable(word))' is neither 'copy' nor 'move'")
    }
    return choice
  }
}

extension JSON {
  fileprivate var asText: String {
    get throws(TextProblem) {
      guard case .string(let text) = self else { throw TextProblem("it is \(kind), and should be text") }
      return text
    }
  }

  /// A list of texts, or one text alone.
  fileprivate var asTexts: [String] {
    get throws(TextProblem) {
      guard case .array(let elements) = self else { return [try asText] }
      var texts: [String] = []
      for element in elements { texts.append(try element.asText) }
      return texts
    }
  }

  fileprivate var asIDs: [Int64] {
    get throws(TextProblem) {
      guard case .array(let elements) = self else { return [try Values.id(try asWholeText)] }
      var ids: [Int64] = []
      for element in elements { ids.append(try Values.id(try element.asWholeText)) }
      return ids
    }
  }

  /// A whole number as written, so that flags and keys share one reader with its bounds.
  fileprivate var asWholeText: String {
    get throws(TextProblem) {
      guard case .integer(let value) = self else {
        throw TextProblem("it is \(kind), and should be a whole number")
      }
      return String(value)
    }
  }

  fileprivate var asNumber: Double {
    get throws(TextProblem) {
      switch self {
      case .integer(let value): return Double(value)
      case .number(let value): return value
      default: throw TextProblem("it is \(kind), and should be a number")
      }
    }
  }

  fileprivate var asTruth: Bool {
    get throws(TextProblem) {
      guard case .bool(let value) = self else {
        throw TextProblem("it is \(kind), and should be true or false")
      }
      return value
    }
  }

  /// Seconds as a whole number, or a text such as `15m`.
  fileprivate var asDuration: Duration {
    get throws(TextProblem) {
      if case .string(let text) = self { return try Values.duration(text) }
      return try Values.duration(try asWholeText)
    }
  }

  /// `{"NAME": "VALUE"}`, or a list of `NAME=VALUE`.
  fileprivate var asEnvironment: [EnvironmentEntry] {
    get throws(TextProblem) {
      var entries: [EnvironmentEntry] = []
      if case .object(let members) = self {
        for member in members {
          entries.append(try EnvironmentEntry(name: member.key, value: try member.value.asText))
        }
      } else {
        for text in try asTexts { entries.append(try Values.environment(text)) }
      }
      return entries
    }
  }
}
