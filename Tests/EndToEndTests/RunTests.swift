import Foundation
import Testing

/// Public sequencing runs, from an archive that stands in for the real one on this machine.
@Suite("Public runs", .serialized)
struct PublicRunTests {
  @Test("a task gets the fastq files of a run by its accession; what is not as the archive says is refused")
  func fetched() async throws {
    let port = Int.random(in: 10_000..<32_000)
    let yaml = """
      public_archive:
        report: http://127.0.0.1:\(port)/report
        aws: http://127.0.0.1:\(port)/aws
      """
    try await World.server().worker(slots: 1).configured(yaml).run { world in
      let folder = world.folder.appending(path: "archive")
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      func offer(md5: String) throws {
        try Data("@read\nACGT\n+\nIIII\n".utf8).write(to: folder.appending(path: "SRR000001.fastq"))
        let report = """
          [{"run_accession": "SRR000001", "fastq_ftp": "http://127.0.0.1:\(port)/SRR000001.fastq",
            "fastq_md5": "\(md5)", "fastq_bytes": "18"}]
          """
        try Data(report.utf8).write(to: folder.appending(path: "report"))
      }
      let log = world.folder.appending(path: "archive.log")
      let archive = try Program(
        "archive", try Tools.onPath("python3"),
        ["-m", "http.server", "--bind", "127.0.0.1", "--directory", folder.path, "\(port)"],
        environment: world.baseEnvironment, out: log, err: log)
      do {
        try offer(md5: "2ee2a3f6cd0f7ca0d8a8ab6c0f1c8f0b")
        let wrong = try await world.create("--input", "run+fastq@ena-ftp://SRR000001", "--command", "true")
        let row = try await world.failed(wrong, within: .seconds(180))
        try #require(row.reason == "checksum", "\(row)")
        try #require(row.message?.contains("2ee2a3f6cd0f7ca0d8a8ab6c0f1c8f0b") == true, "\(row)")
        try #require(row.message?.contains(Self.sum) == true, "\(row)")
        try offer(md5: Self.sum)
        let right = try await world.create(
          "--input", "run+fastq://SRR000001|mv:reads", "--shell", "sh", "--command",
          "cat $INPUT/reads/*.fastq")
        try await world.succeeded(right)
        try #require(try await world.log(right).text == "@read\nACGT\n+\nIIII")
      } catch {
        await archive.stop()
        throw error
      }
      await archive.stop()
    }
  }

  private static let sum = "70fd22175f552392f66ec0ceb223d29b"
}
