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
}

/// A way to fetch a public run, by the option that asks for it.
enum RunMethod: String, Sendable {
  case enaFTP = "ena-ftp"
  case enaAspera = "ena-aspera"
  case sraAWS = "sra-aws"

  /// The ways among the options, the preferred one first. Where none is named: those that need no key.
  static func chosen(by options: [RunOption]) -> [RunMethod] {
    let chosen = options.compactMap { RunMethod(rawValue: $0.rawValue) }
    return chosen.isEmpty ? [.enaFTP, .sraAWS] : chosen
  }
}
