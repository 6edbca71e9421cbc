import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

/// A temporary folder for the length of a test.
func withFolder<T>(_ body: (FilePath) async throws -> T) async throws -> T {
  let folder = FilePath("/tmp/scitq-worker-test-\(UInt64.random(in: .min ... .max))")
  try Files.makeFolders(folder)
  defer { Files.removeTree(folder) }
  return try await body(folder)
}

/// Writes a small file.
func write(_ text: String, to path: FilePath) throws { try Files.replace(path, with: text, mode: 0o644) }

/// Waits for a state; a test that waits too long fails where it waits.
func eventually(
  _ what: Comment, within limit: Duration = .seconds(60), sourceLocation: SourceLocation = #_sourceLocation,
  _ isSo: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !isSo() {
    guard ContinuousClock.now < deadline else {
      Issue.record("never came: \(what)", sourceLocation: sourceLocation)
      throw NeverCame()
    }
    try await Task.sleep(for: .milliseconds(2))
  }
}

struct NeverCame: Error {}

/// A source of numbers that can be played again.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed &+ 0x9E37_79B9_7F4A_7C15 }
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    var x = state
    x = (x ^ (x >> 30)) &* 0xBF58_476D_1CE4_E5B9
    x = (x ^ (x >> 27)) &* 0x94D0_49BB_1331_11EB
    return x ^ (x >> 31)
  }
}
