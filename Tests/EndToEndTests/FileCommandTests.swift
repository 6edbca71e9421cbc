import Foundation
import Testing

/// `scitq file`, and what becomes of secrets while files move.
@Suite("The file command", .serialized)
struct FileCommandTests {
  @Test("files are copied up, between buckets, and down; what is there already stays; a dry run does nothing")
  func copy() async throws {
    try await World.server().objectStore().run { world in
      let source = world.folder.appending(path: "up")
      for name in ["a", "b c", "sub/ü"] {
        let file = source.appending(path: name)
        try FileManager.default.createDirectory(
          at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data("\(name)\n".utf8).write(to: file)
      }
      let dry = try await world.scitq("file", "copy", "--dry-run", source.path + "/", "s3://data/x/")
      try #require(dry.text.contains("would copy") && world.stored("x/a") == nil)
      try await world.scitq("file", "copy", source.path + "/", "s3://data/x/")
      try #require(world.stored("x/sub/ü") == "sub/ü\n")
      try await world.scitq("file", "copy", "s3://data/x/", "s3://data/y/")
      try #require(world.stored("y/b c") == "b c\n")
      let down = world.folder.appending(path: "down")
      let copied = try await world.scitq("file", "copy", "s3://data/y/", down.path + "/", "--json")
      try #require(copied.text.components(separatedBy: "md5:").count == 4)
      try #require(try String(contentsOf: down.appending(path: "sub/ü"), encoding: .utf8) == "sub/ü\n")
      let listed = try await world.scitq("file", "list", "s3://data/y/", "--quiet")
      try #require(listed.text == "s3://data/y/sub/\ns3://data/y/a\ns3://data/y/b c")
    }
  }

  @Test("what cannot be copied: one sentence, and nothing half-made under the final name")
  func refused() async throws {
    try await World.server().objectStore().run { world in
      try world.put("one/x", Data("1".utf8))
      try world.put("two/x", Data("2".utf8))
      let here = world.folder.appending(path: "here").path
      let calls: [(arguments: [String], words: [String])] = [
        (["s3://data/none", here], ["s3://data/none", "no such"]),
        (["s3://data/none/*.gz", here + "/"], ["*.gz", "matches"]),
        (["s3://data/*/x", here + "/"], ["x"]),
        (["s3://data/one/x", "s3://data/one/x"], ["onto itself"]),
        (["s3://data/one/", "s3://data/one/below/"], ["into itself"]),
        (["s3://data/one/x|shred", here], ["shred", "untar"]),
        (["s3://data/one/x", "s3://data/y|untar"], ["action"]),
        (["s3://data/one/x", "/dev/full/x"], ["/dev/full"]),
        (["s3://nobucket/one/x", here], ["nobucket"]),
      ]
      for (arguments, words) in calls {
        let output = try await world.call(["file", "copy"] + arguments)
        #expect([1, 2].contains(output.status) && output.out.isEmpty, "\(output)")
        #expect(output.err.split(separator: "\n").count == 1, "\(output)")
        for word in words { #expect(output.err.contains(word), "no «\(word)» in \(output)") }
        #expect(!FileManager.default.fileExists(atPath: here + "/x"), "\(output)")
      }
    }
  }

  @Test("a copy that is interrupted leaves nothing under the final name, and no process")
  func interrupted() async throws {
    let files = try SlowFiles(delay: .seconds(30))
    defer { files.stop() }
    try await World.server().run { world in
      let target = world.folder.appending(path: "here")
      let program = try await world.begin(["file", "copy", files.url("one"), target.path + "/"])
      try await until("rclone fetches") { world.processes().contains { $0.contains("rcd") } }
      program.signal(SIGINT)
      try #require(await program.ended() == 130)
      try #require(!FileManager.default.fileExists(atPath: target.appending(path: "one").path))
      try await until("rclone is gone") { !world.processes().contains { $0.contains("rcd") } }
    }
  }

  @Test("no secret of a remote is seen in arguments, logs or answers while files move")
  func secrets() async throws {
    try await World.server().worker(slots: 2).objectStore().run { world in
      try world.put("in/a.dat", Data(count: 20_000_000))
      let watching = Task {
        var seen: Set<String> = []
        while !Task.isCancelled {
          for line in world.processes() where line.contains("tester-secret") { seen.insert(line) }
          try? await Task.sleep(for: .milliseconds(5))
        }
        return seen
      }
      let good = try await world.create(
        "--input", "s3://data/in/a.dat", "--output", "s3://data/out/", "--shell", "sh", "--command",
        "cp $INPUT/a.dat $OUTPUT/; env; cat /proc/$PPID/cmdline")
      let bad = try await world.create("--input", "s3://data/in/none", "--command", "true")
      let target = world.folder.appending(path: "here").path
      let copied = try await world.scitq("file", "copy", "s3://data/in/a.dat", target, "--json")
      try await world.succeeded(good)
      try await world.failed(bad)
      watching.cancel()
      #expect(await watching.value.isEmpty)
      var texts = [copied.text, copied.err, world.said("server"), world.said("worker")]
      for arguments in [
        ["task", "show", "--id", "\(good)", "--json"], ["task", "show", "--id", "\(bad)", "--json"],
        ["task", "output", "--id", "\(good)"], ["task", "files", "--id", "\(good)", "--json"],
        ["worker", "list", "--json"], ["status", "--json"], ["file", "list", "s3://data/", "--json"],
      ] {
        texts.append(try await world.scitq(arguments).text)
      }
      for text in texts { #expect(!text.contains("tester-secret"), "\(text.prefix(2000))") }
    }
  }
}

extension World {
  /// Starts `scitq` and does not wait for it.
  fileprivate func begin(_ arguments: [String]) throws -> Program {
    let out = scratch("begun")
    return try Program(
      "scitq", Tools.built("scitq"), arguments, environment: baseEnvironment, out: out, err: out)
  }

  /// The arguments of all processes of this machine that belong to this world.
  fileprivate nonisolated func processes() -> [String] {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return all.compactMap { pid in
      guard pid.allSatisfy(\.isNumber),
        let environment = FileManager.default.contents(atPath: "/proc/\(pid)/environ"),
        environment.firstRange(of: Data(folder.path.utf8)) != nil,
        let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline")
      else { return nil }
      return String(decoding: line, as: UTF8.self)
    }
  }
}
