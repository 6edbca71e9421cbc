import FoundationEssentials
import ScitqProtocol
import Synchronization
import SystemPackage
import Testing

@testable import Transfer

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

@Suite("transfers")
struct TransferTests {
  @Test("a file, a folder and patterns are fetched from S3, with sizes and hashes")
  func fetches() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("bkt/d/f1.dat"))
    try write("two!", to: root.appending("bkt/d/f2.dat"))
    try write("odd", to: root.appending("bkt/d/f[3]?{x}.dat"))
    try write("deep", to: root.appending("bkt/d/sub/deep.dat"))
    try write("#!/bin/sh\necho hi\n", to: root.appending("bkt/tool"))
    try write("x1", to: root.appending("bkt/r1/x.txt"))
    try write("y2", to: root.appending("bkt/r2/y.txt"))
    try write("", to: root.appending("bkt/r2/empty.txt"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, folder in
        let one = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/d/f1.dat"), into: folder.appending("1"))
        #expect(
          one == [MovedFile(uri: "s3://bkt/d/f1.dat", bytes: 3, hash: "md5:f97c5d29941bfb1b2fdab0874906ab82")]
        )
        #expect(try text(folder.appending("1/f1.dat")) == "one")
        #expect(names(folder.appending("1")) == ["f1.dat"])

        let all = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/d/"), into: folder.appending("2"))
        #expect(all.count == 4)
        #expect(names(folder.appending("2")) == ["f1.dat", "f2.dat", "f[3]?{x}.dat", "sub/deep.dat"])
        // Written without its slash it is the same folder.
        _ = try await transfer.fetch(try TransferURI(parsing: "s3://bkt/d"), into: folder.appending("3"))
        #expect(names(folder.appending("3")) == names(folder.appending("2")))

        _ = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/d/*.dat"), into: folder.appending("4"))
        #expect(names(folder.appending("4")) == ["f1.dat", "f2.dat", "f[3]?{x}.dat"])
        _ = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/d/f[3]?{x}*"), into: folder.appending("5"))
        #expect(names(folder.appending("5")) == ["f[3]?{x}.dat"])
        let flat = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/r*/*.txt"), into: folder.appending("6"))
        #expect(names(folder.appending("6")) == ["empty.txt", "x.txt", "y.txt"])
        #expect(
          flat.map(\.uri).sorted() == ["s3://bkt/r1/x.txt", "s3://bkt/r2/empty.txt", "s3://bkt/r2/y.txt"])

        _ = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/tool|mv:bin"), into: folder.appending("7"))
        #expect(access(folder.appending("7/bin/tool").string, X_OK) == 0)
        #expect(try await transfer.size(of: try TransferURI(parsing: "s3://bkt/d/")) == 14)
      }
    }
  }

  @Test("what is missing, double or refused is said, at once and by class", .timeLimit(.minutes(5)))
  func failures() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("1", to: root.appending("bkt/r1/same.txt"))
    try write("2", to: root.appending("bkt/r2/same.txt"))
    try await Store.serving(root) { store in
      var wrong = store.remote
      wrong["secret_access_key"] = "not-the-secret-at-all"
      let remotes = Remotes(["s3": store.remote, "wrong": wrong])
      // Another try would take an hour.
      let patient = RetryPolicy(tries: 2, first: .seconds(3600), longest: .seconds(3600))
      try await withTransfer(remotes, retry: patient) { transfer, folder in
        func reason(_ uri: String) async throws -> TransferFailure? {
          let uri = try TransferURI(parsing: uri)
          return await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        }
        for uri in [
          "s3://bkt/none", "s3://bkt/none/", "s3://bkt/r1/*.dat", "s3://nobucket/x", "s3://nobucket/*",
          "/no/such",
        ] {
          let found = try await reason(uri)
          #expect(found?.reason == .inputMissing, "\(uri): \(String(describing: found))")
          #expect(found?.message.contains(uri) == true, "\(String(describing: found))")
        }
        let double = try await reason("s3://bkt/r*/same.txt")
        #expect(double?.reason == .input)
        #expect(double?.message.contains("s3://bkt/r1/same.txt and s3://bkt/r2/same.txt") == true)
        let denied = try await reason("wrong://bkt/r1/same.txt")
        #expect(denied?.reason == .denied, "\(String(describing: denied))")
        #expect(denied?.message.contains("not-the-secret") == false)
        #expect(names(folder.appending("in")).isEmpty)

        // A name that is taken is not overwritten.
        _ = try await transfer.fetch(
          try TransferURI(parsing: "s3://bkt/r1/same.txt"), into: folder.appending("in"))
        #expect(try await reason("s3://bkt/r2/same.txt")?.reason == .input)
        #expect(try text(folder.appending("in/same.txt")) == "1")
        #expect(try namesIn(folder.appending("in")) == ["same.txt"])
      }
    }
  }

  @Test("outputs are stored with what links within lead to, and nothing at the destination is lost")
  func stores() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("kept", to: root.appending("bkt/out/old.txt"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, folder in
        let output = folder.appending("output")
        try write("a", to: output.appending("a.txt"))
        try write("bb", to: output.appending("sub/b{1}[2]?.txt"))
        try write("", to: output.appending("empty"))
        symlink("a.txt", output.appending("link.txt").string)
        symlink("/etc/passwd", output.appending("outside").string)
        symlink("sub", output.appending("again").string)
        symlink("..", output.appending("sub/up").string)
        mkfifo(output.appending("pipe").string, 0o600)
        let uri = try TransferURI.parseOutput("s3://bkt/out")
        let stored = try await transfer.store(output, to: uri)
        #expect(
          names(root.appending("bkt/out")) == [
            "a.txt", "again/b{1}[2]?.txt", "empty", "link.txt", "old.txt", "sub/b{1}[2]?.txt",
          ])
        #expect(stored.map(\.uri).sorted().first == "s3://bkt/out/a.txt")
        #expect(stored.allSatisfy { $0.hash.hasPrefix("md5:") })
        #expect(stored.reduce(0) { $0 + $1.bytes } == 6)
        #expect(try text(root.appending("bkt/out/link.txt")) == "a")

        // The same size at the same second, and other content: it arrives.
        try write("z", to: output.appending("a.txt"))
        _ = try await transfer.store(output, to: uri)
        #expect(try text(root.appending("bkt/out/a.txt")) == "z")

        try createFolder(folder.appending("nothing/below"))
        #expect(try await transfer.store(folder.appending("nothing"), to: uri) == [])
        // And to a folder of this machine.
        let local = try TransferURI.parseOutput(folder.appending("kept").string)
        #expect(try await transfer.store(output, to: local).count == 5)
        #expect(try text(folder.appending("kept/a.txt")) == "z")
      }
    }
  }

  @Test("2,000 small files go up and down in seconds")
  func manyFiles() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try createFolder(root.appending("bkt"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, folder in
        let content = [UInt8](repeating: 65, count: 20_000)
        for number in 0..<2000 { try write(content, to: folder.appending("out/d\(number % 10)/f\(number)")) }
        let started = ContinuousClock.now
        let last = Mutex(TransferProgress(bytes: 0, totalBytes: 0, files: 0, totalFiles: 0))
        let uri = try TransferURI.parseOutput("s3://bkt/many/")
        let up = try await transfer.store(folder.appending("out"), to: uri) { now in
          last.withLock { $0 = now }
        }
        let between = ContinuousClock.now
        let down = try await transfer.fetch(uri, into: folder.appending("in"))
        print("2,000 files of 20 kB: up \(between - started), down \(ContinuousClock.now - between)")
        #expect(up.count == 2000 && down.count == 2000)
        #expect(names(folder.appending("in")).count == 2000)
        #expect(
          last.withLock { $0 }
            == TransferProgress(bytes: 40_000_000, totalBytes: 40_000_000, files: 2000, totalFiles: 2000))
      }
    }
  }

  @Test("a store that is away for some seconds is waited for")
  func storeIsAway() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("there", to: root.appending("bkt/x"))
    let port = try await Store.freePort()
    let store = Store(port: port, root: root)
    try await withTransfer(store.remotes()) { transfer, folder in
      let uri = try TransferURI(parsing: "s3://bkt/x")
      try await Store.serving(root, port: port) { _ in
        _ = try await transfer.fetch(uri, into: folder.appending("before"))
      }
      let (fetched, signal) = AsyncStream.makeStream(of: Void.self)
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask {
          defer { signal.finish() }
          _ = try await transfer.fetch(uri, into: folder.appending("after"))
        }
        // What is tested is a time: the server stays away this long.
        try await Task.sleep(for: .seconds(6))
        try await Store.serving(root, port: port) { _ in for await _ in fetched {} }
        try await tasks.waitForAll()
      }
      #expect(try text(folder.appending("after/x")) == "there")
    }
  }

  @Test("a store that stays away is a network failure after all tries")
  func storeStaysAway() async throws {
    let port = try await Store.freePort()
    let quick = RetryPolicy(tries: 2, first: .milliseconds(100), longest: .milliseconds(100))
    try await withTransfer(Store(port: port, root: "/none").remotes(), retry: quick) { transfer, folder in
      let uri = try TransferURI(parsing: "s3://bkt/x")
      let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
      #expect(found?.reason == .network && found?.isTransient == true, "\(String(describing: found))")
    }
  }

  @Test("rclone that was killed is started again, and the transfer goes on")
  func rcloneDies() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("there", to: root.appending("bkt/x"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, folder in
        let uri = try TransferURI(parsing: "s3://bkt/x")
        _ = try await transfer.fetch(uri, into: folder.appending("1"))
        let first = try await pid(of: transfer)
        kill(first, SIGKILL)
        _ = try await transfer.fetch(uri, into: folder.appending("2"))
        let second = try await pid(of: transfer)
        #expect(first != second)
        #expect(try text(folder.appending("2/x")) == "there")

        let secrets = try await transfer.daemon.run().folder
        #expect(fileStatus(secrets).map { $0.st_mode & 0o777 } == 0o700)
        #expect(fileStatus(secrets.appending("rclone.conf")).map { $0.st_mode & 0o777 } == 0o600)
        let arguments = try text(FilePath("/proc/\(second)/cmdline"))
        #expect(!arguments.contains(Store.secret))
        await transfer.stop()
        #expect(kill(second, 0) != 0 || isZombie(second))
        #expect(fileStatus(secrets) == nil)
      }
    }
  }

  private func pid(of transfer: Transfer) async throws -> pid_t {
    let run = try await transfer.daemon.run()
    return try #require(pid_t(try text(run.folder.appending("pid")).filter(\.isNumber)))
  }

  @Test("what a process that is gone left running is swept by the next")
  func sweep() async throws {
    let sandbox = try Sandbox()
    // A pid that no process has any longer.
    let gone = try await tool("sh", ["-c", "echo $$"], in: sandbox.path).filter(\.isNumber)
    let left = sandbox.path.appending("rc/rc-\(gone)-1-1")
    try write("0", to: left.appending("pid"))
    let folder = try PrivateFolder.make(below: sandbox.path.appending("rc"))
    #expect(fileStatus(left) == nil)
    #expect(fileStatus(folder) != nil)
    let second = try PrivateFolder.make(below: sandbox.path.appending("rc"))
    #expect(fileStatus(folder) != nil && fileStatus(second) != nil)
  }

  @Test("a cancelled fetch ends soon, and leaves nothing half-made")
  func cancellation() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try await tool("truncate", ["-s", "4G", "big"], in: root)
    try await Store.serving(root, as: "http") { store in
      try await withTransfer { transfer, folder in
        let uri = try TransferURI(parsing: "http://127.0.0.1:\(store.port)/big")
        let (begun, signal) = AsyncStream.makeStream(of: Void.self)
        let ended = await withTaskGroup(of: TransferFailure?.self) { tasks in
          tasks.addTask {
            await failure {
              _ = try await transfer.fetch(uri, into: folder.appending("in")) { now in
                if now.bytes > 0 { signal.yield() }
              }
            }
          }
          for await _ in begun { break }
          tasks.cancelAll()
          return await tasks.next() ?? nil
        }
        #expect(ended?.reason == .canceled)
        #expect(try namesIn(folder.appending("in")).isEmpty)
        // And rclone still serves.
        #expect(try await transfer.size(of: uri) == 4 << 30)
      }
    }
  }

  @Test("a fingerprint follows the content")
  func fingerprints() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("bkt/d/x"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, folder in
        let uri = try TransferURI(parsing: "s3://bkt/d/")
        let first = try await transfer.fingerprint(of: uri)
        #expect(try await transfer.fingerprint(of: uri) == first)
        try write("two", to: folder.appending("x"))
        _ = try await transfer.copy(folder.appending("x").string, to: "s3://bkt/d/x")
        #expect(try await transfer.fingerprint(of: uri) != first)
      }
    }
  }

  @Test("http and ftp are sources: files, links with a query, folders and patterns")
  func web() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("d/f 1.dat"))
    try write("two", to: root.appending("d/f2.dat"))
    try write("deep", to: root.appending("d/sub/deep"))
    for kind in ["http", "ftp"] {
      try await Store.serving(root, as: kind) { store in
        try await withTransfer { transfer, folder in
          let host =
            kind == "ftp" ? "ftp://u:p%25w@127.0.0.1:\(store.port)" : "http://127.0.0.1:\(store.port)"
          func fetch(_ path: String, _ into: String) async throws {
            _ = try await transfer.fetch(try TransferURI(parsing: host + path), into: folder.appending(into))
          }
          try await fetch(kind == "ftp" ? "/d/f 1.dat" : "/d/f%201.dat", "1")
          #expect(try text(folder.appending("1/f 1.dat")) == "one")
          try await fetch("/d/", "2")
          #expect(names(folder.appending("2")) == ["f 1.dat", "f2.dat", "sub/deep"])
          try await fetch("/d/*2.dat", "3")
          #expect(names(folder.appending("3")) == ["f2.dat"])
          if kind == "http" {
            try await fetch("/d/f2.dat?token=1", "4")
            #expect(names(folder.appending("4")) == ["f2.dat"])
          }
          let missing = await failure { try await fetch("/d/none", "5") }
          #expect(missing?.reason == .inputMissing, "\(String(describing: missing))")
        }
      }
    }
  }

  @Test("a listing gives full URIs, folders with a slash")
  func lists() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("bkt/d/f1.dat"))
    try write("x", to: root.appending("bkt/d/sub/x"))
    try await Store.serving(root) { store in
      try await withTransfer(store.remotes()) { transfer, _ in
        func list(_ uri: String) async throws -> [Entry] {
          try await transfer.list(try TransferURI(parsing: uri))
        }
        let entries = try await list("s3://bkt/d/")
        #expect(entries.map(\.uri) == ["s3://bkt/d/sub/", "s3://bkt/d/f1.dat"])
        #expect(entries[1].bytes == 3 && !entries[1].isFolder)
        #expect(abs(try #require(entries[1].modified).timeIntervalSinceNow) < 3600)
        #expect(try await list("s3://bkt").map(\.uri) == ["s3://bkt/d/"])
        #expect(try await list("s3://bkt/d/f1.dat").map(\.uri) == ["s3://bkt/d/f1.dat"])
        #expect(try await list("s3://bkt/*/*").map(\.uri) == ["s3://bkt/d/sub/", "s3://bkt/d/f1.dat"])
        #expect(
          try await list(root.appending("bkt/d").string).map(\.uri)
            == entries.map { root.string + "/" + $0.uri.dropFirst(5) })
        let missing = await failure { _ = try await list("s3://bkt/none/") }
        #expect(missing?.reason == .inputMissing)
      }
    }
  }
}
