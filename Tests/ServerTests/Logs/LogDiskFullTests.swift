import Foundation
import ScitqProtocol
import Testing

@testable import ScitqServer

#if os(Linux)
  import Glibc

  /// A file system of one megabyte; only root may mount it.
  private func withSmallDisk(_ body: (LogWorld) async throws -> Void) async throws {
    let path = "\(NSTemporaryDirectory())/scitq-small-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try #require(mount("scitq-test", path, "tmpfs", 0, "size=1m") == 0)
    defer { umount2(path, 2) }
    try await LogWorld.run(at: path + "/data", body)
  }

  @Suite("A full disk loses log bytes and nothing else", .enabled(if: geteuid() == 0))
  struct LogDiskFullTests {
    @Test("tasks go on, the gap is marked, the warning comes and goes", .timeLimit(.minutes(1)))
    func fullAndFreed() async throws {
      try await withSmallDisk { world in
        try FileManager.default.createDirectory(atPath: world.path, withIntermediateDirectories: true)
        let ballast = world.path + "/ballast"
        var logs = world.store()
        _ = try await logs.append("before\n", to: 1)
        #expect(await logs.diskWarning == nil)
        #expect(FileManager.default.createFile(atPath: ballast, contents: fill(world.path)))

        let chunk = String(repeating: "lost line\n", count: 20_000)
        #expect(try await logs.append(chunk, to: 1) == 200_007)
        #expect(try await logs.append(chunk, to: 1) == 400_007)
        #expect(try await logs.append("never stored", to: 2, .err) == 12)
        #expect(await logs.diskWarning?.contains("disk full") == true)
        #expect(await logs.seal(task: 1, out: 400_007, err: 0))
        #expect(await logs.seal(task: 2, out: 0, err: 12))

        // A process that another test started just now may have inherited it open: removing it would free nothing then.
        #expect(truncate(ballast, 0) == 0)
        #expect(try await logs.append("after\n", to: 1) == 400_013)
        #expect(await logs.diskWarning == nil)
        #expect(await logs.seal(task: 1, out: 400_013, err: 0))
        #expect(try await logs.text(2) == "\n[scitq: 12 bytes of log lost: disk full]\n")
        await logs.finish(task: 2)
        for _ in 0..<2 {
          let text = try await logs.text(1)
          #expect(text.hasPrefix("before\n"))
          #expect(text.hasSuffix("bytes of log lost: disk full]\nafter\n"), "\(text.suffix(200))")
          #expect(!text.contains("\0"))
          logs = world.store()
        }
        #expect(try await logs.lengths(task: 2) == (0, 12))
      }
    }

    /// As many bytes as the file system takes.
    private func fill(_ path: String) -> Data {
      var status = statvfs()
      guard statvfs(path, &status) == 0 else { return Data() }
      return Data(count: Int(status.f_bavail) * Int(status.f_bsize))
    }
  }
#endif
