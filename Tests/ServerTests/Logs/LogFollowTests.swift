import Foundation
import ScitqProtocol
import Testing

@testable import ScitqServer

@Suite("A running log is followed", .timeLimit(.minutes(2)))
struct LogFollowTests {
  @Test("followers get every byte in order while it is written, and end when the log is finished")
  func whileWriting() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      try await withThrowingTaskGroup(of: String.self) { group in
        for _ in 0..<5 {
          group.addTask {
            var text = ""
            for try await piece in logs.follow(task: 1) {
              text += String(decoding: piece.bytes, as: UTF8.self)
            }
            return text
          }
        }
        var expected = ""
        for line in 0..<2000 {
          let stream: LogStream = line % 5 == 0 ? .err : .out
          _ = try await logs.append("\(stream.suffix) \(line)\n", to: 1, stream)
          expected += "\(stream.suffix) \(line)\n"
        }
        await logs.finish(task: 1)
        for try await text in group {
          // One that reads faster than the writer writes sees the order of arrival; one that comes later, too.
          #expect(text == expected)
        }
      }
    }
  }

  @Test("a follower of a log that ended long ago, before a restart, ends")
  func endedBefore() async throws {
    try await LogWorld.run { world in
      _ = try await world.store().append("done\n", to: 1)
      var text = ""
      for try await piece in world.store().follow(task: 1, hasEnded: { true }) {
        text += String(decoding: piece.bytes, as: UTF8.self)
      }
      #expect(text == "done\n")
    }
  }

  @Test("a follower of a task that prints nothing ends with it")
  func silent() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      async let pieces = logs.follow(task: 1).reduce(into: 0) { count, _ in count += 1 }
      await logs.finish(task: 1)
      let count = try await pieces
      #expect(count == 0)
    }
  }

  @Test("a follower that is canceled leaves at once")
  func canceled() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      _ = try await logs.append("first", to: 1)
      let (started, signal) = AsyncStream.makeStream(of: Void.self)
      let reader = Task {
        for try await _ in logs.follow(task: 1) { signal.yield() }
      }
      for await _ in started { break }
      reader.cancel()
      _ = await reader.result
      #expect(try await logs.append(" second", to: 1) == 12)
    }
  }

  @Test("deleting a log ends its followers")
  func deleted() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      _ = try await logs.append("first", to: 1)
      let (started, signal) = AsyncStream.makeStream(of: Void.self)
      let reader = Task {
        for try await _ in logs.follow(task: 1) { signal.yield() }
      }
      for await _ in started { break }
      await logs.delete(task: 1)
      try await reader.value
    }
  }
}
