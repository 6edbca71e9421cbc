/// Numbers as people read them.
enum Quantity {
  /// `850 ms`, `12.4 s`, `3m 05s`, `2h 07m`, `4d 11h`, from microseconds.
  static func duration(_ microseconds: Int64) -> String {
    let microseconds = max(0, microseconds)
    if microseconds < 1_000_000 { return "\(microseconds / 1000) ms" }
    let seconds = microseconds / 1_000_000
    if seconds < 60 { return "\(fixed(Double(microseconds / 100_000) / 10, places: 1)) s" }
    if seconds < 3600 { return "\(seconds / 60)m \(two(seconds % 60))s" }
    if seconds < 86_400 { return "\(seconds / 3600)h \(two(seconds % 3600 / 60))m" }
    return "\(seconds / 86_400)d \(two(seconds % 86_400 / 3600))h"
  }

  /// `512 B`, `1.5 kB`, `20.0 MB`, in powers of 1,000: files and rates.
  static func bytes(_ count: Int64) -> String {
    guard count >= 1000 else { return "\(count) B" }
    var value = Double(count)
    var unit = "B"
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] where value >= 999.95 {
      value /= 1000
      unit = next
    }
    return "\(fixed(value, places: 1)) \(unit)"
  }

  static func rate(_ bytesPerSecond: Double) -> String {
    bytes(bytesPerSecond.isFinite ? Int64(max(0, min(bytesPerSecond, 1e18))) : 0) + "/s"
  }

  /// Memory and disk of a task in the unit in which they are asked for.
  static func gigabytes(_ count: Int64) -> String { trimmed(Double(count) / Double(1 << 30)) + " GB" }

  static func percent(_ value: Double) -> String { fixed(value, places: 1) + "%" }

  /// Up to two decimals, without zeros at the end.
  static func trimmed(_ value: Double) -> String {
    var text = fixed(value, places: 2)
    while text.hasSuffix("0") { text.removeLast() }
    if text.hasSuffix(".") { text.removeLast() }
    return text
  }

  /// As it is, whole numbers without a fraction.
  static func plain(_ value: Double) -> String {
    value.rounded() == value && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }

  static func fixed(_ value: Double, places: Int) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "-" }
    var scale: Int64 = 1
    for _ in 0..<places { scale *= 10 }
    let scaled = Int64((abs(value) * Double(scale)).rounded())
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return sign + String(scaled) }
    let fraction = String(scaled % scale + scale).dropFirst()
    return "\(sign)\(scaled / scale).\(fraction)"
  }

  private static func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
}
