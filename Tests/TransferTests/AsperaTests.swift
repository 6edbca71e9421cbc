import FoundationEssentials
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

@Suite("Aspera")
struct AsperaTests {
  private static let quick = RetryPolicy(tries: 1, first: .milliseconds(50), longest: .milliseconds(50))

  @Test("a file and a folder come by Aspera's client, and a password goes by its environment")
  func fetches() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("remote/d/f1"))
    try write("two", to: root.appending("remote/d/sub/f2"))
    try write("#!/bin/sh\n", to: root.appending("remote/tool"))
    let environment = try standIn(
      for: "ascp", ascpScript, in: root,
      [
        "RECORD": root.string, "REMOTE": root.appending("remote").string, "SCITQ_ASPERA_KEY": "/my/key",
      ])
    try await withTransfer(
      retry: Self.quick, archive: PublicArchive(asperaKey: "/other/key"), environment: environment
    ) { transfer, folder in
      func fetch(_ uri: String, _ into: String) async throws -> [MovedFile] {
        try await transfer.fetch(try TransferURI(parsing: uri), into: folder.appending(into))
      }
      let moved = try await fetch("fasp://me:p%25w@host/d/f1|rename:x", "1")
      #expect(
        moved == [
          MovedFile(uri: "asp://me:***@host/d/f1", bytes: 3, hash: "md5:f97c5d29941bfb1b2fdab0874906ab82")
        ])
      #expect(try text(folder.appending("1/x")) == "one")
      #expect(try namesIn(folder.appending("1")) == ["x"])
      let arguments = try text(root.appending("arguments")).split(separator: "\n").dropLast()
      #expect(
        arguments == ["-QT", "-l", "300m", "-P", "33001", "-k", "1", "-i", "/my/key", "me@host:/d/f1"])
      #expect(try text(root.appending("password")) == "p%w\n")

      for (number, uri) in ["asp://host:33002/d/", "asp://host/d"].enumerated() {
        let all = try await fetch(uri, "folder\(number)")
        #expect(names(folder.appending("folder\(number)")) == ["f1", "sub/f2"])
        #expect(all.map(\.uri).contains { $0.hasSuffix("/d/sub/f2") })
      }
      _ = try await fetch("asp://host/tool", "2")
      #expect(fileStatus(folder.appending("2/tool")).map { $0.st_mode & 0o111 != 0 } == true)

      for (uri, reason) in [
        ("asp://me:secret@host/none", FailureReason.inputMissing), ("asp://host/d/f1/", .input),
      ] {
        let found = await failure { _ = try await fetch(uri, "in") }
        #expect(found?.reason == reason, "\(String(describing: found))")
        #expect(found?.message.contains("secret") == false)
      }
      #expect(try namesIn(folder.appending("in")).isEmpty)
      for to in ["asp://host/x", "s3://b/x"] {
        let found = await failure { _ = try await transfer.copy("asp://host/d/f1", to: to) }
        #expect(found?.reason == .input, "\(String(describing: found))")
      }
      let listed = await failure { _ = try await transfer.list(TransferURI(parsing: "asp://host/d/")) }
      #expect(listed?.reason == .input)
    }
  }

  @Test("cancelling ends the client, and nothing arrives")
  func cancel() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    let environment = try standIn(
      for: "ascp", #"echo $$ >"$RECORD/pid"; exec sleep 60"#, in: root, ["RECORD": root.string])
    try await withTransfer(environment: environment) { transfer, folder in
      let uri = try TransferURI(parsing: "asp://host/x")
      let found = await withTaskGroup(of: TransferFailure?.self) { tasks in
        tasks.addTask {
          await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        }
        let deadline = ContinuousClock.now + .seconds(20)
        while fileStatus(root.appending("pid"))?.st_size ?? 0 == 0, ContinuousClock.now < deadline {
          try? await Task.sleep(for: .milliseconds(10))
        }
        tasks.cancelAll()
        return await tasks.next() ?? nil
      }
      #expect(found?.reason == .canceled, "\(String(describing: found))")
      #expect(try namesIn(folder.appending("in")).isEmpty)
      let pid = try #require(pid_t(try text(root.appending("pid")).filter(\.isNumber)))
      #expect(kill(pid, 0) != 0 || isZombie(pid))
    }
  }

  @Test("without its client it is said what to install")
  func missing() async throws {
    for environment in [["PATH": "/nowhere"], ["SCITQ_ASCP": "/nowhere/ascp"]] {
      try await withTransfer(environment: environment) { transfer, folder in
        let uri = try TransferURI(parsing: "asp://host/x")
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(found?.reason == .input, "\(String(describing: found))")
        #expect(found?.message.contains("ascp") == true, "\(String(describing: found))")
      }
    }
  }
}
