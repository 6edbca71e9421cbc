import Foundation
import Testing

/// What a task prints is kept byte for byte.
@Suite("Logs", .serialized)
struct LogTests {
  @Test("one line of 50 MB is complete", arguments: ["bare", "alpine"])
  func longLine(container: String) async throws {
    let length = 50_000_000
    let block = Array("abcdefghij".utf8)
    let expected = Data((0..<length).lazy.map { block[$0 % 10] })
    try await printed(
      container, "yes abcdefghij | tr -d '\\n' | head -c \(length)", expected: expected)
  }

  @Test("200,000 lines are complete", arguments: ["bare", "alpine"])
  func manyLines(container: String) async throws {
    let expected = Data((1...200_000).map { "line \($0)\n" }.joined().utf8)
    try await printed(
      container, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo line $i; done", expected: expected)
  }

  @Test("the two streams are kept apart, and bytes that are no text come through")
  func streams() async throws {
    try await World.server().worker(slots: 1).run { world in
      let id = try await world.create(
        "--shell", "sh", "--command",
        #"printf '\000\377\n'; printf 'e1\n' >&2; printf 'no end'; printf 'e2' >&2"#)
      try await world.succeeded(id)
      try #require(try await world.log(id, "--stdout").out == Data([0, 0xff, 0x0a] + Array("no end".utf8)))
      try #require(try await world.log(id, "--stderr").out == Data("e1\ne2".utf8))
    }
  }

  @Test("a log can be followed while the task runs")
  func follow() async throws {
    try await World.server().worker(slots: 1).run { world in
      let gate = world.folder.appending(path: "gate")
      let id = try await world.create(
        "--shell", "sh", "--command", "echo one; while [ ! -e '\(gate.path)' ]; do sleep 0.1; done; echo two")
      async let followed = world.scitq("task", "output", "--id", "\(id)", "--follow")
      try await until("the first line is there") { try await world.log(id).text == "one" }
      try Data().write(to: gate)
      try #require(try await followed.text == "one\ntwo")
    }
  }

  private func printed(_ container: String, _ command: String, expected: Data) async throws {
    let plan = container == "bare" ? World.server().worker(slots: 1) : World.server().dockerWorker(slots: 1)
    try await plan.run { world in
      let id = try await world.create("--container", container, "--shell", "sh", "--command", command)
      try await world.succeeded(id, within: .seconds(180))
      let output = try await world.log(id, "--stdout")
      // Two numbers and a truth: a failure must not print 50 MB.
      let (count, same) = (output.out.count, output.out == expected)
      try #require(count == expected.count)
      try #require(same)
      try #require(try await world.log(id, "--stderr").out.isEmpty)
    }
  }
}
