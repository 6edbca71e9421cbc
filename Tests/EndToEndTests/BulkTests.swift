import Foundation
import Testing

/// Many tasks in one call.
@Suite("Bulk", .serialized)
struct BulkTests {
  @Test("100,000 tasks of a file are accepted in one call, and lists answer at once while they run")
  func accepted() async throws {
    try await World.server().worker(slots: 2).run { world in
      let ids = try await world.create(commands: Array(repeating: "true", count: 100_000), "--name", "bulk")
      try #require(ids.count == 100_000)
      try await until("some have succeeded") { try await world.counts()["S", default: 0] > 10 }
      var times: [Duration] = []
      for _ in 0..<15 {
        let began = ContinuousClock.now
        let rows = try await world.tasks(limit: 20)
        times.append(ContinuousClock.now - began)
        try #require(rows.map(\.id) == Array(ids.suffix(20).reversed()))
      }
      // A program's start, a handshake and the answer; the machine is busy with tasks beside it.
      let median = times.sorted()[times.count / 2]
      print("task list beside 100,000 tasks: median \(median)")
      try #require(median < .seconds(1))
      try #require(try await world.counts().values.reduce(0, +) == 100_000)
    }
  }

  @Test("a file with one bad line among 100,000 is refused as a whole, by its line number")
  func refused() async throws {
    try await World.server().run { world in
      var lines = Array(repeating: #"{"command": "true"}"#, count: 100_000)
      lines[77_776] = #"{"command": "true", "dependency": [424242]}"#
      let unknown = try await world.call(
        ["task", "create", "--from-file", "-"], input: Data(lines.joined(separator: "\n").utf8))
      try #require(unknown.status == 1, "\(unknown)")
      try #require(unknown.err.contains("424242"))
      lines[77_776] = #"{"command": "#
      let broken = try await world.call(
        ["task", "create", "--from-file", "-"], input: Data(lines.joined(separator: "\n").utf8))
      try #require([1, 2].contains(broken.status), "\(broken)")
      try #require(broken.err.contains("77777"))
      try #require(try await world.counts().isEmpty)
    }
  }
}
