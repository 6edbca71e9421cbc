/// Which flavors are wanted: `cpu>=8:mem>=30:region~%central%`.
///
/// Tokens stand between colons, and all must hold. Numbers (`cpu mem disk bandwidth gpumem gpu_count eviction cost`)
/// are compared by `>= <= > < = == !=`; text (`provider region flavor gpu`) by `= ==` and `!=` as it is written, by `~`
/// and `!~` without regard to case, where `%` stands for any characters. Flags stand alone: `has_gpu`,
/// `has_quick_disks`, `region is default`. Where no token speaks of eviction, `eviction<=5` holds: hosts that are
/// taken back often make their workers inefficient.
package struct FlavorFilter: Hashable, Sendable, CustomStringConvertible {
  package enum Number: String, CaseIterable, Sendable {
    case cpu, mem, disk, bandwidth, gpumem, gpuCount = "gpu_count", eviction, cost
  }
  package enum Text: String, CaseIterable, Sendable { case provider, region, flavor, gpu }
  package enum Comparison: String, Sendable {
    case atLeast = ">=", atMost = "<=", more = ">", less = "<", equal = "=", unequal = "!="
  }
  package enum Condition: Hashable, Sendable {
    case number(Number, Comparison, Double)
    /// Is, or is not, this.
    case text(Text, isEqual: Bool, String)
    /// Is like, or is not like, these pieces with anything between them; all lower-case.
    case like(Text, isLike: Bool, [String])
    case hasGPU
    case hasQuickDisks
    case regionIsDefault
  }

  package let conditions: [Condition]
  /// As it was written.
  package let description: String

  package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The token at fault, 1 for the first.
    package var place: Int
    package var token: String
    package var problem: String
    package var description: String { "filter, token \(place) (\"\(token)\"): \(problem)" }
  }

  /// Reads a filter; an empty one has no condition but the one on eviction.
  package init(_ text: String) throws(Failure) {
    var conditions: [Condition] = []
    if !text.allSatisfy(\.isWhitespace) {
      let tokens = text.split(separator: ":", omittingEmptySubsequences: false)
      for (index, token) in tokens.enumerated() {
        let words = String(token).trimmed
        do throws(Problem) {
          conditions.append(try Self.condition(words))
        } catch {
          throw Failure(place: index + 1, token: String(words.prefix(60)), problem: error.sentence)
        }
      }
    }
    let speaksOfEviction = conditions.contains {
      if case .number(.eviction, _, _) = $0 { true } else { false }
    }
    self.conditions = speaksOfEviction ? conditions : conditions + [.number(.eviction, .atMost, 5)]
    description = text
  }

  /// - Parameter isDefaultRegion: whether the flavor's region is its provider's default one.
  package func matches(_ flavor: Flavor, isDefaultRegion: Bool) -> Bool {
    conditions.allSatisfy { Self.holds($0, flavor, isDefaultRegion: isDefaultRegion) }
  }

  private static func holds(_ condition: Condition, _ flavor: Flavor, isDefaultRegion: Bool) -> Bool {
    switch condition {
    case .number(let field, let comparison, let bound): comparison.holds(field.value(of: flavor), bound)
    case .text(let field, let isEqual, let wanted): (field.value(of: flavor) == wanted) == isEqual
    case .like(let field, let isLike, let pieces):
      like(field.value(of: flavor).lowercased(), pieces) == isLike
    case .hasGPU: flavor.gpuCount > 0
    case .hasQuickDisks: flavor.hasQuickDisks
    case .regionIsDefault: isDefaultRegion
    }
  }

  /// Whether flavors of that region could match, by what is said of providers and regions alone.
  package func admits(_ region: Region, isDefault: Bool) -> Bool {
    let any = Flavor(provider: region.provider, region: region.name, name: "", cpu: 0, memory: 0, price: 0)
    return conditions.allSatisfy { condition in
      switch condition {
      case .text(.provider, _, _), .text(.region, _, _), .like(.provider, _, _), .like(.region, _, _),
        .regionIsDefault:
        Self.holds(condition, any, isDefaultRegion: isDefault)
      default: true
      }
    }
  }

  /// As it was written; where nothing was, what holds all the same.
  package var shown: String { description.allSatisfy(\.isWhitespace) ? "eviction<=5" : description }

  // MARK: Reading

  private struct Problem: Error {
    var sentence: String
  }

  private static let known =
    "known: \(Number.allCases.map(\.rawValue).joined(separator: ", ")) with >= <= > < = !=; "
    + "\(Text.allCases.map(\.rawValue).joined(separator: ", ")) with = != ~ !~; "
    + "has_gpu; has_quick_disks; region is default"

  private static func condition(_ token: String) throws(Problem) -> Condition {
    switch token {
    case "": throw Problem(sentence: "is empty; write tokens such as cpu>=8 with one colon between them")
    case "has_gpu": return .hasGPU
    case "has_quick_disks": return .hasQuickDisks
    default: break
    }
    let words = token.split(whereSeparator: \.isWhitespace).map(String.init)
    if words == ["region", "is", "default"] { return .regionIsDefault }
    if words.starts(with: ["region", "is"]) {
      throw Problem(
        sentence: "write \"region is default\", or for another one such as region=name or region~%word%")
    }
    let name = String(token.prefix { $0.isLetter || $0.isNumber || $0 == "_" })
    let rest = String(token.dropFirst(name.count)).trimmed
    let sign = String(rest.prefix { "<>=!~".contains($0) })
    let value = String(rest.dropFirst(sign.count)).trimmed
    if let field = Number(rawValue: name) {
      guard let comparison = Comparison(rawValue: sign == "==" ? "=" : sign) else {
        throw Problem(
          sentence: "\(name) is compared by >= <= > < = or !=, such as \(name)>=8, not by \"\(sign)\"")
      }
      guard let number = Double(value), number.isFinite else {
        throw Problem(sentence: "\"\(value.prefix(30))\" is no number; write such as \(name)\(sign)8")
      }
      return .number(field, comparison, number)
    }
    if let field = Text(rawValue: name) {
      guard !value.isEmpty else { throw Problem(sentence: "has no value; write such as \(name)~%word%") }
      switch sign {
      case "=", "==": return .text(field, isEqual: true, value)
      case "!=": return .text(field, isEqual: false, value)
      case "~", "!~":
        let pieces = value.lowercased().split(separator: "%", omittingEmptySubsequences: false)
        return .like(field, isLike: sign == "~", pieces.map(String.init))
      default:
        throw Problem(
          sentence: "\(name) is compared by = != ~ or !~, such as \(name)~%word%, not by \"\(sign)\"")
      }
    }
    throw Problem(
      sentence: name.isEmpty ? "names nothing; \(known)" : "\(name) is nothing flavors have; \(known)")
  }

  /// Whether the pieces stand in the text in this order, the first at its beginning and the last at its end.
  private static func like(_ text: String, _ pieces: [String]) -> Bool {
    guard let first = pieces.first, let last = pieces.last, pieces.count > 1 else {
      return text == pieces.first
    }
    guard text.hasPrefix(first) else { return false }
    var rest = text.dropFirst(first.count)
    for piece in pieces.dropFirst().dropLast() where !piece.isEmpty {
      guard let place = rest.firstRange(of: piece) else { return false }
      rest = rest[place.upperBound...]
    }
    return rest.count >= last.count && rest.hasSuffix(last)
  }
}

extension FlavorFilter.Number {
  func value(of flavor: Flavor) -> Double {
    switch self {
    case .cpu: flavor.cpu
    case .mem: flavor.memory
    case .disk: flavor.disk
    case .bandwidth: flavor.bandwidth
    case .gpumem: flavor.gpuMemory
    case .gpuCount: Double(flavor.gpuCount)
    case .eviction: flavor.eviction
    case .cost: flavor.price
    }
  }
}

extension FlavorFilter.Text {
  func value(of flavor: Flavor) -> String {
    switch self {
    case .provider: flavor.provider
    case .region: flavor.region
    case .flavor: flavor.name
    case .gpu: flavor.gpu
    }
  }
}

extension FlavorFilter.Comparison {
  func holds(_ a: Double, _ b: Double) -> Bool {
    switch self {
    case .atLeast: a >= b
    case .atMost: a <= b
    case .more: a > b
    case .less: a < b
    case .equal: a == b
    case .unequal: a != b
    }
  }
}

extension String {
  fileprivate var trimmed: String {
    let start = drop(while: \.isWhitespace)
    return String(start.reversed().drop(while: \.isWhitespace).reversed())
  }
}
