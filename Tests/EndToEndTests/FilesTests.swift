import Foundation
import Testing

/// What tasks read and write, and who may.
@Suite("Files", .serialized)
struct FilesTests {
  @Test("files that a task has read and written are listed, with sizes and hashes")
  func listed() async throws {
    try await World.server().worker(slots: 1).objectStore().run { world in
      try world.put("in/a.dat", Data("one\n".utf8))
      let id = try await world.create(
        "--input", "s3://data/in/a.dat", "--output", "s3://data/r/", "--shell", "sh", "--command",
        "cat $INPUT/a.dat $INPUT/a.dat > $OUTPUT/b.dat")
      try await world.succeeded(id)
      let files = try await world.rows([FileRow].self, "task", "files", "--id", "\(id)", "--json")
      try #require(
        files == [
          FileRow(
            kind: "input", uri: "s3://data/in/a.dat", bytes: 4, hash: "md5:5bbf5a52328e7439ae6e719dfe712200"),
          FileRow(
            kind: "output", uri: "s3://data/r/b.dat", bytes: 8, hash: "md5:8cbc5a320730930aad5e7597e8e9c402"),
        ])
    }
  }

  @Test("what a task publishes is there when it has succeeded, and only then")
  func publish() async throws {
    try await World.server().worker(slots: 2).objectStore().run { world in
      func create(_ name: String, _ end: String, _ mode: String...) async throws -> Int64 {
        try await world.create(
          [
            "--output", "s3://data/out/\(name)/", "--publish", "s3://data/pub/\(name)/", "--shell", "sh",
            "--command", "echo \(name) > $OUTPUT/x; \(end)",
          ] + mode)
      }
      let copied = try await create("copied", "true")
      let moved = try await create("moved", "true", "--publish-mode", "move")
      let failing = try await create("failing", "exit 1", "--publish-mode", "move")
      try await world.succeeded(copied)
      try await world.succeeded(moved)
      try await world.failed(failing)
      try #require(world.stored("out/copied/x") == "copied\n" && world.stored("pub/copied/x") == "copied\n")
      try #require(world.stored("out/moved/x") == nil && world.stored("pub/moved/x") == "moved\n")
      try #require(world.stored("out/failing/x") == "failing\n" && world.stored("pub/failing/x") == nil)
    }
  }

  @Test("a task whose output exists is skipped, and what depends on it goes on; others run")
  func skipped() async throws {
    try await World.server().worker(slots: 2).objectStore().run { world in
      try world.put("done/x", Data("there\n".utf8))
      func create(_ output: String, _ more: String...) async throws -> Int64 {
        try await world.create(
          ["--output", output, "--skip-if-exists", "--shell", "sh", "--command", "echo ran > $OUTPUT/x"]
            + more)
      }
      let done = try await create("s3://data/done/")
      let missing = try await create("s3://data/missing/")
      let after = try await world.create("--dependency", "\(done)", "--command", "echo after")
      try await world.succeeded(done)
      try await world.succeeded(missing)
      try await world.succeeded(after)
      try #require(try await world.history(done) == "WS")
      try #require(try await world.task(done).message?.contains("s3://data/done/") == true)
      try #require(world.stored("done/x") == "there\n" && world.stored("missing/x") == "ran\n")
      // A retry is meant: it runs.
      let again = try await world.scitq("task", "retry", "--id", "\(done)", "--force", "--quiet")
      try await world.succeeded(try #require(Int64(again.text)))
      try #require(world.stored("done/x") == "ran\n")
    }
  }

  @Test("a remote that is granted to one user is nobody else's, and its keys neither")
  func granted() async throws {
    try await World.server().worker(slots: 1).objectStore("users: [alice]\nread_only: true").run { world in
      try world.put("in/a.dat", Data("one\n".utf8))
      let alice = try await world.user("alice")
      let bob = try await world.user("bob")
      let list = ["file", "list", "s3://data/in/", "--quiet"]
      try #require(try await world.call(list, environment: alice).text == "s3://data/in/a.dat")
      let remote = ["file", "remote-list", "s3://data/in/", "--quiet", "--timeout", "20"]
      try #require(try await world.call(remote, environment: alice).text == "s3://data/in/a.dat")
      let refused = [
        (bob, list), (bob, remote),
        (bob, ["file", "copy", "s3://data/in/a.dat", "/tmp/"]),
        (bob, ["task", "create", "--input", "s3://data/in/a.dat", "--command", "true"]),
        (bob, ["task", "create", "--resource", "s3://data/in/a.dat", "--command", "true"]),
        (bob, ["task", "create", "--output", "s3://data/out/", "--command", "true"]),
        // Nobody writes there.
        (alice, ["task", "create", "--output", "s3://data/out/", "--command", "true"]),
        (alice, ["file", "copy", "/etc/hostname", "s3://data/in/"]),
        ([:], ["task", "create", "--publish", "s3://data/out/", "--command", "true"]),
      ]
      for (user, arguments) in refused {
        let output = try await world.call(arguments, environment: user)
        #expect(output.status == 1 && output.out.isEmpty, "\(output)")
        #expect(output.err.contains("s3") && !output.err.contains("tester"), "\(output)")
      }
      try #require(try await world.counts().isEmpty)
    }
  }

  @Test(
    "40 tasks that want one archive at the same time: one download, 40 views of it")
  func sharedResource() async throws {
    try await World.server().worker(slots: 40).objectStore().run { world in
      try await world.putReference()
      let ids = try await world.create(
        commands: Array(repeating: "cat $RESOURCE/words.txt", count: 40),
        "--shell", "sh", "--resource", "s3://data/ref.tgz|untar")
      for id in ids {
        try await world.succeeded(id)
        try #require(try await world.log(id).text == "words of the archive")
      }
      try #require(try await world.downloads(of: "ref.tgz") == 1)
    }
  }

  @Test("an object store that dies during downloads and uploads and comes back: everything succeeds")
  func storeDies() async throws {
    try await World.server().worker(slots: 4, prefetch: 4).objectStore().run { world in
      let big = Data((0..<(4 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
      for number in 1...3 { try world.put("in/\(number).dat", big) }
      let ids = try await world.create(
        commands: (1...12).map { "cat $INPUT/1.dat $INPUT/3.dat > $OUTPUT/\($0).out" }, "--shell", "sh",
        "--input",
        "s3://data/in/*.dat", "--output", "s3://data/out/")
      try await world.task(ids.lowerBound, reaches: "DROUS")
      await world.killObjectStore()
      // What is tested is a time: the store stays away this long.
      try await Task.sleep(for: .seconds(20))
      try await world.startObjectStore()
      for id in ids {
        try await world.succeeded(id, within: .seconds(120))
        let file = world.buckets.appending(path: "data/out/\(id - ids.lowerBound + 1).out")
        try #require(try Data(contentsOf: file) == big + big)
      }
    }
  }

  @Test("worker clean removes what no task uses, and nothing that one does")
  func clean() async throws {
    try await World.server().worker(slots: 2).objectStore().run { world in
      try await world.putReference()
      let stray = world.store(of: "worker").appending(path: "tasks/999.1/input")
      try FileManager.default.createDirectory(at: stray, withIntermediateDirectories: true)
      let used = try await world.create(
        "--resource", "s3://data/ref.tgz|untar", "--shell", "sh", "--command",
        "until [ -e $TEMP/go ]; do sleep 0.1; done; cat $RESOURCE/words.txt")
      try await world.task(used, reaches: "R")
      try world.put("other.txt", Data("other\n".utf8))
      try await world.succeeded(
        try await world.create("--resource", "s3://data/other.txt", "--command", "true"))
      try await until("the other task's folders are gone") {
        try await world.scitq("worker", "clean", "--quiet")
        let resources = world.store(of: "worker").appending(path: "resources")
        return try FileManager.default.contentsOfDirectory(atPath: resources.path).count == 1
      }
      try #require(!FileManager.default.fileExists(atPath: stray.path))
      let go = world.store(of: "worker").appending(path: "tasks/\(used).1/tmp/go")
      try Data().write(to: go)
      try await world.succeeded(used)
      try #require(try await world.log(used).text == "words of the archive")
      let last = try await world.scitq("worker", "clean")
      try #require(last.text.contains("worker worker:"))
    }
  }

  @Test(
    "on a disk of 200 MB, inputs of 1 GB pass one after the other, and what never fits is said at once",
    .enabled(if: geteuid() == 0))
  func smallDisk() async throws {
    let plan = World.server().worker(slots: 10, prefetch: 10).onDisk(megabytes: 200).objectStore()
    try await plan.run { world in
      let inputs = 1...25
      for number in inputs {
        try world.put("in/\(number).dat", Data(repeating: UInt8(number), count: 40_000_000))
      }
      try world.put("big.dat", Data(count: 300_000_000))
      var ids: [Int64] = []
      for number in inputs {
        ids.append(
          try await world.create(
            "--shell", "sh", "--input", "s3://data/in/\(number).dat", "--command", "cat $INPUT/*.dat | wc -c")
        )
      }
      let big = try await world.create("--input", "s3://data/big.dat", "--command", "true")
      let row = try await world.failed(big)
      try #require(row.reason == "disk", "\(row)")
      try #require(row.message?.contains("286.1 MiB") == true, "\(row)")
      for id in ids {
        try await world.succeeded(id, within: .seconds(120))
        try #require(try await world.log(id).text == "40000000")
      }
    }
  }

  @Test(
    "the agent is killed in the middle of a download: the next one brings it whole, and leaves nothing else")
  func killedWhileStaging() async throws {
    let files = try SlowFiles(delay: .seconds(2))
    defer { files.stop() }
    try await World.server().worker(slots: 1).run { world in
      let id = try await world.create(
        "--input", files.url("one"), "--resource", files.url("two"), "--shell", "sh", "--command",
        "cat $INPUT/one $RESOURCE/two; ls -A $INPUT $RESOURCE | wc -l")
      try await world.task(id, reaches: "D")
      try await world.killWorker("worker")
      try await world.startWorker("worker")
      try await world.succeeded(id)
      try #require(try await world.log(id).text.split(separator: "\n").dropLast() == ["one", "two"])
      try await until("nothing is left of it") {
        try await world.scitq("worker", "clean", "--quiet")
        return try ["tasks", "resources", "spare"].allSatisfy {
          let folder = world.store(of: "worker").appending(path: $0)
          return try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty
        }
      }
    }
  }

  private struct FileRow: Decodable, Equatable {
    var kind: String
    var uri: String
    var bytes: Int64
    var hash: String?
  }
}

extension World {
  /// Makes a user; what its calls have in their environment.
  fileprivate func user(_ name: String) async throws -> [String: String] {
    let password = "a password of \(name)"
    try await scitq(
      "user", "create", "--username", name, "--email", "\(name)@example.org", "--password", password)
    let login = try await call(
      ["login", "--user", name, "--password-stdin"], input: Data((password + "\n").utf8))
    try #require(login.status == 0, "\(login)")
    return ["SCITQ_TOKEN": login.text]
  }
}
