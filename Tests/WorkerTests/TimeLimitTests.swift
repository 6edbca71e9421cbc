import Foundation
import Glibc
import ScitqProtocol
import Synchronization
import SystemPackage
import Testing

@testable import ScitqWorker

/// Takes connections and never says a word.
private final class Mute: Sendable {
  let port: UInt16
  private let socket: Int32

  init() throws {
    socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let socket = socket
    port = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = bind(socket, $0, length)
        _ = listen(socket, 64)
        _ = getsockname(socket, $0, &length)
      }
      return UInt16(bigEndian: $0.pointee.sin_port)
    }
  }

  deinit { close(socket) }
}

@Suite("Time limits", .timeLimit(.minutes(2))) struct TimeLimitTests {
  @Test("a download that takes too long fails the task, and the limit is named", .enabled(if: rcloneIsThere))
  func download() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let mute = try Mute()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "true") {
          $0.spec.inputs = ["http://127.0.0.1:\(mute.port)/file"]
          $0.spec.downloadTimeoutMs = 300
        }
        try await eventually("F") { server.letters(1) == "CDF" }
        #expect(server.last(1).reason == "timeout")
        #expect(server.last(1).message == "the download took longer than its limit of 300 ms")
      }
    }
  }

  @Test("an upload that takes too long fails the task, and the limit is named", .enabled(if: rcloneIsThere))
  func upload() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let mute = try Mute()
      try await withAgent(folder, server, ScriptedEngine()) { _ in
        server.order(1, "write hello") {
          $0.spec.output = "ftp://127.0.0.1:\(mute.port)/out/"
          $0.spec.uploadTimeoutMs = 300
          $0.keepOutputs = true
        }
        try await eventually("F") { server.letters(1) == "CRUF" }
        #expect(server.last(1).reason == "timeout")
        #expect(
          server.last(1).message
            == "its outputs could not be uploaded: the upload took longer than its limit of 300 ms")
        #expect(Files.names(in: folder.appending("store/kept")).isEmpty)
      }
    }
  }

  @Test("the wait for a slot counts for no limit")
  func holding() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let source = folder.appending("source")
      try write("data", to: source)
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        try await eventually("R") { server.letters(1) == "CR" }
        server.order(2, "true") {
          $0.spec.inputs = [source.string]
          $0.spec.downloadTimeoutMs = 1000
          $0.spec.runTimeoutMs = 1000
        }
        try await eventually("O") { server.letters(2) == "CDO" }
        let until = ContinuousClock.now + .milliseconds(1200)
        try await eventually("longer than either") { ContinuousClock.now > until }
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
        try await eventually("S") { server.letters(2) == "CDORUS" }
      }
    }
  }

  @Test("a run that takes too long has its grace, and is killed after it")
  func grace() async throws {
    try await withFolder { folder in
      let server = FakeServer(concurrency: 2)
      server.state.withLock { $0.settings.killGraceMs = 300 }
      let engine = ProcessEngine(store: folder.appending("store"), executable: Bench.worker)
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done") {
          $0.spec.shell = "sh"
          $0.spec.runTimeoutMs = 500
        }
        server.order(2, "trap '' TERM; while :; do sleep 0.05; done") {
          $0.spec.shell = "sh"
          $0.spec.runTimeoutMs = 500
        }
        try await eventually("F") { server.letters(1) == "CRVF" && server.letters(2) == "CRVF" }
        #expect(server.out(1) == "bye\n")
        for task in 1...2 as ClosedRange<Int64> {
          #expect(server.last(task).reason == "timeout")
          #expect(server.last(task).message == "the run took longer than its limit of 500 ms")
        }
      }
    }
  }

  @Test("settings that the server pushes are in force at once")
  func settings() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      try await withAgent(folder, server, engine) { _ in
        server.order(1, "hold")
        server.order(2, "hold")
        try await eventually("O") { server.letters(1) == "CR" && server.letters(2) == "CO" }
        var settings = server.state.withLock { $0.settings }
        settings.concurrency = 2
        server.push(.settings(settings))
        try await eventually("R") { server.letters(2) == "COR" }
        settings.concurrency = 1
        settings.prefetch = 3
        server.push(.settings(settings))
        server.order(3, "true")
        try await eventually("O") { server.letters(3) == "CO" }
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
        try await eventually("S") { server.letters(1) == "CRUS" }
        #expect(server.letters(3) == "CO")
        engine.end(AttemptID(task: 2, assignment: 1), Exit(code: 0))
        try await eventually("S") { server.letters(3) == "CORUS" }
      }
    }
  }

  @Test("places become more and fewer while they are taken")
  func places() async {
    var places = Places(2)
    #expect(places.take() == nil)
    #expect(places.take() == nil)
    let third = places.take()
    #expect(third != nil)
    places.resize(to: 3)
    await third?.wakeup.wait()
    places.resize(to: 1)
    #expect(places.free == -2)
    let fourth = places.take()
    places.giveBack()
    places.giveBack()
    #expect(places.free == 0)
    places.giveBack()
    await fourth?.wakeup.wait()
    places.giveBack()
    #expect(places.free == 1)
  }
}
