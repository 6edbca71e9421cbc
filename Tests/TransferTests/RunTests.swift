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

@Suite("public runs")
struct RunTests {
  private static let quick = RetryPolicy(tries: 2, first: .milliseconds(50), longest: .milliseconds(50))

  /// One row of a file report: the files of `names` at `links`, with the sizes and MD5s that `folder` shows.
  private static func row(
    _ accession: String, _ names: [String], at links: String, in folder: FilePath, aspera: Bool = false
  ) async throws -> String {
    var sums: [String] = []
    var sizes: [String] = []
    for name in names {
      sums.append(
        String(try await tool("md5sum", [folder.appending(name).string], in: folder).prefix { $0 != " " }))
      sizes.append("\(fileStatus(folder.appending(name))?.st_size ?? 0)")
    }
    let fasp = aspera ? names.map { "fasp.example:/vol1/\($0)" } : []
    return """
      {"run_accession":"\(accession)","fastq_ftp":"\(names.map { links + $0 }.joined(separator: ";"))",
      "fastq_md5":"\(sums.joined(separator: ";"))","fastq_bytes":"\(sizes.joined(separator: ";"))",
      "fastq_aspera":"\(fasp.joined(separator: ";"))","sra_bytes":"3","sra_md5":""}
      """
  }

  /// The fastq files of `ERR10`, a pair, and of `SRR11`, which is single; in SRA there is `SRR12` too.
  private static func archive(in root: FilePath) async throws {
    for name in ["ERR10_1", "ERR10_2", "SRR11"] {
      try write("@\(name)\n", to: root.appending("vol1/\(name).fastq"))
      try await tool("gzip", ["vol1/\(name).fastq"], in: root)
    }
    for name in ["ERR10", "SRR12"] { try write("sra", to: root.appending("sra/\(name)/\(name)")) }
  }

  private static func settings(_ store: Store, key: String? = nil) -> PublicArchive {
    PublicArchive(
      report: "http://127.0.0.1:\(store.port)/report", aws: "http://127.0.0.1:\(store.port)/sra",
      asperaKey: key)
  }

  @Test("a run is looked up, fetched and checked, and its actions follow")
  func fetches() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try await Self.archive(in: root)
    try await Store.serving(root, as: "http") { store in
      try await Store.serving(root, as: "anonymous") { ftp in
        let web = "http://127.0.0.1:\(store.port)/vol1/"
        let pair = try await Self.row(
          "ERR10", ["ERR10_1.fastq.gz", "ERR10_2.fastq.gz"], at: web, in: root.appending("vol1"))
        let single = try await Self.row(
          "SRR11", ["SRR11.fastq.gz"], at: "127.0.0.1:\(ftp.port)/vol1/", in: root.appending("vol1"))
        try write("[\(pair),\(single)]", to: root.appending("report"))
        try await withTransfer(retry: Self.quick, archive: Self.settings(store)) { transfer, folder in
          func fetch(_ uri: String, _ into: String) async throws -> [MovedFile] {
            try await transfer.fetch(try TransferURI(parsing: uri), into: folder.appending(into))
          }
          let last = Mutex<TransferProgress?>(nil)
          let uri = try TransferURI(parsing: "run+fastq://ERR10|gunzip|mv:reads")
          let moved = try await transfer.fetch(uri, into: folder.appending("1")) { now in
            last.withLock { $0 = now }
          }
          #expect(names(folder.appending("1")) == ["reads/ERR10_1.fastq", "reads/ERR10_2.fastq"])
          #expect(try text(folder.appending("1/reads/ERR10_2.fastq")) == "@ERR10_2\n")
          #expect(moved.map(\.uri) == ["\(web)ERR10_1.fastq.gz", "\(web)ERR10_2.fastq.gz"])
          #expect(moved.allSatisfy { $0.bytes > 0 && $0.hash.hasPrefix("md5:") })
          let bytes = moved.reduce(0) { $0 + $1.bytes }
          #expect(
            last.withLock { $0 } == TransferProgress(bytes: bytes, totalBytes: bytes, files: 2, totalFiles: 2)
          )
          #expect(try await transfer.size(of: uri) == bytes)
          #expect(
            try await transfer.fingerprint(of: uri)
              == transfer.fingerprint(of: TransferURI(parsing: "fastq://ERR10")))

          _ = try await fetch("fastq@only-read1://ERR10", "2")
          #expect(names(folder.appending("2")) == ["ERR10_1.fastq.gz"])
          _ = try await fetch("run+fastq@ena-ftp@only-read1://SRR11|gunzip|rename:x.fastq", "3")
          #expect(names(folder.appending("3")) == ["x.fastq"])
          let entries = try await transfer.list(TransferURI(parsing: "run+fastq://ERR10"))
          #expect(entries.map(\.uri) == moved.map(\.uri) && entries.map(\.bytes) == moved.map(\.bytes))
          _ = try await transfer.copy("run+fastq://SRR11", to: folder.appending("4").string)
          #expect(names(folder.appending("4")) == ["SRR11.fastq.gz"])

          for (uri, reason, says) in [
            ("run+fastq://ERR99", FailureReason.inputMissing, "knows no run"),
            ("run+fastq://ERR10|rename:x", .input, "is for one file"),
          ] {
            let found = await failure { _ = try await fetch(uri, "in") }
            #expect(found?.reason == reason, "\(String(describing: found))")
            #expect(found?.message.contains(says) == true, "\(String(describing: found))")
          }
          for to in ["run+fastq://ERR10", "s3://b/x"] {
            let found = await failure { _ = try await transfer.copy("run+fastq://SRR11", to: to) }
            #expect(found?.reason == .input, "\(String(describing: found))")
          }
        }
      }
    }
  }

  @Test("a file that is not what the archive says is told with both MD5s, and nothing arrives")
  func damaged() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try await Self.archive(in: root)
    try await Store.serving(root, as: "http") { store in
      let row = try await Self.row(
        "SRR11", ["SRR11.fastq.gz"], at: "http://127.0.0.1:\(store.port)/vol1/", in: root.appending("vol1"))
      let size = try #require(fileStatus(root.appending("vol1/SRR11.fastq.gz"))).st_size
      try write([UInt8](repeating: 0, count: Int(size)), to: root.appending("vol1/SRR11.fastq.gz"))
      let sum = try await tool("md5sum", ["vol1/SRR11.fastq.gz"], in: root).prefix { $0 != " " }
      let told = try #require(row.firstRange(of: #"fastq_md5":""#).map { row[$0.upperBound...].prefix(32) })
      try write("[\(row)]", to: root.appending("report"))
      let environment = ["PATH": "/nowhere"]
      try await withTransfer(
        retry: Self.quick, archive: Self.settings(store), environment: environment
      ) { transfer, folder in
        let uri = try TransferURI(parsing: "run+fastq://SRR11")
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(found?.reason == .checksum, "\(String(describing: found))")
        for part in [String(sum), String(told), "ena-ftp: ", "sra-aws: ", "install sra-tools"] {
          #expect(found?.message.contains(part) == true, "\(part): \(String(describing: found))")
        }
        #expect(try namesIn(folder.appending("in")).isEmpty)
        try write("x", to: root.appending("vol1/SRR11.fastq.gz"))
        let short = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(
          short?.reason == .checksum && short?.message.contains("1 bytes arrived of \(size)") == true,
          "\(String(describing: short))")
      }
    }
  }

  @Test("where one way fails, the next is taken: SRA's object is unpacked by its tool")
  func fallsBack() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try await Self.archive(in: root)
    let environment = try standIn(
      for: "fasterq-dump",
      """
      name=$(basename "$1" .sra)
      [ "$(cat "$1")" = sra ] || exit 1
      for read in 1 2; do echo "@$name" >"$3/${name}_$read.fastq"; done
      """, in: root)
    try await Store.serving(root, as: "http") { store in
      let pair = try await Self.row(
        "ERR10", ["ERR10_1.fastq.gz", "ERR10_2.fastq.gz"], at: "http://127.0.0.1:\(store.port)/away/",
        in: root.appending("vol1"))
      let bare = #"{"run_accession":"SRR12","fastq_ftp":"","sra_bytes":"3"}"#
      try write("[\(pair),\(bare)]", to: root.appending("report"))
      try await withTransfer(
        retry: Self.quick, archive: Self.settings(store), environment: environment
      ) { transfer, folder in
        let uri = try TransferURI(parsing: "run+fastq://ERR10|gunzip")
        let moved = try await transfer.fetch(uri, into: folder.appending("1"))
        #expect(names(folder.appending("1")) == ["ERR10_1.fastq", "ERR10_2.fastq"])
        #expect(moved.map(\.uri) == ["http://127.0.0.1:\(store.port)/sra/ERR10/ERR10"])
        #expect(moved.map(\.bytes) == [3])
        let read1 = try TransferURI(parsing: "run+fastq@only-read1://SRR12")
        #expect(try await transfer.size(of: read1) == 3)
        _ = try await transfer.fetch(read1, into: folder.appending("2"))
        #expect(names(folder.appending("2")) == ["SRR12_1.fastq"])
        let only = try TransferURI(parsing: "run+fastq@ena-ftp://SRR12")
        let found = await failure { _ = try await transfer.fetch(only, into: folder.appending("3")) }
        #expect(found?.reason == .inputMissing && found?.message.contains("no fastq file") == true)
      }
    }
  }

  @Test("a run comes by Aspera, with the archive's key, and is checked")
  func aspera() async throws {
    let sandbox = try Sandbox()
    let root = sandbox.path
    try await Self.archive(in: root)
    let environment = try standIn(
      for: "ascp", ascpScript, in: root, ["RECORD": root.string, "REMOTE": root.string])
    try await Store.serving(root, as: "http") { store in
      let row = try await Self.row(
        "ERR10", ["ERR10_1.fastq.gz", "ERR10_2.fastq.gz"], at: "http://127.0.0.1:\(store.port)/away/",
        in: root.appending("vol1"), aspera: true)
      try write("[\(row)]", to: root.appending("report"))
      let uri = try TransferURI(parsing: "run+fastq@ena-aspera://ERR10|gunzip")
      try await withTransfer(
        retry: Self.quick, archive: Self.settings(store, key: "/the/key"), environment: environment
      ) { transfer, folder in
        let moved = try await transfer.fetch(uri, into: folder.appending("in"))
        #expect(names(folder.appending("in")) == ["ERR10_1.fastq", "ERR10_2.fastq"])
        #expect(moved.first?.uri == "asp://era-fasp@fasp.example/vol1/ERR10_1.fastq.gz")
        let arguments = try text(root.appending("arguments"))
        #expect(arguments.contains("\n-i\n/the/key\nera-fasp@fasp.example:/vol1/ERR10_2.fastq.gz\n"))
        try write("y", to: root.appending("vol1/ERR10_2.fastq.gz"))
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("2")) }
        #expect(found?.reason == .checksum, "\(String(describing: found))")
      }
      try await withTransfer(
        retry: Self.quick, archive: Self.settings(store), environment: environment
      ) { transfer, folder in
        let found = await failure { _ = try await transfer.fetch(uri, into: folder.appending("in")) }
        #expect(found?.reason == .input && found?.message.contains("SCITQ_ASPERA_KEY") == true)
      }
    }
  }

  @Test("a file report's links are by ftp unless they say otherwise, and one that makes no sense is refused")
  func reports() throws {
    let uri = try TransferURI(parsing: "run+fastq://SRR1")
    func report(_ text: String) throws(TransferFailure) -> RunReport {
      try RunReport(parsing: Data(text.utf8), of: uri)
    }
    let good = try report(
      #"[{"run_accession":"SRR1","fastq_ftp":"h/a.gz;https://h/b.gz","fastq_md5":"AA;bb","fastq_bytes":"1;2"}]"#
    )
    #expect(good.files.map(\.link.text) == ["ftp://h/a.gz", "https://h/b.gz"])
    #expect(good.files.map(\.hash) == ["md5:aa", "md5:bb"] && good.sraBytes == -1)
    for (text, reason) in [
      ("", FailureReason.inputMissing), ("[]", .inputMissing),
      (#"[{"run_accession":"SRR2"}]"#, .inputMissing),
      ("<html>", .network),
      (#"[{"run_accession":"SRR1","fastq_ftp":"h/a","fastq_md5":"","fastq_bytes":"1"}]"#, .network),
      (#"[{"run_accession":"SRR1","fastq_ftp":"h/a","fastq_md5":"a","fastq_bytes":"x"}]"#, .network),
    ] {
      let found = #expect(throws: TransferFailure.self) { try report(text) }
      #expect(found?.reason == reason, "\(text)")
    }
  }
}
