import Foundation
import Testing

/// The one road: from the command line to a container on a worker, and the outputs home.
@Suite("The main road", .serialized)
struct MainRoadTests {
  @Test("a command, a pipe and a script print what they should")
  func hello() async throws {
    try await World.server().dockerWorker(slots: 3).run { world in
      let plain = try await world.create("--container", "alpine", "--command", #"echo "hello world""#)
      let pipe = try await world.create(
        "--container", "alpine", "--shell", "sh", "--command", #"echo "hello world"|tr "h" "H""#)
      let python = try await world.create(
        "--container", "python:3.12", "--shell", "python", "--command",
        "print('Hello world')\nprint('Python rules!')")
      for (id, expected) in [
        (plain, "hello world\n"), (pipe, "Hello world\n"), (python, "Hello world\nPython rules!\n"),
      ] {
        try await world.succeeded(id)
        let output = try await world.log(id)
        try #require(String(decoding: output.out, as: UTF8.self) == expected)
      }
    }
  }

  @Test("inputs, a shared archive, outputs and a dependency: files pass from task to task")
  func files() async throws {
    try await World.server().dockerWorker(slots: 2).objectStore().run { world in
      try await world.putReference()
      for name in ["a", "b"] { try world.put("in/\(name).dat", Data("\(name) one\n\(name) two\n".utf8)) }
      try world.put("in/readme.txt", Data("not wanted\n".utf8))
      let count = try await world.create(
        "--container", "alpine", "--resource", "s3://data/ref.tgz|untar", "--input", "s3://data/in/*.dat",
        "--output", "s3://data/r/", "--shell", "sh", "--command",
        "ls /input; cat /resource/words.txt; touch /resource/x 2>/dev/null && echo writable; "
          + "mkdir /output/deep; cat /input/*.dat | wc -l > /output/deep/lines.txt")
      let after = try await world.create(
        "--container", "alpine", "--dependency", "\(count)", "--input", "s3://data/r/", "--command",
        "cat /input/deep/lines.txt")
      try #require(try await world.task(after).status == "W")
      try await world.succeeded(count)
      try await world.succeeded(after)
      try #require(try await world.log(count).text == "a.dat\nb.dat\nwords of the archive")
      try #require(try await world.log(after).text == "4")
      try #require(world.stored("r/deep/lines.txt") == "4\n")
      try #require(try await world.history(count).hasSuffix("ACDRUS"))
      try #require(try await world.history(after).hasPrefix("WP"))
    }
  }

  @Test("a task that fails after it has written: its files and its log come home, and the reason is told")
  func failure() async throws {
    try await World.server().dockerWorker(slots: 1).objectStore().run { world in
      try await world.putReference()
      try world.put("in/a.dat", Data("one\n".utf8))
      let id = try await world.create(
        "--container", "alpine", "--resource", "s3://data/ref.tgz|untar", "--input", "s3://data/in/*.dat",
        "--output", "s3://data/r/", "--shell", "sh", "--command",
        "cp /input/a.dat /output/half.dat; echo so far; echo 'no further' >&2; exit 3")
      let row = try await world.failed(id)
      try #require(row.exitCode == 3)
      try #require(row.reason == "exit-code")
      try #require(world.stored("r/half.dat") == "one\n")
      try #require(try await world.log(id, "--stderr").text == "no further")
      try #require(try await world.log(id, "--stdout").text == "so far")
      try #require(try await world.history(id).hasSuffix("RVF"))
      let shown = try await world.scitq("task", "show", "--id", "\(id)")
      try #require(shown.text.contains("exit-code") && shown.text.contains("3"))
    }
  }

  @Test("out of memory is read from the engine's own flag")
  func outOfMemory() async throws {
    try await World.server().dockerWorker(slots: 1).run { world in
      let id = try await world.create(
        "--container", "python:3.12", "--mem", "0.0625", "--shell", "python", "--command",
        "print('before', flush=True)\nhoard = bytearray(400 << 20)\nprint('after')")
      let row = try await world.failed(id)
      try #require(row.reason == "out-of-memory", "\(row)")
      try #require(try await world.log(id).text == "before")
      // The same code, by a command's own choice, is not taken for it.
      let own = try await world.create("--container", "alpine", "--shell", "sh", "--command", "exit 137")
      try #require(try await world.failed(own).reason == "exit-code")
    }
  }

  @Test("the next tasks are staged while others run")
  func prefetch() async throws {
    let slow = try SlowFiles(delay: .seconds(2))
    defer { slow.stop() }
    try await World.server().worker(slots: 2, prefetch: 2).run { world in
      var ids: [Int64] = []
      let began = ContinuousClock.now
      for index in 0..<10 {
        ids.append(
          try await world.create(
            "--input", slow.url("f\(index).dat"), "--shell", "sh", "--command",
            "sleep 2; cat $INPUT/f\(index).dat"))
      }
      var beside: Set<String> = []
      try await until("all ten tasks have ended", within: .seconds(60)) {
        let states = try await world.tasks(limit: 20).map(\.status)
        if states.contains("R") { beside.formUnion(states) }
        return states.allSatisfy { "SFX".contains($0) }
      }
      let took = ContinuousClock.now - began
      for (index, id) in ids.enumerated() {
        try await world.succeeded(id)
        try #require(try await world.log(id).text == "f\(index).dat")
      }
      try #require(beside.isSuperset(of: ["D", "O"]), "seen while others ran: \(beside.sorted())")
      // The observation is the proof; the time depends on the machine. Five rounds of two seconds after the first
      // download make 12 s; one after the other they would make 20.
      print("ten tasks of 2 s download and 2 s work, two at a time: \(took)")
    }
  }

  @Test("a task that is canceled while it runs is killed, keeps its log, and is not tried again")
  func cancel() async throws {
    try await World.server().dockerWorker(slots: 1).run { world in
      let id = try await world.create(
        "--container", "alpine", "--retry", "3", "--shell", "sh", "--command",
        "echo begun; while true; do sleep 1; done")
      let waiting = try await world.create(
        "--container", "alpine", "--dependency", "\(id)", "--command", "true")
      try await until("it has begun") { try await world.log(id).text == "begun" }
      try await world.scitq("task", "cancel", "--id", "\(id)")
      try await world.task(id, reaches: "X", within: .seconds(30))
      try #require(try await world.log(id).text == "begun")
      try #require(try await world.task(id).nextTaskId == nil)
      try #require(try await world.task(waiting).status == "W")
      let explained = try await world.scitq("task", "explain", "--id", "\(waiting)")
      try #require(explained.text.contains("\(id)"))
    }
  }

  @Test("a budget of retries is spent, and a retry by hand goes on from there")
  func retry() async throws {
    try await World.server().worker(slots: 1).run { world in
      let flag = world.folder.appending(path: "flag").path
      let first = try await world.create(
        "--retry", "1", "--shell", "sh", "--command", "echo try; test -e '\(flag)'")
      try await world.task(first, reaches: "F")
      let second = try #require(try await world.task(first).nextTaskId)
      let row = try await world.task(second, reaches: "F")
      try #require(row.previousTaskId == first)
      try #require(row.nextTaskId == nil)
      try Data().write(to: URL(filePath: flag))
      let third = try await world.scitq("task", "retry", "--id", "\(second)", "--quiet")
      try await world.succeeded(try #require(Int64(third.text), "\(third)"))
    }
  }
}

extension World {
  /// `ref.tgz`, an archive with one file.
  func putReference() async throws {
    let source = folder.appending(path: "ref")
    try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
    try Data("words of the archive\n".utf8).write(to: source.appending(path: "words.txt"))
    let log = folder.appending(path: "tar.log")
    let tar = try Program(
      "tar", try Tools.onPath("tar"),
      ["-C", source.path, "-czf", buckets.appending(path: "data/ref.tgz").path, "words.txt"],
      environment: ProcessInfo.processInfo.environment, out: log, err: log)
    let status = await tar.ended()
    try #require(status == 0)
  }
}
