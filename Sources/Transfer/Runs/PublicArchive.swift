/// Where public sequencing runs are looked up and fetched from.
package struct PublicArchive: Sendable, Hashable {
  /// Answers a query about an accession with a file report in JSON, as ENA's portal does.
  package var report: String
  /// The folder of SRA's objects, each at `ACCESSION/ACCESSION`.
  package var aws: String
  /// The file with the private key for Aspera, unless `SCITQ_ASPERA_KEY` names one.
  package var asperaKey: String?

  package init(
    report: String = "https://www.ebi.ac.uk/ena/portal/api/filereport",
    aws: String = "https://sra-pub-run-odp.s3.amazonaws.com/sra", asperaKey: String? = nil
  ) {
    self.report = report
    self.aws = aws
    self.asperaKey = asperaKey
  }
}

/// How a public run is fetched: `run+fastq@OPTION://ACCESSION`.
package enum RunOption: String, Sendable, Hashable, CaseIterable {
  /// The fastq files of ENA, by ftp.
  case enaFTP = "ena-ftp"
  /// The fastq files of ENA, by Aspera.
  case enaAspera = "ena-aspera"
  /// The object of SRA, which `fasterq-dump` makes fastq files of.
  case sraAWS = "sra-aws"
  /// Only the first reads of a paired run.
  case onlyRead1 = "only-read1"

  /// The ways to fetch a run among the options, the preferred one first; those that need nothing but this machine's
  /// rclone and SRA's tools where none is named.
  static func methods(_ options: [RunOption]) -> [RunOption] {
    let chosen = options.filter { $0 != .onlyRead1 }
    return chosen.isEmpty ? [.enaFTP, .sraAWS] : chosen
  }
}
