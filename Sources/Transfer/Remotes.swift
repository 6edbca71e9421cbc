/// Settings of the rclone remotes by name, as `scitq.yaml` has them. They hold secrets: nothing here prints one.
package struct Remotes: Sendable, Hashable {
  private let settings: [String: [String: String]]
  private let checksums: [String: ChecksumPolicy]

  /// `checksums` is by the names of remotes; `record` is for those that it leaves out.
  package init(_ settings: [String: [String: String]], checksums: [String: ChecksumPolicy] = [:]) {
    self.settings = settings
    self.checksums = checksums
  }

  /// The policy of a remote or scheme. What needs no remote has `record`.
  package func checksums(_ name: String) -> ChecksumPolicy {
    settings[name] == nil ? .record : checksums[name] ?? .record
  }

  /// Sorted.
  package var names: [String] { settings.keys.sorted() }

  /// rclone's configuration file. A line holds one setting, so line ends within a value become `\n` in keys and
  /// certificates, which rclone reads that way, and blanks elsewhere (JSON).
  var configuration: String {
    var text = ""
    for (name, values) in settings.sorted(by: { $0.key < $1.key }) {
      text += "[\(Self.line(name, lineEnd: " "))]\n"
      for (key, value) in values.sorted(by: { $0.key < $1.key }) {
        text +=
          "\(Self.line(key, lineEnd: " ")) = \(Self.line(value, lineEnd: key.hasSuffix("pem") ? "\\n" : " "))\n"
      }
      text += "\n"
    }
    return text
  }

  /// The text with every secret of the settings blotted out.
  func redact(_ text: String) -> String {
    var text = text
    for values in settings.values {
      for (key, value) in values where value.utf8.count >= 4 && Self.isSecret(key) {
        text = text.replacing(value, with: "***")
      }
    }
    return text
  }

  private static func isSecret(_ key: String) -> Bool {
    let key = key.lowercased()
    return ["key", "pass", "secret", "token", "credential", "sas", "auth"].contains { key.contains($0) }
  }

  private static func line(_ text: String, lineEnd: String) -> String {
    text.replacing("\r\n", with: "\n").split(separator: "\n", omittingEmptySubsequences: false)
      .joined(separator: lineEnd).replacing("\r", with: "")
  }
}
