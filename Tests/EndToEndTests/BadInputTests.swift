import Foundation
import Testing

/// What is wrong is said in one sentence, and the server goes on.
@Suite("Bad input", .serialized)
struct BadInputTests {
  /// Arguments after `scitq`, and words that the sentence must have.
  private static let calls: [(arguments: [String], words: [String])] = [
    (["task", "create", "--command", "true", "--input", "nowhere://bucket/file"], ["nowhere", "s3"]),
    (["task", "create", "--command", "true", "--resource", "nowhere://bucket/file"], ["nowhere", "s3"]),
    (["task", "create", "--command", "true", "--output", "nowhere://bucket/"], ["nowhere", "s3"]),
    (["task", "create", "--command", "true", "--colour", "blue"], ["--colour"]),
    (["task", "create", "--comand", "true"], ["--comand", "--command"]),
    (["task", "make"], ["make"]),
    (["tsak", "list"], ["tsak"]),
    (["task", "create"], ["command"]),
    (["task", "create", "--command", ""], ["command", "empty"]),
    (["task", "create", "--command", "   "], ["command", "empty"]),
    (["task", "create", "--command", "true", "--dependency", "424242"], ["424242"]),
    (["task", "create", "--command", "true", "--dependency", "soon"], ["soon"]),
    (["task", "create", "--command", "true", "--output", "s3://data/r/|untar"], ["action"]),
    (["task", "create", "--command", "true", "--input", "s3://data/x|mv:../x"], [".."]),
    (["task", "create", "--command", "true", "--input", "s3://data/x|shred"], ["shred", "untar"]),
    (["task", "create", "--command", "true", "--mem", "lots"], ["lots"]),
    (["task", "create", "--command", "true", "--retry=-1"], ["-1"]),
    (["task", "list", "--status", "Q"], ["Q"]),
    (["task", "show", "--id", "424242"], ["424242"]),
    (["task", "output", "--id", "424242"], ["424242"]),
    (["task", "retry", "--id", "424242"], ["424242"]),
    (["task", "cancel", "--id", "424242"], ["424242"]),
    (["worker", "delete", "--worker-id", "424242"], ["424242"]),
    (
      ["user", "create", "--username", "admin", "--email", "a@b.example", "--password", "long enough"],
      ["admin"]
    ),
    (["file", "list", "nowhere://bucket/"], ["nowhere"]),
    (["workflow", "cost", "--id", "424242"], ["workflow 424242 does not exist"]),
    (["recruiter", "list", "--step-id", "424242"], ["step 424242 does not exist"]),
    (["recruiter", "explain", "--step-id", "424242"], ["step 424242 does not exist"]),
  ]

  /// Values that only the server can tell are wrong.
  private static let misuses: [(arguments: [String], words: [String])] = [
    (["flavor", "list", "--filter", "cpu>>8"], ["cpu"]),
    (["flavor", "list", "--filter", "region is here"], ["region is default"]),
    (
      ["worker", "deploy", "--provider", "x", "--flavor", "f", "--count", "100000"], ["--count", "1000"]
    ),
    (
      ["worker", "deploy", "--provider", "x", "--flavor", "f", "--concurrency", "999999999"], ["10000"]
    ),
    (["user", "update", "--id", "1", "--weight", "100000"], ["weight"]),
  ]

  @Test("what only the server can tell is wrong ends with status 2 as well")
  func misuses() async throws {
    try await World.server().run { world in
      for (arguments, words) in Self.misuses {
        let output = try await world.call(arguments)
        #expect(output.status == 2 && output.out.isEmpty, "\(output)")
        for word in words { #expect(output.err.contains(word), "no «\(word)» in \(output)") }
      }
    }
  }

  @Test("a bad call of the command line: one sentence, exit 1 or 2, and nothing is made")
  func commandLine() async throws {
    try await World.server().objectStore().run { world in
      for (arguments, words) in Self.calls {
        let output = try await world.call(arguments)
        #expect([1, 2].contains(output.status), "\(output)")
        #expect(output.out.isEmpty, "\(output)")
        for word in words { #expect(output.err.contains(word), "no «\(word)» in \(output)") }
        #expect(output.err.count < 700, "\(output)")
      }
      try #require(try await world.counts().isEmpty)
      try await world.isUnharmed()
    }
  }

  @Test(
    "a wrong token, no token, a wrong password and an untrusted server are refused, each with its sentence")
  func credentials() async throws {
    try await World.server().run { world in
      let wrong = try await world.call(["task", "list"], environment: ["SCITQ_TOKEN": "wrong"])
      #expect(wrong.status == 1, "\(wrong)")
      #expect(wrong.err.split(separator: "scitq login").count == 2, "\(wrong)")
      #expect(!wrong.err.contains("wrong\""), "\(wrong)")
      let none = try await world.call(["task", "list"], environment: ["SCITQ_TOKEN": ""])
      #expect(none.status == 1, "\(none)")
      #expect(none.err.contains("export SCITQ_TOKEN=$(scitq login)"), "\(none)")
      let password = try await world.call(
        ["login", "--user", "admin", "--password-stdin"], input: Data("hunter2\n".utf8))
      #expect(password.status == 1, "\(password)")
      #expect(
        password.err.contains("invalid credentials") && !password.err.contains("hunter2"), "\(password)")
      let other = world.folder.appending(path: "other.pem")
      let stranger = try await world.strangersCertificate(other)
      let untrusted = try await world.call(
        ["task", "list"], environment: ["SCITQ_SSL_CERTIFICATE": stranger.path])
      #expect(untrusted.status == 1, "\(untrusted)")
      let closed = try await world.call(["task", "list"], environment: ["SCITQ_SERVER": "127.0.0.1:1"])
      #expect(closed.status == 1 && closed.err.contains("127.0.0.1:1"), "\(closed)")
      try await world.isUnharmed()
    }
  }

  @Test("bytes that are no protocol end their connection and nothing else")
  func bytes() async throws {
    try await World.server().run { world in
      let seed =
        ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init) ?? .random(in: 0...(.max))
      print("random bytes from seed \(seed); SCITQ_SEED=\(seed) brings them back")
      var random = SplitMix(state: seed)

      // Outside TLS: random bytes, and a request of another protocol.
      for _ in 0..<20 {
        let count = Int(random.next() % 4_096) + 1
        _ = try await world.send(
          (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }, overTLS: false)
      }
      _ = try await world.send(Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), overTLS: false)
      // Inside TLS. A frame: length, kind, flags, method, stream id, payload.
      let truncated = try await world.send([0, 0, 0, 40, 0, 0, 0, 0, 0, 0], overTLS: true)
      let huge = try await world.send(
        [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0], overTLS: true, patience: .seconds(10))
      #expect(huge.contains("frame"), "\(huge)")
      let tiny = try await world.send([0, 0, 0, 1, 0], overTLS: true, patience: .seconds(10))
      #expect(tiny.contains("frame"), "\(tiny)")
      let unknown = try await world.send(
        [0, 0, 0, 8, 0xee, 0, 0, 0, 0, 0, 0, 0], overTLS: true, patience: .seconds(10))
      #expect(unknown.contains("kind"), "\(unknown)")
      #expect(truncated.count < 1_000)
      for _ in 0..<20 {
        let count = Int(random.next() % 512) + 1
        _ = try await world.send(
          (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }, overTLS: true)
      }
      try await world.isUnharmed()
    }
  }

  @Test("a worker that was deleted and has an old token is told so when it comes back, and leaves")
  func oldWorker() async throws {
    try await World.server().worker(slots: 1).run { world in
      let id = try #require(try await world.worker("worker")?.id)
      try await world.killWorker("worker")
      try await world.scitq("worker", "delete", "--worker-id", "\(id)")
      let token = try String(
        contentsOf: world.folder.appending(path: "server/join-token"), encoding: .utf8)
      let parts = token.trimmingCharacters(in: .whitespacesAndNewlines).split(separator: ".")
      let old = try #require(parts.count == 2 ? "\(String(parts[0].reversed())).\(parts[1])" : nil)
      let again = try await world.launchWorker("worker", token: old)
      let status = await again.ended(within: .seconds(30))
      #expect([1, 2].contains(status), "\(world.said("worker"))")
      #expect(world.said("worker").contains("deleted"), "\(world.said("worker"))")
      #expect(world.said("worker").contains("refuses this worker"), "\(world.said("worker"))")
      // With a token that holds it is welcome, as a new worker.
      try await world.startWorker("worker")
      #expect(try await world.worker("worker")?.id != id)
      try await world.isUnharmed()
    }
  }

  @Test("a configuration with an unknown key is refused with the nearest known one")
  func configuration() async throws {
    let error = try await #require(throws: Trouble.self) {
      try await World.server().configured("worker:\n  offline_timeout: 3s").run { world in
        Issue.record("the server started: \(world.said("server"))")
      }
    }
    #expect(error.description.contains("worker") && error.description.contains("workers"), "\(error)")
  }
}

extension World {
  /// The server still does its work, in the process that was started.
  func isUnharmed() async throws {
    try #require(serverIsRunning, "\(said("server").suffix(4_000))")
    try await scitq("status")
    let before = try await sql("SELECT count(*) FROM task")
    let id = try await create("--command", "true")
    try #require(try await sql("SELECT count(*) FROM task WHERE id <> \(id)") == before)
  }

  /// Sends bytes to the server's port and answers with what came back, as far as it is text. Where the server does not
  /// end the connection within `patience`, the client is killed.
  func send(_ bytes: [UInt8], overTLS: Bool, patience: Duration = .seconds(1)) async throws -> String {
    let input = folder.appending(path: "bytes.in")
    let output = folder.appending(path: "bytes.out")
    try Data(bytes).write(to: input)
    try? FileManager.default.removeItem(at: output)
    let client: Program
    if overTLS {
      // Another implementation of TLS than the server's.
      client = try Program(
        "openssl", try Tools.onPath("openssl"),
        [
          "s_client", "-connect", serverAddress, "-CAfile", authority.path, "-verify_return_error", "-quiet",
        ],
        environment: ProcessInfo.processInfo.environment, input: input, out: output,
        err: folder.appending(path: "openssl.err"))
    } else {
      let parts = serverAddress.split(separator: ":")
      client = try Program(
        "bash", try Tools.onPath("bash"),
        ["-c", "exec 3<>/dev/tcp/$0/$1; cat >&3; cat <&3", String(parts[0]), String(parts[1])],
        environment: ProcessInfo.processInfo.environment, input: input, out: output,
        err: folder.appending(path: "bash.err"))
    }
    await client.ended(within: patience)
    let answer = (try? Data(contentsOf: output)) ?? Data()
    return String(decoding: answer.filter { (0x20..<0x7f).contains($0) }, as: UTF8.self)
  }

  /// A certificate that this server has nothing to do with.
  func strangersCertificate(_ file: URL) async throws -> URL {
    let log = folder.appending(path: "openssl.log")
    let program = try Program(
      "openssl", try Tools.onPath("openssl"),
      [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
        "/CN=stranger",
        "-keyout", folder.appending(path: "other.key").path, "-out", file.path, "-days", "1",
      ], environment: ProcessInfo.processInfo.environment, out: log, err: log)
    let status = await program.ended()
    try #require(status == 0)
    return file
  }
}

/// Random numbers that come again with their seed.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
