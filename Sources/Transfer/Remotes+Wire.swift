package import ScitqProtocol

extension Remotes {
  /// As the server hands them out. A policy that this version does not know is the default.
  package init(_ remotes: WireRemotes) {
    var settings: [String: [String: String]] = [:]
    var checksums: [String: ChecksumPolicy] = [:]
    for remote in remotes.remotes {
      settings[remote.name] = remote.settings
      checksums[remote.name] = ChecksumPolicy(rawValue: remote.checksums)
    }
    self.init(settings, checksums: checksums)
  }
}

extension PublicArchive {
  /// As the server hands it out. Where it says nothing, the default.
  package init(_ remotes: WireRemotes) {
    self.init()
    if !remotes.archiveReport.isEmpty { report = remotes.archiveReport }
    if !remotes.archiveAws.isEmpty { aws = remotes.archiveAws }
  }
}
