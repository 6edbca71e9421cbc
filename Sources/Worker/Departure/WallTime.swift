import FoundationEssentials

/// The known end of this host's time, and when to stop taking tasks before it, so that outputs get home.
package struct WallTime: Sendable, Hashable {
  /// Microseconds UTC, as all times here.
  package let endsAt: Int64
  /// Two minutes before the end; where less than four were left at the start, at half of them.
  package let drainsAt: Int64

  private static let margin: Int64 = 120_000_000

  package init(endsAt: Int64, now: Int64) {
    self.endsAt = endsAt
    let left = max(0, endsAt - now)
    drainsAt = endsAt - min(Self.margin, left / 2)
  }

  /// How long there is work to take; nil: it is over.
  package func left(at now: Int64) -> Duration? {
    now < drainsAt ? .microseconds(drainsAt - now) : nil
  }

  /// What people are told.
  package var warning: String {
    let end = Date(timeIntervalSince1970: Double(endsAt / 1_000_000)).formatted(.iso8601)
    return "the host's time ends at \(end)"
  }
}
