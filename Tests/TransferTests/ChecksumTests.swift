import FoundationEssentials
import ScitqProtocol
import Subprocess
import SystemPackage
import Testing

@testable import Transfer

@Suite("checksums")
struct ChecksumTests {
  /// Stands between rclone and a store: in what the store answers, one text reads otherwise.
  private static let forger = """
    import socket, sys, threading
    port, upstream, old, new = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4].encode()
    def pump(source, target, forges):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data.replace(old, new) if forges else data)
        except OSError:
            pass
        for end in (source, target):
            try: end.shutdown(socket.SHUT_RDWR)
            except OSError: pass
    server = socket.create_server(('127.0.0.1', port))
    while True:
        client, _ = server.accept()
        store = socket.create_connection(('127.0.0.1', upstream))
        threading.Thread(target=pump, args=(client, store, False), daemon=True).start()
        threading.Thread(target=pump, args=(store, client, True), daemon=True).start()
    """

  private func forging<T: Sendable>(
    _ store: Store, _ old: String, _ new: String, _ body: @escaping @Sendable (Store) async throws -> T
  ) async throws -> T {
    let port = try await Store.freePort()
    return try await Subprocess.run(
      .name("python3"), arguments: ["-c", Self.forger, "\(port)", "\(store.port)", old, new], input: .none,
      output: .discarded, error: .discarded
    ) { execution in
      let result: Result<T, any Error>
      do {
        try await Store.answers(port)
        result = .success(try await body(Store(port: port, root: store.root)))
      } catch {
        result = .failure(error)
      }
      try? execution.send(signal: .kill)
      return result
    }.closureResult.get()
  }

  @Test("a store that flips a byte is found out, with both hashes, and nothing arrives")
  func flipped() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("what was stored", to: root.appending("bkt/d/x"))
    try write("untouched", to: root.appending("bkt/d/y"))
    let stored = "3e5f17637f3f9714b1ed430b6dafdeef"
    let forged = "926722381618716ceba0e02a90ebcfd9"
    let quick = RetryPolicy(tries: 2, first: .milliseconds(50), longest: .milliseconds(50))
    try await Store.serving(root) { store in
      try await forging(store, "what was stored", "what was storee") { forger in
        try await withTransfer(forger.remotes(), retry: quick) { transfer, folder in
          for uri in ["s3://bkt/d/x", "s3://bkt/d/", "s3://bkt/d/*"] {
            let uri = try TransferURI(parsing: uri)
            let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
            #expect(found?.reason == .checksum, "\(String(describing: found))")
            #expect(
              found?.message == "\(uri): the MD5 of what arrived is \(forged), and should be \(stored)",
              "\(String(describing: found))")
            #expect(try namesIn(folder.appending("in")).isEmpty)
          }
        }
        // Who has it off takes what comes.
        let remotes = Remotes(["s3": forger.remote], checksums: ["s3": .off])
        try await withTransfer(remotes, retry: quick) { transfer, folder in
          let moved = try await transfer.fetch(
            try TransferURI(parsing: "s3://bkt/d/"), into: folder.appending("in"))
          #expect(moved.map(\.hash) == ["", ""])
          #expect(try text(folder.appending("in/x")) == "what was storee")
        }
      }
    }
  }

  @Test("where a store tells no hash, the MD5 of the bytes here is recorded, unless that is off")
  func recorded() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try write("one", to: root.appending("d/f1"))
    try await Store.serving(root, as: "ftp") { store in
      let one = "md5:f97c5d29941bfb1b2fdab0874906ab82"
      let password = try await withTransfer { transfer, _ in try await transfer.rclone.obscure("p%w") }
      let settings = [
        "type": "ftp", "host": "127.0.0.1", "port": "\(store.port)", "user": "u", "pass": password,
      ]
      try await withTransfer(Remotes(["nas": settings])) { transfer, folder in
        for source in [
          "nas://d/f1", "ftp://u:p%25w@127.0.0.1:\(store.port)/d/f1", root.appending("d/").string,
        ] {
          let name = String(source.prefix { $0 != ":" }.map { $0 == "/" ? "-" : $0 })
          let down = try await transfer.fetch(try TransferURI(parsing: source), into: folder.appending(name))
          #expect(down.map(\.hash) == [one], "\(source)")
        }
        let up = try await transfer.store(
          root.appending("d"), to: try TransferURI.parseOutput("nas://up"))
        #expect(up == [MovedFile(uri: "nas://up/f1", bytes: 3, hash: one)])
      }
      try await withTransfer(Remotes(["nas": settings], checksums: ["nas": .off])) { transfer, folder in
        let down = try await transfer.fetch(
          try TransferURI(parsing: "nas://d/f1"), into: folder.appending("in"))
        let up = try await transfer.store(root.appending("d"), to: try TransferURI.parseOutput("nas://up2"))
        #expect((down + up).map(\.hash) == ["", ""])
      }
      try await withTransfer(Remotes(["nas": settings], checksums: ["nas": .require])) { transfer, folder in
        let uri = try TransferURI(parsing: "nas://d/f1")
        let down = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        let output = try TransferURI.parseOutput("nas://up3")
        let up = await failure { _ = try await transfer.store(root.appending("d"), to: output) }
        for (found, file) in [(down, "nas://d/f1"), (up, "nas://up3/f1")] {
          #expect(found?.reason == .checksum, "\(String(describing: found))")
          #expect(
            found?.message.hasPrefix("\(file): the remote \"nas\" tells no hash") == true,
            "\(String(describing: found))")
        }
        #expect(try namesIn(folder.appending("in")).isEmpty)
      }
    }
  }

  @Test("a policy is that of its remote, and record for all that has none")
  func policies() {
    let remotes = Remotes(["a": [:], "b": [:]], checksums: ["a": .require, "https": .off])
    #expect(remotes.checksums("a") == .require)
    #expect(["b", "https", "file", "none"].allSatisfy { remotes.checksums($0) == .record })
  }
}
