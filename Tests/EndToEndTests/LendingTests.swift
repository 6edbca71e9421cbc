import Foundation
import Testing

/// Keys that end by themselves, from the token service of a store.
@Suite("Lent keys", .serialized)
struct LendingTests {
  @Test("a user works with keys that were lent, and never sees the remote's own")
  func lent() async throws {
    let cloud = try await Cloud.start()
    do {
      let yaml = """
        rclone:
          cloud:
            type: s3
            provider: Other
            endpoint: \(cloud.endpoint)
            region: us-east-1
            access_key_id: long-lived
            secret_access_key: long-lived-secret
            users: ["*"]
            lend: 15m
            lend_endpoint: \(cloud.endpoint)
        """
      try await World.server().configured(yaml).run { world in
        let watching = Task {
          var seen: Set<String> = []
          while !Task.isCancelled {
            seen.formUnion(world.rcloneSettings())
            try? await Task.sleep(for: .milliseconds(2))
          }
          return seen
        }
        let file = world.folder.appending(path: "x")
        try Data("lent\n".utf8).write(to: file)
        try await world.scitq("file", "copy", file.path, "cloud://bucket/x")
        let listed = try await world.scitq("file", "list", "cloud://bucket/", "--quiet")
        try #require(listed.text == "cloud://bucket/x")
        watching.cancel()
        let seen = await watching.value
        try #require(!seen.isEmpty)
        for text in seen {
          #expect(text.contains("session_token = ") && !text.contains("long-lived"), "\(text)")
        }
        await cloud.stop()
        let away = try await world.call(["file", "list", "cloud://bucket/"])
        #expect(away.status == 1 && away.err.contains("short-lived keys for the remote cloud"), "\(away)")
        #expect(!away.err.contains("long-lived-secret"), "\(away)")
      }
    } catch {
      await cloud.end()
      throw error
    }
    await cloud.end()
  }
}

extension World {
  /// What is in the configurations that `scitq file` has made for rclone.
  fileprivate nonisolated func rcloneSettings() -> [String] {
    let temporary = folder.appending(path: "tmp")
    let names = FileManager.default.enumerator(atPath: temporary.path)?.compactMap { $0 as? String } ?? []
    return names.compactMap { name in
      let text = try? String(contentsOf: temporary.appending(path: name), encoding: .utf8)
      return text.flatMap { $0.contains("[cloud]") ? $0 : nil }
    }
  }
}

/// A stand-in for a cloud: its object store and its token service.
private struct Cloud {
  let endpoint: String
  private let program: Program
  private let folder: URL

  static func start() async throws -> Cloud {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let folder = URL(filePath: parent).appending(path: "cloud-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    // Below the ports that the system hands out to others meanwhile.
    let port = Int.random(in: 10_000..<32_000)
    let log = folder.appending(path: "log")
    let program = try Program(
      "moto", try Tools.onPath("moto_server"), ["-H", "127.0.0.1", "-p", "\(port)"],
      environment: ProcessInfo.processInfo.environment, out: log, err: log)
    try await until("the cloud answers") {
      guard program.isRunning else { throw Trouble("moto_server ended at its start") }
      return try String(contentsOf: log, encoding: .utf8).contains("Running on")
    }
    return Cloud(endpoint: "http://127.0.0.1:\(port)", program: program, folder: folder)
  }

  func stop() async { await program.stop() }

  func end() async {
    await program.stop()
    try? FileManager.default.removeItem(at: folder)
  }
}
