import ScitqProtocol

/// Reads the values of flags and of the keys of JSON lines. Every refusal says what would be right.
enum Values {
  /// `90` and `90s`, `15m`, `2h`, `1d`, or several parts as in `1h30m`. Zero means: no limit.
  static func duration(_ text: String) throws(TextProblem) -> Duration {
    let problem = TextProblem(
      "'\(Escaping.printable(text))' is no duration; write seconds as 90, or 90s, 15m, 2h, 1d, 1h30m")
    var seconds: Int64 = 0
    var number: Int64?
    var lastUnit = Int64.max
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        let (product, over) = (number ?? 0).multipliedReportingOverflow(by: 10)
        let (sum, overSum) = product.addingReportingOverflow(Int64(byte - UInt8(ascii: "0")))
        guard !over, !overSum else { throw problem }
        number = sum
      default:
        let unit: Int64
        switch byte {
        case UInt8(ascii: "s"): unit = 1
        case UInt8(ascii: "m"): unit = 60
        case UInt8(ascii: "h"): unit = 3600
        case UInt8(ascii: "d"): unit = 86_400
        default: throw problem
        }
        guard let count = number, unit < lastUnit else { throw problem }
        seconds = try adding(count, times: unit, to: seconds, or: problem)
        (number, lastUnit) = (nil, unit)
      }
    }
    if let number {
      // A bare number is seconds, and stands alone.
      guard lastUnit == .max else { throw problem }
      seconds = number
    } else if lastUnit == .max {
      throw problem
    }
    guard seconds <= longest else {
      throw TextProblem("'\(Escaping.printable(text))' is longer than ten years; give a shorter duration")
    }
    return .seconds(seconds)
  }

  private static let longest: Int64 = 10 * 366 * 86_400

  private static func adding(
    _ count: Int64, times unit: Int64, to sum: Int64, or problem: TextProblem
  ) throws(TextProblem) -> Int64 {
    let (product, over) = count.multipliedReportingOverflow(by: unit)
    let (total, overSum) = sum.addingReportingOverflow(product)
    guard !over, !overSum else { throw problem }
    return total
  }

  /// A number the server gave to a thing: 1 or more.
  static func id(_ text: String) throws(TextProblem) -> Int64 {
    guard let id = Int64(text), id >= 1 else {
      throw TextProblem("'\(Escaping.printable(text))' is no id; an id is a whole number from 1 on")
    }
    return id
  }

  static func count(_ text: String) throws(TextProblem) -> UInt32 {
    guard let count = UInt32(text) else {
      throw TextProblem("'\(Escaping.printable(text))' is no count; give a whole number from 0 on")
    }
    return count
  }

  static func positiveCount(_ text: String) throws(TextProblem) -> Int {
    guard let count = Int(text), count >= 1 else {
      throw TextProblem("'\(Escaping.printable(text))' is no count; give a whole number from 1 on")
    }
    return count
  }

  /// A count on the wire that zero is no value of.
  static func positive(_ text: String) throws(TextProblem) -> UInt32 {
    guard let count = UInt32(text), count >= 1 else {
      throw TextProblem("'\(Escaping.printable(text))' is no count; give a whole number from 1 on")
    }
    return count
  }

  /// A duration in whole seconds.
  static func seconds(_ text: String) throws(TextProblem) -> UInt32 {
    UInt32(clamping: try duration(text).components.seconds)
  }

  /// How much of something a task takes, in its unit. Zero means: not stated.
  static func amount(_ text: String) throws(TextProblem) -> Double {
    guard let amount = Double(text), amount.isFinite, amount >= 0 else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no amount; give a number from 0 on, such as 2 or 0.5")
    }
    return amount
  }

  /// Money, in the currency of the providers' prices. Zero means: no limit.
  static func cost(_ text: String) throws(TextProblem) -> Double {
    guard let cost = Double(text), cost.isFinite, cost >= 0 else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no cost; give a number from 0 on, such as 20 or 7.50")
    }
    return cost
  }

  static func priority(_ text: String) throws(TextProblem) -> Int32 {
    guard let priority = Int32(text) else {
      throw TextProblem("'\(Escaping.printable(text))' is no priority; give a whole number, such as 10 or -5")
    }
    return priority
  }

  static func weight(_ text: String) throws(TextProblem) -> Double {
    guard let weight = Double(text) else {
      throw TextProblem("'\(Escaping.printable(text))' is no weight; give a number above 0, such as 0.5")
    }
    return try Values.weight(weight)
  }

  static func weight(_ weight: Double) throws(TextProblem) -> Double {
    guard weight.isFinite, weight > 0 else {
      throw TextProblem("\(weight) is no weight; give a number above 0, such as 0.5")
    }
    return weight
  }

  static func processors(_ text: String) throws(TextProblem) -> Double {
    guard let count = Double(text) else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no number of CPUs; give one from 0 on, such as 4 or 0.5")
    }
    return try processors(count)
  }

  static func processors(_ count: Double) throws(TextProblem) -> Double {
    guard count.isFinite, count >= 0 else {
      throw TextProblem("\(count) is no number of CPUs; give one from 0 on, such as 4 or 0.5")
    }
    return count
  }

  /// Gigabytes as people write them, in bytes. A GB of memory or disk is 2³⁰ bytes here, as it is for container engines.
  static func gigabytes(_ text: String) throws(TextProblem) -> Int64 {
    guard let count = Double(text) else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no size; give gigabytes as a number, such as 64 or 0.5")
    }
    return try gigabytes(count)
  }

  static func gigabytes(_ count: Double) throws(TextProblem) -> Int64 {
    guard count.isFinite, count >= 0, count <= 1e9 else {
      throw TextProblem("\(count) is no size; give gigabytes as a number, such as 64 or 0.5")
    }
    return Int64((count * Double(1 << 30)).rounded())
  }

  /// `NAME=VALUE`.
  static func environment(_ text: String) throws(TextProblem) -> EnvironmentEntry {
    guard let equals = text.firstIndex(of: "=") else {
      throw TextProblem("'\(Escaping.printable(text))' has no '='; write NAME=VALUE")
    }
    return try EnvironmentEntry(
      name: String(text[..<equals]), value: String(text[text.index(after: equals)...]))
  }

  static func server(_ text: String) throws(TextProblem) -> ServerAddress {
    guard let address = ServerAddress(text) else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no server address; write host:port, such as localhost:50051")
    }
    return address
  }

  /// The letters of the statuses named: letters in a row (`RUV`), or words, several with commas between.
  static func statuses(_ text: String) throws(TextProblem) -> [TaskStatus] {
    var found: [TaskStatus] = []
    for part in text.split(separator: ",") {
      let word = plain(part)
      if let status = TaskStatus.allCases.first(where: { plain($0.word) == word }) {
        found.append(status)
        continue
      }
      let letters = part.filter { $0 != " " }.map { TaskStatus(rawValue: $0.uppercased()) }
      guard !letters.isEmpty, letters.allSatisfy({ $0 != nil }) else {
        let words = TaskStatus.allCases.map { $0.word.replacing(" ", with: "-") }
        let hint =
          Nearest.sentence(to: word, among: words)
          ?? "letters such as RUV and words such as running are known"
        throw TextProblem("'\(Escaping.printable(String(part)))' is no status; \(hint)")
      }
      found += letters.compactMap { $0 }
    }
    guard !found.isEmpty else { throw TextProblem("no status is named; give letters such as RUV, or a word") }
    return found
  }

  /// `On hold`, `on-hold` and `on_hold` are one word; so are `canceled` and `cancelled`.
  private static func plain(_ word: some StringProtocol) -> String {
    let letters = word.lowercased().filter { $0.isLetter }
    return letters == "cancelled" ? "canceled" : letters
  }
}

/// One variable of a task's environment.
struct EnvironmentEntry: Hashable, Sendable {
  let name: String
  let value: String

  init(name: String, value: String) throws(TextProblem) {
    guard !name.isEmpty, !name.contains("="), !name.contains("\0"), !value.contains("\0") else {
      throw TextProblem(
        "'\(Escaping.printable(name))' cannot name a variable; write NAME=VALUE, the name without '='")
    }
    self.name = name
    self.value = value
  }
}
