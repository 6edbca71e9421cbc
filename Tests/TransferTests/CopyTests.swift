import ScitqProtocol
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

@Suite("file copy")
struct CopyTests {
  @Test("copies between this machine and remotes put files where people expect them")
  func places() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("s", to: root.appending("bkt/src/x.txt"))
    try write("t", to: root.appending("bkt/src/sub/y.txt"))
    try createFolder(root.appending("dst"))
    try await Store.serving(root) { store in
      let remotes = Remotes(["s3": store.remote, "other": store.remote])
      try await withTransfer(remotes) { transfer, folder in
        let here = folder.string
        // Remote to remote: a file by its name, by another, a folder's content, a pattern.
        _ = try await transfer.copy("s3://bkt/src/x.txt", to: "other://dst/1/")
        _ = try await transfer.copy("s3://bkt/src/x.txt", to: "other://dst/1/z.txt")
        _ = try await transfer.copy("s3://bkt/src/", to: "s3://dst/2")
        _ = try await transfer.copy("s3://bkt/src/*.txt", to: "s3://dst/3/")
        #expect(names(root.appending("dst")) == ["1/x.txt", "1/z.txt", "2/sub/y.txt", "2/x.txt", "3/x.txt"])
        // Down.
        try createFolder(folder.appending("dir"))
        _ = try await transfer.copy("s3://bkt/src/x.txt", to: "\(here)/dir")
        _ = try await transfer.copy("s3://bkt/src/x.txt", to: "\(here)/name")
        let moved = try await transfer.copy("s3://bkt/src/", to: "\(here)/all")
        #expect(names(folder.appending("dir")) == ["x.txt"])
        #expect(try text(folder.appending("name")) == "s")
        #expect(names(folder.appending("all")) == ["sub/y.txt", "x.txt"])
        #expect(moved.map(\.uri).sorted() == ["\(here)/all/sub/y.txt", "\(here)/all/x.txt"])
        // Up.
        _ = try await transfer.copy("\(here)/name", to: "s3://dst/4/renamed")
        _ = try await transfer.copy("\(here)/all/", to: "s3://dst/5/")
        _ = try await transfer.copy("\(here)/all/*.txt", to: "s3://dst/6/")
        #expect(names(root.appending("dst/4")) == ["renamed"])
        #expect(names(root.appending("dst/5")) == ["sub/y.txt", "x.txt"])
        #expect(names(root.appending("dst/6")) == ["x.txt"])
        // Within this machine.
        _ = try await transfer.copy("\(here)/all/", to: "\(here)/again/")
        _ = try await transfer.copy("\(here)/name", to: "\(here)/again/")
        #expect(names(folder.appending("again")) == ["name", "sub/y.txt", "x.txt"])
        // A dry run says what would be.
        let would = try await transfer.copy("s3://bkt/src/", to: "\(here)/never/", dryRun: true)
        #expect(would.map(\.uri).sorted() == ["\(here)/never/sub/y.txt", "\(here)/never/x.txt"])
        #expect(fileStatus(folder.appending("never")) == nil)
      }
    }
  }

  @Test("a copy onto or into itself, to a web page or of nothing is refused")
  func refusals() async throws {
    try await withTransfer { transfer, folder in
      try write("x", to: folder.appending("d/x"))
      let here = folder.string
      for (from, to) in [
        ("\(here)/d/x", "\(here)/d/x"), ("\(here)/d/x", "\(here)/d/"), ("\(here)/d/", "\(here)/d/sub/"),
        ("\(here)/d/", "\(here)/d"), ("s3://bkt/x", "s3://bkt/x"), ("\(here)/d/x", "https://host/x"),
        ("\(here)/d/x", "\(here)/e|untar"), ("\(here)/d/", "\(here)/d/x"),
      ] {
        let found = await failure { _ = try await transfer.copy(from, to: to) }
        #expect(found?.reason == .input, "\(from) to \(to): \(String(describing: found))")
      }
      let missing = await failure { _ = try await transfer.copy("\(here)/none", to: "\(here)/e") }
      #expect(missing?.reason == .inputMissing)
      #expect(names(folder) == ["d/x"])
    }
  }

  @Test("a local input is a copy, with its mode, and not a link")
  func localInput() async throws {
    try await withTransfer { transfer, folder in
      try write("#!/bin/sh\n", to: folder.appending("src/run"))
      chmodForTest(folder.appending("src/run"), 0o750)
      try write("x", to: folder.appending("src/sub/x"))
      _ = try await transfer.fetch(
        try TransferURI(parsing: "file://\(folder)/src/"), into: folder.appending("in"))
      #expect(names(folder.appending("in")) == ["run", "sub/x"])
      let before = try #require(fileStatus(folder.appending("src/run")))
      let after = try #require(fileStatus(folder.appending("in/run")))
      #expect(before.st_ino != after.st_ino && after.st_nlink == 1)
      #expect(after.st_mode & 0o777 == 0o750)
      #expect(after.modified == before.modified)
    }
  }
}
