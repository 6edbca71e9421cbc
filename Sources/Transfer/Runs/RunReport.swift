import FoundationEssentials
import ScitqProtocol
import SystemPackage

/// What the archive's file report tells of one run.
struct RunReport: Sendable {
  struct File: Sendable {
    var name: String
    /// Without a sign of how: by ftp or, where the report has it so, http.
    var link: TransferURI
    /// `host:/path`, or empty.
    var aspera: String
    var bytes: Int64
    /// As `MovedFile.hash` has it.
    var hash: String
  }

  /// None where the archive has not made any of this run.
  var files: [File]
  /// Of the object that the run was submitted as or converted to; -1 where the report does not tell.
  var sraBytes: Int64
  var sraHash: String

  /// What is asked of the archive.
  static let fields = "run_accession,fastq_ftp,fastq_aspera,fastq_md5,fastq_bytes,sra_md5,sra_bytes"

  private struct Row: Decodable {
    var run_accession: String?
    var fastq_ftp: String?
    var fastq_aspera: String?
    var fastq_md5: String?
    var fastq_bytes: String?
    var sra_md5: String?
    var sra_bytes: String?
  }

  /// Throws `.inputMissing` where the archive knows no such run, and `.network` where its answer makes no sense.
  init(parsing bytes: Data, of uri: TransferURI) throws(TransferFailure) {
    let rows: [Row]
    do {
      rows = bytes.isEmpty ? [] : try JSONDecoder().decode([Row].self, from: bytes)
    } catch {
      throw TransferFailure(
        .network, "\(uri): the archive's answer is not the file report in JSON that it should be",
        isTransient: true)
    }
    guard let row = rows.first(where: { $0.run_accession == uri.path }) else {
      throw TransferFailure(.inputMissing, "\(uri): the archive knows no run of this accession")
    }
    let links = Self.list(row.fastq_ftp)
    let sums = Self.list(row.fastq_md5)
    let sizes = Self.list(row.fastq_bytes)
    let aspera = Self.list(row.fastq_aspera)
    guard sums.count == links.count, sizes.count == links.count, aspera.isEmpty || aspera.count == links.count
    else {
      throw TransferFailure(
        .network,
        "\(uri): the archive's file report has \(links.count) files, \(sizes.count) sizes and \(sums.count) MD5s, and not as many of each"
      )
    }
    files = []
    for index in links.indices {
      let text = links[index].contains("://") ? links[index] : "ftp://\(links[index])"
      let link = try TransferURI(parsing: text)
      guard let size = Int64(sizes[index]), TransferURI.webSchemes.contains(link.scheme), !link.isFolder,
        !link.hasPattern, link.actions.isEmpty
      else {
        throw TransferFailure(
          .network, "\(uri): the archive's file report has \(link) of \(sizes[index]) bytes, which is no file"
        )
      }
      files.append(
        File(
          name: link.lastName, link: link, aspera: aspera.isEmpty ? "" : aspera[index], bytes: size,
          hash: "md5:\(sums[index].lowercased())"))
    }
    sraBytes = row.sra_bytes.flatMap(Int64.init) ?? -1
    sraHash = row.sra_md5.flatMap { $0.isEmpty ? nil : "md5:\($0.lowercased())" } ?? ""
    if uri.options.contains(.onlyRead1), files.count > 1 {
      files = files.filter { $0.name.hasSuffix("_1.fastq.gz") }
      guard !files.isEmpty else {
        throw TransferFailure(
          .inputMissing, "\(uri): the run has several files and none is of first reads (_1.fastq.gz)")
      }
    }
  }

  private static func list(_ field: String?) -> [String] {
    (field ?? "").split(separator: ";").map(String.init)
  }
}

extension Selector {
  /// Asks the archive about the run.
  func report(of uri: TransferURI) async throws(TransferFailure) -> RunReport {
    let plain = uri.withoutActions
    let query = "accession=\(uri.path)&result=read_run&fields=\(RunReport.fields)&format=json"
    // rclone's own folder is private, and goes when this process does.
    let number = UInt64.random(in: 0 ... .max)
    let file = try await rclone.daemon.run().folder.appending("report-\(number)")
    do throws(TransferFailure) {
      try await rclone.copyURL(
        "\(archive.report)?\(query)", to: .local(file), group: "scitq-\(number)",
        describedAs: "\(plain), at \(archive.report)")
    } catch {
      try? FileManager.default.removeItem(atPath: file.string)
      throw error
    }
    let bytes = (try? Data(contentsOf: URL(filePath: file.string))) ?? Data()
    try? FileManager.default.removeItem(atPath: file.string)
    return try RunReport(parsing: bytes, of: plain)
  }

  /// The fastq files of the run, or its object in SRA where the archive has made none.
  func select(run uri: TransferURI) async throws(TransferFailure) -> Selection {
    let report = try await report(of: uri)
    if report.files.isEmpty, RunMethod.chosen(by: uri.options).contains(.sraAWS) {
      return try object(of: uri, bytes: report.sraBytes, hash: report.sraHash)
    }
    return try files(of: uri, report)
  }

  /// The fastq files of ENA.
  func files(of uri: TransferURI, _ report: RunReport) throws(TransferFailure) -> Selection {
    guard !report.files.isEmpty else {
      throw TransferFailure(.inputMissing, "\(uri.withoutActions): the archive has no fastq file of this run")
    }
    return Selection(
      uri: uri, kind: .pattern,
      base: .links(Dictionary(report.files.map { ($0.name, $0.link) }, uniquingKeysWith: { $1 })),
      items: report.files.map {
        .init(path: $0.name, arrival: $0.name, bytes: $0.bytes, modified: "", hash: $0.hash)
      })
  }

  /// The object of SRA.
  func object(of uri: TransferURI, bytes: Int64, hash: String) throws(TransferFailure) -> Selection {
    let name = "\(uri.path).sra"
    let link = try TransferURI(parsing: "\(archive.aws)/\(uri.path)/\(uri.path)")
    return Selection(
      uri: uri, kind: .pattern, base: .links([name: link]),
      items: [.init(path: name, arrival: name, bytes: bytes, modified: "", hash: hash)])
  }
}
