/// Slows down who tries passwords: each wrong one makes the next wait longer, for its name and for its address alike. Knows no
/// clock: the caller says what time it is. It never holds more than `capacity` names and as many addresses.
package struct LoginThrottle: Sendable {
  package typealias Instant = ContinuousClock.Instant

  private struct Record {
    var failures: Int
    var last: Instant
  }

  private struct Table {
    /// Wrong passwords that cost nothing: fingers slip.
    let free: Int
    let capacity: Int
    var records: [String: Record] = [:]

    /// The wrong passwords that still count: one is forgiven for each quiet minute.
    func count(_ key: String, _ now: Instant) -> Int {
      guard let record = records[key] else { return 0 }
      return LoginThrottle.remaining(record, now)
    }

    func wait(_ key: String, _ now: Instant, longest: Duration) -> Duration {
      guard let record = records[key] else { return .zero }
      let over = count(key, now) - free
      guard over >= 0 else { return .zero }
      let delay = min(longest, .seconds(1 << min(over, 20)))
      return max(.zero, delay - (now - record.last))
    }

    mutating func fail(_ key: String, _ now: Instant) {
      // Bounded, so that forgiveness does not take hours after a storm.
      records[key] = Record(failures: min(count(key, now) + 1, free + 16), last: now)
      guard records.count > capacity else { return }
      records = records.filter { LoginThrottle.remaining($0.value, now) > 0 }
      guard records.count > capacity else { return }
      // Those with the fewest wrong passwords, the oldest first, are forgotten: a storm of invented names cannot
      // wash away the one that is under attack.
      let kept = records.sorted { ($0.value.failures, $0.value.last) > ($1.value.failures, $1.value.last) }
        .prefix(capacity * 3 / 4)
      records = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
    }
  }

  private var names: Table
  private var addresses: Table
  private let longest: Duration

  /// - Parameter longest: the longest time between two tries.
  package init(longest: Duration = .seconds(30), capacity: Int = 10_000) {
    self.longest = longest
    names = Table(free: 3, capacity: max(4, capacity))
    // Many people may come from one address.
    addresses = Table(free: 10, capacity: max(4, capacity))
  }

  /// How long this caller has to wait before a password of theirs is looked at; zero: at once.
  package func delay(name: String, address: String, now: Instant) -> Duration {
    max(names.wait(name, now, longest: longest), addresses.wait(address, now, longest: longest))
  }

  /// The password was wrong, or the name unknown.
  package mutating func failed(name: String, address: String, now: Instant) {
    names.fail(name, now)
    addresses.fail(address, now)
  }

  /// The password was right: the name starts anew. The address does not, or one good account would hide a search.
  package mutating func succeeded(name: String) { names.records[name] = nil }

  /// How many names and addresses are held.
  var size: Int { max(names.records.count, addresses.records.count) }

  private static func remaining(_ record: Record, _ now: Instant) -> Int {
    max(0, record.failures - Int((now - record.last).components.seconds / 60))
  }
}
