import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

@Suite struct SmallPartsTests {
  @Test("container options are matched by name, and nothing hides behind another")
  func options() {
    let allowed = ["--shm-size", "--network", "-e", "--init"]
    func refused(_ words: String...) -> String? { ContainerOptions.refused(words, allowed: allowed) }
    #expect(refused("--shm-size=1g", "--network", "host", "-e", "A=1") == nil)
    #expect(refused("--privileged") == "--privileged")
    #expect(refused("--shm-size=1g", "-v", "/:/host") == "-v")
    #expect(refused("-eA=1") == "-eA=1")
    #expect(refused("--network host") == "--network host")
    #expect(refused("image") == "image")
    #expect(refused("--shm-size=1g", "image") == "image")
    #expect(refused("--") == "--")
  }

  @Test("a join token is split at its fingerprint only")
  func token() {
    let print = String(repeating: "aB", count: 32)
    #expect(Enrolment.split("secret." + print) == ("secret", print.lowercased()))
    #expect(Enrolment.split("a.b") == ("a.b", nil))
    #expect(Enrolment.split("") == (nil, nil))
  }

  @Test("of a long log its beginning and its end are kept")
  func trim() {
    var trim = LogTrim(limit: 10)
    let first = Array(trim.take(0, [1, 2, 3]))
    #expect(first == [1, 2, 3])
    #expect(trim.tail == nil)
    let second = Array(trim.take(3, [4, 5, 6, 7]))
    #expect(second == [4, 5])
    #expect(trim.tail == 5)
    #expect(trim.notice.isEmpty)
    let third = trim.take(7, [UInt8](repeating: 9, count: 13))
    #expect(third.isEmpty)
    #expect(trim.tail == 15)
    #expect(String(decoding: trim.notice, as: UTF8.self).contains("10 bytes are left out"))
    var open = LogTrim(limit: 0)
    let far = open.take(1 << 40, [1])
    #expect(far.count == 1)
    #expect(open.tail == nil)
  }

  @Test("folders of an attempt that hold nothing go without a look inside; others stay")
  func folders() async throws {
    try await withFolder { folder in
      let store = StorePaths(folder.appending("store"))
      try store.make()
      let folders = TaskFolders(AttemptID(task: 7, assignment: 2), spec: WireTaskSpec(), in: store)
      let spares = SpareFolders(store)
      try folders.make(spares)
      try folders.make(spares)
      #expect(Files.names(in: folders.root).sorted() == ["input", "output", "tmp"])
      try write("x", to: folders.launch.output.appending("file"))
      #expect(!folders.removeIfEmpty())
      Files.removeTree(folders.root)
      #expect(!Files.exists(folders.root))
      try folders.make(spares)
      #expect(folders.removeIfEmpty())
      #expect(Files.names(in: store.tasks).isEmpty)
    }
  }

  @Test("folders that nobody has touched serve the next attempt; others do not")
  func spareFolders() async throws {
    try await withFolder { folder in
      let store = StorePaths(folder.appending("store"))
      try store.make()
      let spares = SpareFolders(store)
      func folders(_ task: TaskID) -> TaskFolders {
        TaskFolders(AttemptID(task: task, assignment: 1), spec: WireTaskSpec(), in: store)
      }
      try folders(1).make(spares)
      #expect(folders(1).keep(spares))
      #expect(!Files.exists(folders(1).root))
      try folders(2).make(spares)
      #expect(Files.names(in: folders(2).root).sorted() == ["input", "output", "tmp"])
      #expect(Files.names(in: store.tasks) == ["2.1"])
      let touched: [(TaskFolders) throws -> Void] = [
        { try write("x", to: $0.launch.output.appending("file")) },
        { try write("x", to: $0.root.appending("beside")) },
        { try Files.changeMode($0.launch.temp, 0o700) },
        { _ = Files.removeEmptyFolder($0.launch.input) },
      ]
      for (number, touch) in touched.enumerated() {
        let folders = folders(TaskID(Int64(10 + number)))
        try folders.make(spares)
        try touch(folders)
        #expect(!folders.keep(spares))
      }
    }
  }

  @Test("trees are linked and merged; two files of one name are an error")
  func trees() async throws {
    try await withFolder { folder in
      let a = folder.appending("a")
      let b = folder.appending("b")
      let target = folder.appending("target")
      for path in [a.appending("sub"), b.appending("sub"), target] { try Files.makeFolders(path) }
      try write("1", to: a.appending("sub").appending("one"))
      try write("2", to: b.appending("sub").appending("two"))
      try Files.linkTree(a, at: target)
      try Files.linkTree(b, at: target)
      #expect(Files.names(in: target.appending("sub")).sorted() == ["one", "two"])
      #expect(throws: Files.Problem.self) { try Files.linkTree(a, at: target) }
      let other = folder.appending("other")
      try Files.makeFolders(other.appending("sub"))
      try write("3", to: other.appending("sub").appending("one"))
      #expect(throws: Files.Problem.self) { try Files.mergeTree(other, into: target) }
      #expect(Files.text(target.appending("sub").appending("one")) == "1")
    }
  }

  @Test("the host is described and sampled with figures that can be")
  func host() async throws {
    let host = await HostProbe.describe(store: "/tmp", maxCPU: 1, maxMemory: 1 << 20, engines: ["bare"])
    #expect(host.cpu > 0 && host.cpu <= 1)
    #expect(host.memoryBytes == 1 << 20)
    #expect(host.diskBytes > 0)
    var sampler = HostSampler(store: "/tmp")
    _ = sampler.sample(running: 0)
    let (stats, _) = sampler.sample(running: 3)
    #expect(stats.running == 3)
    #expect(stats.memoryPercent > 0 && stats.memoryPercent <= 100)
    #expect((0...100).contains(stats.cpuPercent))
    #expect(stats.disks.contains { $0.totalBytes > 0 })
  }
}
