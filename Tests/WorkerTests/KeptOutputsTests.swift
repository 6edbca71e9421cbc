import Foundation
import ScitqProtocol
import Synchronization
import SystemPackage
import Testing
import Transfer

@testable import ScitqWorker

/// Whether there is a program to reach remotes with.
let rcloneIsThere: Bool = {
  let environment = ProcessInfo.processInfo.environment
  if let named = environment["SCITQ_RCLONE"] { return access(named, X_OK) == 0 }
  return (environment["PATH"] ?? "").split(separator: ":").contains { access("\($0)/rclone", X_OK) == 0 }
}()

extension WireKeptOutput {
  fileprivate init(_ task: Int64, _ uri: String) {
    self.init()
    attempt.taskID = task
    attempt.assignment = 1
    self.uri = uri
  }
}

/// A first task that wrote "hello" to `file` and left it here, and a store that has changed since without its saying so:
/// what was downloaded reads "HELLO".
private func withKept(
  _ body: (FakeServer, ScriptedEngine, _ place: String, _ store: FilePath) async throws -> Void
) async throws {
  try await withFolder { folder in
    let server = FakeServer(concurrency: 8)
    let engine = ScriptedEngine()
    let place = folder.appending("results/one").string + "/"
    try await withAgent(folder, server, engine) { _ in
      server.order(1, "write hello") {
        $0.spec.output = place
        $0.keepOutputs = true
      }
      try await eventually("S") { server.letters(1) == "CRUS" }
      #expect(Files.text(folder.appending("store/kept/1.1/file")) == "hello")
      try write("HELLO", to: FilePath(place + "file"))
      try await body(server, engine, place, folder.appending("store"))
    }
  }
}

@Suite("Outputs kept for the next task", .timeLimit(.minutes(2))) struct KeptOutputsTests {
  @Test("a folder, a file and a pattern are read here, each by a copy of its own")
  func reads() async throws {
    try await withKept { server, _, place, store in
      let inputs = [2: place, 3: place + "file", 4: place + "*", 5: "file://" + place]
      for task in 2...5 as ClosedRange<Int64> {
        server.order(task, "hold") {
          $0.spec.inputs = [inputs[Int(task)]!]
          $0.kept = [WireKeptOutput(1, place)]
        }
        try await eventually("R") { server.letters(task) == "CDR" }
        let input = store.appending("tasks/\(task).1/input/file")
        #expect(Files.text(input) == "hello")
        #expect(server.last(task).inputs.map(\.bytes) == [5])
        #expect(server.last(task).inputs.first?.hash.hasPrefix("md5:") == true)
        // The next one reads what was written, not what this one makes of it.
        let file = try #require(FileHandle(forWritingAtPath: input.string))
        try file.write(contentsOf: Data("jello".utf8))
        try file.close()
      }
    }
  }

  @Test("among several inputs those that are here are read here, and the others are brought")
  func several() async throws {
    try await withKept { server, _, place, store in
      let other = FilePath(place).removingLastComponent().appending("other")
      try write("brought", to: other)
      server.order(2, "hold") {
        $0.spec.inputs = [other.string, place + "file"]
        $0.kept = [WireKeptOutput(1, place)]
      }
      try await eventually("R") { server.letters(2) == "CDR" }
      #expect(Files.text(store.appending("tasks/2.1/input/file")) == "hello")
      #expect(Files.text(store.appending("tasks/2.1/input/other")) == "brought")
    }
  }

  @Test("what is not all here, has another size in the store, or takes an action, is downloaded")
  func downloads() async throws {
    try await withKept { server, _, place, store in
      func read(_ task: Int64, _ inputs: [String], offered: Bool = true) async throws -> String? {
        server.order(task, "hold") {
          $0.spec.inputs = inputs
          if offered { $0.kept = [WireKeptOutput(1, place), WireKeptOutput(99, place)] }
        }
        try await eventually("R") { server.letters(task) == "CDR" }
        return Files.text(store.appending("tasks/\(task).1/input/file"))
      }
      #expect(try await read(2, [place], offered: false) == "HELLO")
      #expect(try await read(3, [place + "file|mv:x"]) == nil)
      #expect(Files.text(store.appending("tasks/3.1/input/x/file")) == "HELLO")
      // Another task's file at the same place belongs to the folder as well.
      try write("", to: FilePath(place + "empty"))
      #expect(try await read(4, [place]) == "HELLO")
      #expect(try await read(5, [place + "file"]) == "hello")
      try write("longer", to: FilePath(place + "file"))
      #expect(try await read(6, [place + "file"]) == "longer")
      // Something has written to what is kept.
      try write("HELLO", to: FilePath(place + "file"))
      try write("jello", to: store.appending("kept/1.1/file"))
      #expect(try await read(7, [place + "file"]) == "HELLO")
    }
  }

  @Test("what failed, and what nobody asked for, is not kept")
  func onlySuccess() async throws {
    try await withKept { server, engine, place, store in
      server.order(2, "hold") {
        $0.spec.output = place
        $0.keepOutputs = true
      }
      try await eventually("R") { server.letters(2) == "CR" }
      try write("half", to: store.appending("tasks/2.1/output/part"))
      engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 1))
      server.order(3, "write three") { $0.spec.output = place }
      try await eventually("ended") { server.letters(2) == "CRVF" && server.letters(3) == "CRUS" }
      #expect(Files.names(in: store.appending("kept")) == ["1.1"])
    }
  }

  @Test("outputs that were written to after the end of the command are not kept")
  func stillWritten() async throws {
    try await withKept { server, engine, place, store in
      server.order(2, "hold") {
        $0.spec.output = place
        $0.keepOutputs = true
      }
      try await eventually("R") { server.letters(2) == "CR" }
      let file = store.appending("tasks/2.1/output/late")
      try write("late", to: file)
      let future = Date.now.addingTimeInterval(60)
      try FileManager.default.setAttributes([.modificationDate: future], ofItemAtPath: file.string)
      engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 0))
      try await eventually("S") { server.letters(2) == "CRUS" }
      #expect(Files.names(in: store.appending("kept")) == ["1.1"])
    }
  }

  @Test("a person's clean removes them, and the next task downloads")
  func cleaned() async throws {
    try await withKept { server, _, place, store in
      var clean = WireClean()
      clean.number = 7
      server.push(.clean(clean))
      try await eventually("cleaned") { !server.state.withLock { $0.cleaned.isEmpty } }
      #expect(server.state.withLock { $0.cleaned }.first?.freedBytes == 5)
      #expect(server.state.withLock { $0.cleaned }.first?.removed == 1)
      #expect(Files.names(in: store.appending("kept")).isEmpty)
      server.order(2, "hold") {
        $0.spec.inputs = [place]
        $0.kept = [WireKeptOutput(1, place)]
      }
      try await eventually("R") { server.letters(2) == "CDR" }
      #expect(Files.text(store.appending("tasks/2.1/input/file")) == "HELLO")
    }
  }

  @Test("they make room where disk is wanted, also for the task that would have read them")
  func evicted() async throws {
    try await withKept { server, _, place, store in
      let room = try #require(Files.room(at: store))
      server.order(2, "true") {
        $0.spec.inputs = [place]
        // Far more than what others on this machine may free meanwhile.
        $0.spec.needs.diskBytes = room.free + (room.total - room.free) / 2
        $0.kept = [WireKeptOutput(1, place)]
      }
      try await eventually("F") { server.letters(2) == "CDF" }
      #expect(server.last(2).reason == "disk")
      #expect(Files.names(in: store.appending("kept")).isEmpty)
    }
  }

  @Test("the longest unused goes first, and none while it is read")
  func order() async throws {
    try await withFolder { folder in
      let world = try World(folder, FakeServer(), ScriptedEngine())
      let kept = await world.agent.stager.kept
      for task in 1...3 as ClosedRange<Int64> {
        let place = folder.appending("place\(task)")
        let output = folder.appending("output\(task)")
        try Files.makeFolder(place)
        try Files.makeFolder(output)
        for folder in [place, output] { try write("12345", to: folder.appending("file")) }
        let uploads = [
          Upload(
            place: place.string + "/",
            files: [.init(uri: place.string + "/file", bytes: 5, hash: "")])
        ]
        let gathered = try #require(
          await kept.gather(output, uploads, endedAt: Clock.microseconds() + 1_000_000))
        kept.keep(AttemptID(task: TaskID(task), assignment: 1), gathered, from: output)
      }
      let first = folder.appending("place1").string
      let reading = try #require(
        try await kept.read(.init(parsing: first), from: [WireKeptOutput(1, first)]))
      #expect(await kept.evict(1) == 5)
      let home = folder.appending("store/kept")
      #expect(Set(Files.names(in: home)) == ["1.1", "3.1"])
      #expect(await kept.clear().count == 1)
      #expect(Files.names(in: home) == ["1.1"])
      kept.end(reading)
      let target = folder.appending("target")
      #expect(try await kept.copy(reading, into: target) == nil)
      #expect(await kept.evict(1) == 5)
      #expect(try await kept.read(.init(parsing: first), from: [WireKeptOutput(1, first)]) == nil)
    }
  }

  @Test("they go with the agent, and the next task downloads")
  func restart() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let place = folder.appending("results").string + "/"
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "write hello") {
          $0.spec.output = place
          $0.keepOutputs = true
        }
        try await eventually("S") { server.letters(1) == "CRUS" }
      }
      try write("HELLO", to: FilePath(place + "file"))
      server.state.withLock { $0.beats = 0 }
      try await withAgent(folder, server, engine) { _ in
        #expect(Files.names(in: folder.appending("store/kept")).isEmpty)
        server.order(2, "hold") {
          $0.spec.inputs = [place]
          $0.kept = [WireKeptOutput(1, place)]
        }
        try await eventually("R") { server.letters(2) == "CDR" }
        #expect(Files.text(folder.appending("store/tasks/2.1/input/file")) == "HELLO")
      }
    }
  }

  @Test(
    "on a remote the hashes decide, where there are any",
    .enabled(if: rcloneIsThere), arguments: ["record": "HELLO", "off": "hello"])
  func remote(checksums: String, read: String) async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 4)
      let root = folder.appending("bucket")
      try Files.makeFolder(root)
      var remote = WireRemote()
      remote.name = "store"
      remote.settings = ["type": "alias", "remote": root.string]
      remote.checksums = checksums
      server.state.withLock { $0.remotes.remotes = [remote] }
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "write hello") {
          $0.spec.output = "store://out"
          $0.keepOutputs = true
        }
        try await eventually("S") { server.letters(1) == "CRUS" }
        for (task, input) in [(2, "store://out"), (3, "store://out/file"), (4, "store://out/f*")] {
          let task = Int64(task)
          if task == 3 { try write("HELLO", to: root.appending("out/file")) }
          server.order(task, "hold") {
            $0.spec.inputs = [input]
            $0.kept = [WireKeptOutput(1, "store://out/")]
          }
          try await eventually("R") { server.letters(task) == "CDR" }
          let seen = Files.text(folder.appending("store/tasks/\(task).1/input/file"))
          #expect(seen == (task == 2 ? "hello" : read))
          #expect(server.last(task).inputs.map(\.uri) == ["store://out/file"])
        }
      }
    }
  }
}
