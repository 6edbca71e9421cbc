import ScitqProtocol

/// Where files are, and what is done to them when they arrive: `scheme[@option]*://path[|action]*`.
///
/// No scheme means a path of this machine. `*` is the only special character of a path; it stands for any
/// characters but `/`. A path that ends in `/` is a folder with all that is below it.
package struct TransferURI: Sendable, Hashable, CustomStringConvertible {
  /// The name of a remote, `http`, `https`, `ftp`, `ftps`, or `file` for this machine.
  package let scheme: String
  /// What follows `://`, credentials and query included. For `file`, a path of this machine.
  package let path: String
  /// Left to right, as they are carried out.
  package let actions: [URIAction]
  /// Written without a scheme; its text stays so.
  private let isBare: Bool

  private init(scheme: String, path: String, actions: [URIAction], isBare: Bool) {
    self.scheme = scheme
    self.path = path
    self.actions = actions
    self.isBare = isBare
  }

  /// The path ends in `/`: a folder and all that is below it.
  package var isFolder: Bool { path.hasSuffix("/") }
  /// The path contains `*`.
  package var hasPattern: Bool { path.contains("*") }
  /// On this machine.
  package var isLocal: Bool { scheme == "file" }
  /// Served by a public protocol, without any remote of the configuration.
  package var isWeb: Bool { Self.webSchemes.contains(scheme) }

  static let webSchemes: Set<String> = ["http", "https", "ftp", "ftps"]

  /// The whole URI as it was written, secrets included: for keys and storage, not for people.
  package var text: String {
    (isBare ? path : "\(scheme)://\(path)") + actions.map { "|\($0)" }.joined()
  }

  /// For people and logs: a password reads `***`.
  package var description: String {
    (isBare ? path : "\(scheme)://\(Self.withoutPassword(path, of: scheme))")
      + actions.map { "|\($0)" }.joined()
  }

  /// Reads a URI. Throws `.input` with what is wrong and where.
  package init(parsing text: String) throws(TransferFailure) {
    let shown = Self.shown(text)
    guard !text.utf8.contains(0) else {
      throw TransferFailure(.input, "\(shown): a URI holds no NUL character")
    }
    guard !text.utf8.contains(where: { $0 == 10 || $0 == 13 }) else {
      throw TransferFailure(.input, "\(shown): a URI is one line")
    }
    let pieces = text.split(separator: "|", omittingEmptySubsequences: false)
    var actions: [URIAction] = []
    for piece in pieces.dropFirst() { actions.append(try URIAction(parsing: piece, in: shown)) }

    let location = pieces[0]
    guard let mark = Self.schemeMark(of: location) else {
      guard !location.isEmpty else {
        throw TransferFailure(
          .input, "\(text.isEmpty ? "the URI" : shown): the path is empty; write for example s3://bucket/file"
        )
      }
      self.init(scheme: "file", path: String(location), actions: actions, isBare: true)
      try refusePatternOfFolders()
      return
    }
    let head = location[..<mark.lowerBound].split(separator: "@", omittingEmptySubsequences: false)
    let scheme = String(head[0])
    let path = String(location[mark.upperBound...])
    guard Self.isSchemeName(scheme) else {
      throw TransferFailure(
        .input,
        "\(shown): \"\(scheme)\" is not the name of a remote; letters, digits and - _ . + make one, such as s3://"
      )
    }
    guard head.count == 1 else {
      throw TransferFailure(.input, "\(shown): \(scheme):// knows no option @\(head[1])")
    }
    guard !path.isEmpty else {
      throw TransferFailure(.input, "\(shown): the path after \(scheme):// is empty")
    }
    if scheme == "file" {
      guard path.hasPrefix("/") else {
        throw TransferFailure(.input, "\(shown): file:// needs an absolute path, such as file:///data/x")
      }
    } else if Self.webSchemes.contains(scheme) {
      let host = path.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
      let address = host.lastIndex(of: "@").map { host[host.index(after: $0)...] } ?? host
      guard !address.isEmpty, !address.hasPrefix(":") else {
        throw TransferFailure(.input, "\(shown): \(scheme):// needs a host")
      }
      guard !address.contains("*") else {
        throw TransferFailure(.input, "\(shown): the host cannot hold *")
      }
    } else {
      let parts = path.split(separator: "/", omittingEmptySubsequences: true)
      guard !parts.contains("..") else {
        throw TransferFailure(.input, "\(shown): .. is not allowed in the path of a remote")
      }
    }
    self.init(scheme: scheme, path: path, actions: actions, isBare: false)
    try refusePatternOfFolders()
  }

  private func refusePatternOfFolders() throws(TransferFailure) {
    guard hasPattern, isFolder else { return }
    throw TransferFailure(
      .input,
      "\(self): a pattern chooses files, so it cannot end in /; end it in /* for all files of these folders")
  }

  /// Reads where outputs go: always a folder, so a `/` is added. Throws `.input` on an action or a pattern.
  package static func parseOutput(_ text: String) throws(TransferFailure) -> TransferURI {
    let uri = try TransferURI(parsing: text)
    guard uri.actions.isEmpty else {
      throw TransferFailure(
        .input, "\(uri): an output takes no action; |\(uri.actions[0]) is for inputs and resources")
    }
    guard !uri.hasPattern else {
      throw TransferFailure(.input, "\(uri): an output is one folder, so it cannot hold *")
    }
    guard !uri.isWeb || uri.scheme.hasPrefix("ftp") else {
      throw TransferFailure(
        .input, "\(uri): nothing can be stored over \(uri.scheme); name a remote or a folder")
    }
    return uri.asFolder
  }

  /// Throws `.input` where the scheme is neither built in nor one of the known remotes, whose names it tells.
  package func checkRemote(known: [String]) throws(TransferFailure) {
    guard !isLocal, !isWeb, !known.contains(scheme) else { return }
    let names = known.isEmpty ? "none is configured" : "known are " + known.sorted().joined(separator: ", ")
    throw TransferFailure(.input, "\(self): there is no remote \"\(scheme)\"; \(names)")
  }

  // MARK: parts

  var asFolder: TransferURI { isFolder ? self : with(path: path + "/") }

  func with(path: String) -> TransferURI {
    TransferURI(scheme: scheme, path: path, actions: actions, isBare: isBare)
  }

  var withoutActions: TransferURI {
    TransferURI(scheme: scheme, path: path, actions: [], isBare: isBare)
  }

  /// The sub-folder that the last `mv:` names, or empty.
  var subfolder: String {
    for case .move(let folder) in actions.reversed() { return folder }
    return ""
  }

  /// The last name of the path, a query set aside.
  var lastName: String {
    let end = isWeb ? path.firstIndex(where: { $0 == "?" || $0 == "#" }) ?? path.endIndex : path.endIndex
    return path[..<end].split(separator: "/", omittingEmptySubsequences: true).last.map(String.init) ?? ""
  }

  private static func schemeMark(of text: Substring) -> Range<Substring.Index>? {
    guard let colon = text.firstIndex(of: ":"), text[colon...].hasPrefix("://"),
      !text[..<colon].contains("/")
    else { return nil }
    return colon..<text.index(colon, offsetBy: 3)
  }

  private static func isSchemeName(_ name: String) -> Bool {
    guard let first = name.utf8.first, isLetterOrDigit(first) else { return false }
    return name.utf8.allSatisfy { isLetterOrDigit($0) || "-_.+".utf8.contains($0) }
  }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
  }

  private static func withoutPassword(_ path: String, of scheme: String) -> String {
    guard webSchemes.contains(scheme) else { return path }
    let host = path.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    var shown = path
    if let at = host.lastIndex(of: "@"), let colon = host[..<at].firstIndex(of: ":") {
      shown = "\(host[..<colon]):***\(path[at...])"
    }
    // A query is where signed links carry their signature.
    if let query = shown.firstIndex(of: "?") { shown = shown[...query] + "…" }
    return shown
  }

  /// Text that may not be a URI at all, for an error about it.
  private static func shown(_ text: String) -> String {
    let clean = String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 ? "\u{FFFD}" : $0 }))
    guard let mark = schemeMark(of: clean[...]) else { return clean }
    let scheme = String(clean[..<mark.lowerBound].prefix { $0 != "@" })
    return "\(clean[..<mark.upperBound])\(withoutPassword(String(clean[mark.upperBound...]), of: scheme))"
  }
}
