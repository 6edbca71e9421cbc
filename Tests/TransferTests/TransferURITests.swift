import FoundationEssentials
import ScitqProtocol
import Testing

@testable import Transfer

@Suite("URIs")
struct TransferURITests {
  @Test("a URI is a scheme, a path and actions")
  func parts() throws {
    let uri = try TransferURI(parsing: "s3://bucket/data/ref.tgz|untar|mv:a/b")
    #expect(uri.scheme == "s3")
    #expect(uri.path == "bucket/data/ref.tgz")
    #expect(uri.actions == [.untar, .move("a/b")])
    #expect(!uri.isFolder && !uri.hasPattern && !uri.isLocal)
    #expect(uri.description == "s3://bucket/data/ref.tgz|untar|mv:a/b")
    #expect(uri.text == uri.description)
  }

  @Test("without a scheme it is a path of this machine")
  func local() throws {
    let uri = try TransferURI(parsing: "/data/x?[1]{a}.dat")
    #expect(uri.isLocal && uri.path == "/data/x?[1]{a}.dat" && !uri.hasPattern)
    #expect(try TransferURI(parsing: "relative/").isFolder)
    #expect(try TransferURI(parsing: "file:///a/b").path == "/a/b")
  }

  @Test(
    "what is wrong is said",
    arguments: [
      ("", "path is empty"), ("s3://", "is empty"), ("s3://b/x|unpack", "unknown action |unpack"),
      ("s3://b/x|", "unknown action (empty)"), ("s3://b/x|mv:", "needs the name"),
      ("s3://b/x|mv:..", ".. is not allowed"),
      ("s3://b/x|mv:a/../../b", ".. is not allowed"), ("s3://b/x|mv:/etc", "absolute"),
      ("s3://b/../x", ".. is not"),
      ("s3://b/*/", "cannot end in /"), ("/a/*/", "cannot end in /"),
      ("s3@odd://b/x", "knows no option @odd"),
      ("s!3://b/x", "not the name of a remote"), ("http:///x", "needs a host"), ("file://x", "absolute path"),
      ("s3://b/x\ny", "one line"), ("s3://b/x\0y", "NUL"), ("s3://b/x|mv:.", "not a sub-folder"),
      ("://x", "not the name"), ("s3://b/x|rename:", "needs the new name"),
      ("s3://b/x|rename:a/b", "not a plain name"), ("s3://b/x|rename:..", "not a plain name"),
      ("run+fastq://SRX000001", "not the accession"), ("run+fastq://SRR", "not the accession"),
      ("fastq://SRR1/", "not the accession"),
      ("run+fastq@ftp://SRR1", "@ena-ftp, @ena-aspera, @sra-aws, @only-read1"),
      ("asp@ena-ftp://h/x", "knows no option @ena-ftp"), ("asp://u@/x", "needs a host"),
      ("asp://h", "needs the path"), ("asp://h/", "needs the path"), ("asp://h/a/../b", "without .."),
      ("fasp://h/*.gz", "knows no pattern"), ("asp://-oX/x", "begins with a letter"),
      ("s3://b/x|rename:.", "not a plain name"),
      ("s3://b/x|odd", "untar, unzip, gunzip, mv:FOLDER and rename:NAME"),
    ])
  func wrong(text: String, says: String) throws {
    let failure = #expect(throws: TransferFailure.self) { try TransferURI(parsing: text) }
    #expect(failure?.reason == .input)
    #expect(failure?.message.contains(says) == true, "\(failure?.message ?? "")")
  }

  @Test("outputs are folders, without action and pattern")
  func outputs() throws {
    #expect(try TransferURI.parseOutput("s3://b/out").description == "s3://b/out/")
    #expect(try TransferURI.parseOutput("s3://b/out/").path == "b/out/")
    for text in ["s3://b/out/|untar", "s3://b/*", "https://host/out/"] {
      #expect(throws: TransferFailure.self) { try TransferURI.parseOutput(text) }
    }
  }

  @Test("an unknown remote is named with the known ones")
  func remotes() throws {
    let uri = try TransferURI(parsing: "azure://b/x")
    let failure = #expect(throws: TransferFailure.self) { try uri.checkRemote(known: ["s3", "gcp"]) }
    #expect(failure?.message == "azure://b/x: there is no remote \"azure\"; known are gcp, s3")
    try uri.checkRemote(known: ["azure"])
    try TransferURI(parsing: "https://h/x").checkRemote(known: [])
    try TransferURI(parsing: "/x").checkRemote(known: [])
  }

  @Test("a password is not shown, also in errors")
  func passwords() throws {
    let uri = try TransferURI(parsing: "ftp://me:hunter2@host/x")
    #expect(uri.description == "ftp://me:***@host/x")
    #expect(uri.text.contains("hunter2"))
    let failure = #expect(throws: TransferFailure.self) {
      try TransferURI(parsing: "ftp://me:hunter2@host/x|nope")
    }
    #expect(failure?.message.contains("hunter2") == false)
    let other = #expect(throws: TransferFailure.self) {
      try TransferURI(parsing: "fasp://me:hunter2@host/x|nope")
    }
    #expect(other?.message.contains("hunter2") == false)
    #expect(try TransferURI(parsing: "https://h/x?sig=abc").description == "https://h/x?…")
  }

  @Test("a public run has options, each once, and two names of its scheme")
  func runs() throws {
    let uri = try TransferURI(parsing: "fastq@sra-aws@only-read1@sra-aws://ERR12|gunzip")
    #expect(uri.scheme == "run+fastq" && uri.path == "ERR12" && uri.isRun && uri.isWeb)
    #expect(uri.options == [.sraAWS, .onlyRead1])
    #expect(uri.description == "run+fastq@sra-aws@only-read1://ERR12|gunzip")
    #expect(RunMethod.chosen(by: uri.options) == [.sraAWS])
    #expect(RunMethod.chosen(by: [.onlyRead1]) == [.enaFTP, .sraAWS])
    try uri.checkRemote(known: [])
    for text in ["run+fastq://ERR12", "asp://host/x"] {
      #expect(throws: TransferFailure.self) { try TransferURI.parseOutput(text) }
    }
    #expect(
      try TransferURI(parsing: "fasp://me:pw@host:33002/a?b").description == "asp://me:***@host:33002/a?b")
  }

  @Test("any text is either refused or read to the same again")
  func fuzz() throws {
    let seed =
      ProcessInfo.processInfo.environment["SCITQ_SEED"].flatMap(UInt64.init) ?? .random(in: 0 ... .max)
    var numbers = SeededNumbers(seed: seed)
    let pieces = [
      "s3", "http", "ftp", "file", "://", ":", "/", "//", "|", "untar", "unzip", "gunzip", "mv:", "rename:",
      "..", ".", "*", "@",
      "?", "#",
      "a", "é", "\u{0}", "\n", " ", "user:pw@", "%2e", "[x]",
    ]
    for _ in 0..<20_000 {
      let text = (0..<Int.random(in: 0...10, using: &numbers)).map { _ in
        pieces[Int.random(in: 0..<pieces.count, using: &numbers)]
      }.joined()
      do {
        let uri = try TransferURI(parsing: text)
        #expect(try TransferURI(parsing: uri.text) == uri, "seed \(seed): \(text)")
        #expect(!uri.path.isEmpty, "seed \(seed): \(text)")
        for case .move(let folder) in uri.actions {
          #expect(
            !folder.hasPrefix("/") && !folder.split(separator: "/").contains(".."), "seed \(seed): \(text)")
        }
      } catch {
        #expect(error.reason == .input && !error.message.isEmpty, "seed \(seed): \(text)")
      }
    }
  }
}

@Suite("patterns")
struct PatternTests {
  @Test(
    "a star is any characters, and nothing else is special",
    arguments: [
      ("*.dat", "a.dat", true), ("*.dat", ".dat", true), ("*.dat", "a.dat.gz", false),
      ("a*b*c", "aXbYc", true),
      ("a*b*c", "acb", false), ("a*a", "a", false), ("**", "", true), ("?", "x", false), ("?", "?", true),
      ("[ab]", "a", false), ("{a}*", "{a}x", true), ("a*bb*b", "abbb", true), ("a*bb*b", "abb", false),
      ("x", "x", true),
    ])
  func matches(pattern: String, name: String, expected: Bool) {
    #expect(Pattern(pattern).matches(name) == expected)
  }

  @Test("rclone's special characters are escaped in its rules")
  func rules() {
    #expect(Pattern.rule("a[1]?{x}*") == "/a\\[1\\]\\?\\{x\\}*")
    #expect(Pattern.rule("a*", isLiteral: true) == "/a\\*")
  }
}
