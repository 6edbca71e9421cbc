import Foundation
import ScitqProtocol
import Subprocess
import SystemPackage
import Testing

@testable import Transfer

/// Every kind of store that can be had on this machine, each as a remote of the configuration.
@Suite("stores", .serialized)
struct BackendTests {
  private static let kinds = ["s3", "sftp", "webdav", "ftp"]

  @Test(
    "every action on what was stored in each kind of store, and copies from each to each, bring the right bytes"
  )
  func everywhere() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    for kind in Self.kinds { try write("", to: root.appending("\(kind)/bkt/.keep")) }
    try await withStores(Self.kinds[...], root, [:]) { settings in
      try await withTransfer(Remotes(settings)) { transfer, folder in
        let content = try await Self.makeContent(in: folder.appending("content"))
        for kind in Self.kinds {
          let base = "at-\(kind)://bkt/up/"
          let stored = try await transfer.store(
            folder.appending("content"), to: TransferURI.parseOutput(base))
          #expect(stored.count == content.count, "\(kind)")
          func fetch(_ what: String, _ expected: [String: [UInt8]]) async throws {
            let into = folder.appending("in/\(UInt64.random(in: 0 ... .max))")
            _ = try await transfer.fetch(TransferURI(parsing: base + what), into: into)
            #expect(names(into) == expected.keys.sorted(), "\(kind) \(what)")
            for (name, bytes) in expected {
              let found = try [UInt8](Data(contentsOf: URL(filePath: into.appending(name).string)))
              #expect(found == bytes, "\(kind) \(what) \(name)")
            }
          }
          let big = content["big.bin"]!
          let text = content["tree/sub/text.txt"]!
          let tree = ["tree/sub/text.txt": text, "tree/other.txt": content["tree/other.txt"]!]
          try await fetch("big.bin", ["big.bin": big])
          try await fetch("tree/", ["sub/text.txt": text, "other.txt": content["tree/other.txt"]!])
          try await fetch("tree/*/*.txt", ["text.txt": text])
          try await fetch("big.bin|mv:a/b", ["a/b/big.bin": big])
          for archive in ["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.tar.zst", "a.zip"] {
            try await fetch("\(archive)|untar", tree)
          }
          try await fetch("text.gz|gunzip", ["text": text])
          try await fetch("text.gz|gunzip|mv:x", ["x/text": text])
          for other in Self.kinds where other != kind {
            _ = try await transfer.copy("at-\(kind)://bkt/up/tree/", to: "at-\(other)://bkt/from-\(kind)/")
            _ = try await transfer.copy(
              "at-\(kind)://bkt/up/big.bin", to: "at-\(other)://bkt/from-\(kind)/big")
            let there = root.appending("\(other)/bkt/from-\(kind)")
            #expect(names(there) == ["big", "other.txt", "sub/text.txt"], "\(kind) to \(other)")
            let copied = try [UInt8](Data(contentsOf: URL(filePath: there.appending("big").string)))
            #expect(copied == big, "\(kind) to \(other)")
          }
        }
      }
    }
  }

  /// Serves a folder for each kind, one within the other.
  private func withStores(
    _ kinds: ArraySlice<String>, _ root: FilePath, _ settings: [String: [String: String]],
    _ body: @escaping @Sendable ([String: [String: String]]) async throws -> Void
  ) async throws {
    guard let kind = kinds.first else { return try await body(settings) }
    let obscured = try await tool(
      RcloneProgram.locate(in: ProcessInfo.processInfo.environment), ["obscure", "p%w"], in: root
    ).trimmingCharacters(in: .whitespacesAndNewlines)
    try await Store.serving(root.appending(kind), as: kind) { store in
      let remote: [String: String] =
        switch kind {
        case "s3": store.remote
        case "webdav":
          ["type": kind, "url": "http://127.0.0.1:\(store.port)", "user": "u", "pass": obscured]
        default:
          ["type": kind, "host": "127.0.0.1", "port": "\(store.port)", "user": "u", "pass": obscured]
        }
      try await withStores(kinds.dropFirst(), root, settings.merging(["at-\(kind)": remote]) { $1 }, body)
    }
  }

  /// Files, a tree, and the tree in every kind of archive; the bytes of each by name.
  private static func makeContent(in folder: FilePath) async throws -> [String: [UInt8]] {
    var numbers = SeededNumbers(seed: 7)
    let big = (0..<3_000_001).map { _ in UInt8.random(in: 0...255, using: &numbers) }
    try write(big, to: folder.appending("big.bin"))
    try write("some text\n", to: folder.appending("tree/sub/text.txt"))
    try write("other text\n", to: folder.appending("tree/other.txt"))
    try write("some text\n", to: folder.appending("text"))
    try await tool("gzip", ["text"], in: folder)
    for (archive, option) in [
      ("a.tar", "-c"), ("a.tgz", "-cz"), ("a.tar.bz2", "-cj"), ("a.tar.xz", "-cJ"), ("a.tar.zst", "--zstd"),
    ] {
      let arguments =
        option == "--zstd" ? [option, "-cf", archive, "tree"] : ["\(option)f", archive, "tree"]
      try await tool("tar", arguments, in: folder)
    }
    try await tool("zip", ["-qr", "a.zip", "tree"], in: folder)
    var content: [String: [UInt8]] = [:]
    for name in names(folder) {
      content[name] = try [UInt8](Data(contentsOf: URL(filePath: folder.appending(name).string)))
    }
    return content
  }
}
