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

@Suite("actions")
struct ActionTests {
  @Test(
    "untar unpacks what tar and zip make, and consumes the archive",
    arguments: ["tar", "tgz", "tar.bz2", "tar.xz", "tar.zst", "zip"])
  func untar(kind: String) async throws {
    try await withTransfer { transfer, folder in
      let source = folder.appending("src")
      let long = String(repeating: "long-name-", count: 20)
      try write("#!/bin/sh\n", to: source.appending("bin/run"))
      chmodForTest(source.appending("bin/run"), 0o755)
      try write([UInt8](repeating: 7, count: 700_001), to: source.appending("data"))
      try write("é", to: source.appending("\(long)/\(long)"))
      try write("", to: source.appending("empty"))
      try await tool("ln", ["-s", "../data", "bin/link"], in: source)
      let archive = folder.appending("a.\(kind)").string
      if kind == "zip" {
        try await tool("zip", ["-q", "-r", "-y", archive, "."], in: source)
      } else {
        try await tool("tar", ["-c", "-a", "-f", archive, "."], in: source)
      }
      _ = try await transfer.fetch(
        try TransferURI(parsing: "\(archive)|untar|mv:ref"), into: folder.appending("in"))
      let got = folder.appending("in/ref")
      #expect(names(got) == names(source))
      #expect(fileStatus(got.appending("bin/run")).map { $0.st_mode & 0o777 } == 0o755)
      #expect(fileStatus(got.appending("bin/link"), following: true)?.st_size == 700_001)
      #expect(try text(got.appending("\(long)/\(long)")) == "é")
      #expect(try namesIn(folder.appending("in")) == ["ref"])
    }
  }

  @Test("old, GNU and pax archives are read alike", arguments: ["v7", "ustar", "gnu", "pax"])
  func formats(format: String) async throws {
    try await withTransfer { transfer, folder in
      try write("x", to: folder.appending("src/d/x"))
      try await tool("ln", ["x", "hard"], in: folder.appending("src/d"))
      let archive = folder.appending("a.tar").string
      try await tool("tar", ["-c", "--format", format, "-f", archive, "d"], in: folder.appending("src"))
      _ = try await transfer.fetch(try TransferURI(parsing: "\(archive)|untar"), into: folder.appending("in"))
      #expect(names(folder.appending("in")) == ["d/hard", "d/x"])
      #expect(try text(folder.appending("in/d/hard")) == "x")
    }
  }

  /// Writes archives that no tool would, by python's tarfile, which takes any entry.
  private static let maker = """
    import tarfile, io, sys, zipfile
    kind, out = sys.argv[1], sys.argv[2]
    t = tarfile.open(out, 'w')
    def file(name, data=b'evil'):
        i = tarfile.TarInfo(name); i.size = len(data); t.addfile(i, io.BytesIO(data))
    def other(name, type, link=''):
        i = tarfile.TarInfo(name); i.type = type; i.linkname = link; t.addfile(i)
    if kind == 'absolute': file('/tmp/evil')
    if kind == 'up': file('a/../../evil')
    if kind == 'link-out': other('l', tarfile.SYMTYPE, '../../evil')
    if kind == 'link-absolute': other('l', tarfile.SYMTYPE, '/etc/passwd')
    if kind == 'through-link': other('l', tarfile.SYMTYPE, 'd'); file('d/x'); file('l/y')
    if kind == 'hard-out': other('h', tarfile.LNKTYPE, '/etc/passwd')
    if kind == 'hard-up': other('h', tarfile.LNKTYPE, '../evil')
    if kind == 'hard-unknown': other('h', tarfile.LNKTYPE, 'nothing')
    if kind == 'device': other('n', tarfile.CHRTYPE)
    if kind == 'pipe': other('p', tarfile.FIFOTYPE)
    if kind == 'chain':
        file('x/f'); other('x/y', tarfile.SYMTYPE, '..'); other('z', tarfile.SYMTYPE, 'x/y/../..')
    if kind == 'loop':
        other('a', tarfile.SYMTYPE, 'b'); other('b', tarfile.SYMTYPE, 'a')
    t.close()
    if kind == 'zip-up':
        z = zipfile.ZipFile(out, 'w'); z.writestr('../evil', 'x'); z.close()
    if kind == 'zip-link':
        z = zipfile.ZipFile(out, 'w'); i = zipfile.ZipInfo('l'); i.external_attr = 0o120777 << 16
        z.writestr(i, '/etc/passwd'); z.close()
    """

  @Test(
    "an archive that would reach out of its folder is refused, and nothing arrives",
    arguments: [
      "absolute", "up", "link-out", "link-absolute", "through-link", "hard-out", "hard-up", "hard-unknown",
      "device", "pipe",
      "chain", "loop", "zip-up", "zip-link",
    ])
  func unsafe(kind: String) async throws {
    try await withTransfer { transfer, folder in
      let archive = folder.appending("a.tar").string
      try await tool("python3", ["-c", Self.maker, kind, archive], in: folder)
      let uri = try TransferURI(parsing: "\(archive)|untar")
      let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
      #expect(found?.reason == .input, "\(String(describing: found))")
      #expect(found?.message.contains("refused") == true, "\(String(describing: found))")
      #expect(try namesIn(folder.appending("in")).isEmpty)
      #expect(try namesIn(folder) == ["a.tar", "in"])
    }
  }

  @Test("bombs are refused")
  func bombs() async throws {
    let limits = UnpackLimits(entries: 10, ratio: 2, bytes: 100_000)
    try await withTransfer(limits: limits) { transfer, folder in
      try write([UInt8](repeating: 0, count: 5_000_000), to: folder.appending("src/zeros"))
      for number in 0..<20 { try write("x", to: folder.appending("many/f\(number)")) }
      try await tool("tar", ["-czf", "../bytes.tgz", "zeros"], in: folder.appending("src"))
      try await tool("tar", ["-cJf", "../bytes.txz", "zeros"], in: folder.appending("src"))
      try await tool("tar", ["-cf", "../many.tar", "."], in: folder.appending("many"))
      try await tool("gzip", ["-k", "src/zeros"], in: folder)
      for name in ["bytes.tgz|untar", "bytes.txz|untar", "many.tar|untar", "src/zeros.gz|gunzip"] {
        let uri = try TransferURI(parsing: folder.appending(name).string)
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(
          found?.reason == .input && found?.message.contains("refused") == true,
          "\(String(describing: found))")
      }
      #expect(try namesIn(folder.appending("in")).isEmpty)
    }
  }

  @Test("damaged archives and files that are none are said to be so")
  func damaged() async throws {
    try await withTransfer { transfer, folder in
      try write((0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }, to: folder.appending("data"))
      for (name, flag) in [("a.tar", "-c"), ("a.tgz", "-cz"), ("a.txz", "-cJ"), ("a.tbz", "-cj")] {
        try await tool("tar", ["\(flag)f", name, "data"], in: folder)
        let size = try #require(fileStatus(folder.appending(name))).st_size
        try await tool("truncate", ["-s", "\(size / 2)", name], in: folder)
      }
      try await tool("zip", ["-q", "a.zip", "data"], in: folder)
      try await tool("truncate", ["-s", "1000", "a.zip"], in: folder)
      try write("plain text", to: folder.appending("plain.txt"))
      try write("plain text", to: folder.appending("inner.txt"))
      try await tool("gzip", ["inner.txt"], in: folder)
      for name in ["a.tar", "a.tgz", "a.txz", "a.tbz", "a.zip", "plain.txt", "inner.txt.gz"] {
        let uri = try TransferURI(parsing: folder.appending("\(name)|untar").string)
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(
          found?.reason == .input && found?.message.contains(name) == true,
          "\(name): \(String(describing: found))")
      }
      let uri = try TransferURI(parsing: folder.appending("plain.txt|gunzip").string)
      #expect(
        await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }?.reason == .input)
      #expect(try namesIn(folder.appending("in")).isEmpty)
    }
  }

  @Test("gunzip reads files of several members, and actions follow one another on each file")
  func gunzip() async throws {
    try await withTransfer { transfer, folder in
      try write("one\n", to: folder.appending("s/a.txt"))
      try write("two\n", to: folder.appending("s/b.txt"))
      try await tool(
        "sh",
        [
          "-c",
          "gzip -c a.txt > ab.txt.gz; gzip -c b.txt >> ab.txt.gz; gzip -k a.txt; tar -cf t.tar a.txt.gz b.txt",
        ], in: folder.appending("s"))
      let base = folder.appending("s").string
      _ = try await transfer.fetch(
        try TransferURI(parsing: "\(base)/*.gz|gunzip"), into: folder.appending("1"))
      #expect(names(folder.appending("1")) == ["a.txt", "ab.txt"])
      #expect(try text(folder.appending("1/ab.txt")) == "one\ntwo\n")
      // Out of an archive, what is not compressed stays as it is.
      _ = try await transfer.fetch(
        try TransferURI(parsing: "\(base)/t.tar|untar|gunzip"), into: folder.appending("2"))
      #expect(names(folder.appending("2")) == ["a.txt", "b.txt"])
      // Two that come to one name are an error, not a loss.
      let uri = try TransferURI(parsing: "\(base)/|gunzip")
      let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("3")) }
      #expect(found?.reason == .input && found?.message.contains("a.txt") == true)
    }
  }

  @Test("unzip unpacks zip archives and says what another file is")
  func unzip() async throws {
    try await withTransfer { transfer, folder in
      let source = folder.appending("s")
      try write("#!/bin/sh\n", to: source.appending("bin/run"))
      chmodForTest(source.appending("bin/run"), 0o755)
      try write("one", to: source.appending("a.txt"))
      try await tool("zip", ["-q", "-r", "../a.zip", "."], in: source)
      try await tool("tar", ["-cf", "../a.tar", "."], in: source)
      try await tool("tar", ["-czf", "../a.tgz", "."], in: source)
      try write("plain", to: folder.appending("a.txt"))
      _ = try await transfer.fetch(
        try TransferURI(parsing: folder.appending("a.zip|unzip|mv:ref").string), into: folder.appending("in"))
      #expect(names(folder.appending("in")) == ["ref/a.txt", "ref/bin/run"])
      #expect(access(folder.appending("in/ref/bin/run").string, X_OK) == 0)
      for (name, kind) in [
        ("a.tar", "a tar archive"), ("a.tgz", "compressed by gzip"), ("a.txt", "a file of another kind"),
      ] {
        let uri = try TransferURI(parsing: folder.appending("\(name)|unzip").string)
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("other")) }
        #expect(found?.reason == .input, "\(String(describing: found))")
        #expect(found?.message.contains("\(name) is \(kind)") == true, "\(String(describing: found))")
      }
      #expect(try namesIn(folder.appending("other")).isEmpty)
    }
  }

  @Test("rename gives the only file its name, in its turn among the actions")
  func rename() async throws {
    try await withTransfer { transfer, folder in
      let base = folder.appending("s").string
      try write("one\n", to: folder.appending("s/x"))
      try write("two\n", to: folder.appending("s/y"))
      try await tool("gzip", ["-k", "x"], in: folder.appending("s"))
      try await tool("zip", ["-q", "one.zip", "x"], in: folder.appending("s"))
      try await tool("zip", ["-q", "two.zip", "x", "y"], in: folder.appending("s"))
      for (number, (uri, arrives)) in [
        ("x.gz|gunzip|rename:y.txt", "y.txt"), ("x|mv:sub|rename:z", "sub/z"), ("x|rename:x", "x"),
        ("x*.gz|rename:z.gz|gunzip", "z"), ("one.zip|unzip|rename:z|mv:d", "d/z"),
      ].enumerated() {
        let target = folder.appending("\(number)")
        _ = try await transfer.fetch(try TransferURI(parsing: "\(base)/\(uri)"), into: target)
        #expect(names(target) == [arrives])
        #expect(try text(target.appending(arrives)) == "one\n")
      }
      for uri in ["|rename:z", "/*|rename:z", "/two.zip|unzip|rename:z"] {
        let wrong = try TransferURI(parsing: base + uri)
        let found = await failure { _ = try await transfer.fetch(wrong, into: folder.appending("in")) }
        #expect(found?.reason == .input, "\(uri): \(String(describing: found))")
        #expect(found?.message.contains("is for one file") == true, "\(String(describing: found))")
      }
      #expect(try namesIn(folder.appending("in")).isEmpty)
      // What is done on arrival does not change what is at the source.
      let plain = try TransferURI(parsing: "\(base)/x")
      let renamed = try TransferURI(parsing: "\(base)/x|rename:z")
      #expect(try await transfer.size(of: renamed) == 4)
      #expect(try await transfer.fingerprint(of: renamed) == transfer.fingerprint(of: plain))
    }
  }

  @Test("bytes at random never crash the readers of archives")
  func fuzz() async throws {
    let seed =
      ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init) ?? .random(in: 0 ... .max)
    let sandbox = try Sandbox()
    let folder = sandbox.path
    try write("hello", to: folder.appending("src/a"))
    try write("world", to: folder.appending("src/d/b"))
    try await tool("tar", ["-cf", "../x.tar", "."], in: folder.appending("src"))
    try await tool("zip", ["-q", "-r", "../x.zip", "."], in: folder.appending("src"))
    var numbers = SeededNumbers(seed: seed)
    for name in ["x.tar", "x.zip"] {
      let original = Array(try Data(contentsOf: URL(filePath: folder.appending(name).string)))
      for round in 0..<400 {
        var bytes = original
        for _ in 0..<Int.random(in: 1...8, using: &numbers) {
          bytes[Int.random(in: 0..<bytes.count, using: &numbers)] = UInt8.random(in: 0...255, using: &numbers)
        }
        let target = folder.appending("out\(round)")
        try createFolder(target)
        let fuzzed = folder.appending("fuzzed")
        try write(bytes, to: fuzzed)
        do throws(TransferFailure) {
          var extraction = Extraction(root: target, name: "fuzz", entries: 100, bytes: 1 << 20)
          if name == "x.zip" {
            try ZipArchive.extract(fuzzed, to: &extraction, Interruption())
          } else {
            var reader = TarReader(extraction)
            // In pieces of odd sizes, as a stream would give them.
            try readFile(fuzzed, Interruption()) { all throws(TransferFailure) in
              var rest = all[...]
              while !rest.isEmpty {
                try reader.consume(UnsafeRawBufferPointer(rebasing: rest.prefix(301)))
                rest = rest.dropFirst(301)
              }
            }
            extraction = try reader.finish()
          }
          try extraction.finish()
        } catch {
          #expect(error.reason != .denied, "seed \(seed): \(error)")
        }
        removeTree(target)
      }
      #expect(
        try namesIn(folder).filter { !["src", "x.tar", "x.zip", "fuzzed"].contains($0) }.isEmpty,
        "seed \(seed)")
    }
  }
}
