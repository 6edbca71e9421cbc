import Foundation

enum Seed {
  static let given = ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init)
}
