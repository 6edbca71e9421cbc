import Foundation

/// Times on the wire are microseconds since 1970 in UTC; zero means: not yet.
enum Moment {
  static func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1_000_000) }

  /// `2025-10-29 17:58:22` in the zone, or nil where it is not yet.
  static func local(_ microseconds: Int64, _ zone: TimeZone) -> String? {
    microseconds == 0 ? nil : parts(microseconds, zone).dashed(between: " ")
  }

  /// `2025-10-29T17:58:22.123456Z`, or null.
  static func json(_ microseconds: Int64) -> JSON {
    guard microseconds != 0 else { return .null }
    let fraction = String(microseconds - (microseconds / 1_000_000) * 1_000_000 + 1_000_000).dropFirst()
    return .string(parts(microseconds, .gmt).dashed(between: "T") + "." + fraction + "Z")
  }

  /// `2025/10/29 17:58:22` in the zone, as log lines have it.
  static func logStamp(_ microseconds: Int64, _ zone: TimeZone) -> String {
    parts(microseconds, zone).dashed(between: " ").replacing("-", with: "/")
  }

  private struct Parts {
    let year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int

    func dashed(between: String) -> String {
      "\(year)-\(two(month))-\(two(day))\(between)\(two(hour)):\(two(minute)):\(two(second))"
    }

    private func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
  }

  private static func parts(_ microseconds: Int64, _ zone: TimeZone) -> Parts {
    let date = Date(timeIntervalSince1970: Double(microseconds / 1_000_000))
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = zone
    let found = calendar.dateComponents([.year, .month, .day, .hour, .minute, .second], from: date)
    return Parts(
      year: found.year ?? 0, month: found.month ?? 0, day: found.day ?? 0, hour: found.hour ?? 0,
      minute: found.minute ?? 0, second: found.second ?? 0)
  }
}
