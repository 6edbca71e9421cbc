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
        let (rclone, settings) = try world.tellingRclone()
        let file = world.folder.appending(path: "x")
        try Data("lent\n".utf8).write(to: file)
        for arguments in [["copy", file.path, "cloud://bucket/x"], ["list", "cloud://bucket/", "--quiet"]] {
          let output = try await world.call(["file"] + arguments, environment: ["SCITQ_RCLONE": rclone.path])
          try #require(output.status == 0 && output.text.contains("cloud://bucket/x"), "\(output)")
        }
        let seen = try String(contentsOf: settings, encoding: .utf8)
        #expect(seen.contains("[cloud]") && seen.contains("session_token = "))
        #expect(!seen.contains("long-lived"))
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
  /// An rclone that notes its configuration first, and where.
  fileprivate nonisolated func tellingRclone() throws -> (program: URL, settings: URL) {
    let program = folder.appending(path: "rclone.sh")
    let settings = folder.appending(path: "rclone.settings")
    try """
    #!/bin/sh
    cat "$RCLONE_CONFIG" >> "\(settings.path)" 2>/dev/null
    exec "\(Tools.rclone.path)" "$@"

    """.write(to: program, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program.path)
    return (program, settings)
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
