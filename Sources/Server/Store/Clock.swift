import Foundation

/// Microseconds since 1970, UTC: the unit of every time that is kept.
func microsecondsNow() -> Int64 {
  Int64((Date.now.timeIntervalSince1970 * 1_000_000).rounded(.down))
}
