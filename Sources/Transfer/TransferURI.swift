import ScitqProtocol

/// Where files are, and what is done to them when they arrive: `scheme[@option]*://path[|action]*`.
///
/// Options are for `run+fastq://` alone. `fastq` is another name of that scheme, and `fasp` of `asp`.
/// No scheme means a path of this machine. `*` is the only special character of a path; it stands for any
/// characters but `/`. A path that ends in `/` is a folder with all that is below it.
package struct TransferURI: Sendable, Hashable, CustomStringConvertible {
  /// The name of a remote, `http`, `https`, `ftp`, `ftps`, `asp`, `run+fastq`, or `file` for this machine.
  package let scheme: String
  /// As they were written, each once.
  package let options: [RunOption]
  /// What follows `://`, credentials and query included. For `file`, a path of this machine.
  package let path: String
  /// Left to right, as they are carried out.
  package let actions: [URIAction]
  /// Written without a scheme; its text stays so.
  private let isBare: Bool

  private init(
    scheme: String, options: [RunOption] = [], path: String, actions: [URIAction], isBare: Bool
  ) {
    self.scheme = scheme
    self.options = options
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
  /// Served by a public protocol or archive, without any remote of the configuration.
  package var isWeb: Bool { Self.webSchemes.contains(scheme) || isRun || isAspera }
  /// A public sequencing run; the path is its accession.
  package var isRun: Bool { scheme == "run+fastq" }
  /// Given by an Aspera server.
  package var isAspera: Bool { scheme == "asp" }
  /// Nothing can be stored there.
  var isSourceOnly: Bool { isWeb && !scheme.hasPrefix("ftp") }

  static let webSchemes: Set<String> = ["http", "https", "ftp", "ftps"]
  private static let otherNames = ["fastq": "run+fastq", "fasp": "asp"]

  /// The whole URI as it was written, secrets included: for keys and storage, not for people.
  package var text: String {
    (isBare ? path : "\(head)://\(path)") + actions.map { "|\($0)" }.joined()
  }

  /// For people and logs: a password reads `***`.
  package var description: String {
    (isBare ? path : "\(head)://\(Self.withoutPassword(path, of: scheme))")
      + actions.map { "|\($0)" }.joined()
  }

  private var head: String { scheme + options.map { "@\($0.rawValue)" }.joined() }

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
    let scheme = Self.otherNames[String(head[0])] ?? String(head[0])
    let path = String(location[mark.upperBound...])
    guard Self.isSchemeName(scheme) else {
      throw TransferFailure(
        .input,
        "\(shown): \"\(scheme)\" is not the name of a remote; letters, digits and - _ . + make one, such as s3://"
      )
    }
    let options = try Self.options(head.dropFirst(), of: scheme, in: shown)
    guard !path.isEmpty else {
      throw TransferFailure(.input, "\(shown): the path after \(scheme):// is empty")
    }
    if scheme == "file" {
      guard path.hasPrefix("/") else {
        throw TransferFailure(.input, "\(shown): file:// needs an absolute path, such as file:///data/x")
      }
    } else if scheme == "run+fastq" {
      try Self.checkAccession(path, in: shown)
    } else if scheme == "asp" {
      try Self.checkAspera(path, in: shown)
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
    self.init(scheme: scheme, options: options, path: path, actions: actions, isBare: false)
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
    guard !uri.isSourceOnly else {
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
    TransferURI(scheme: scheme, options: options, path: path, actions: actions, isBare: isBare)
  }

  var withoutActions: TransferURI {
    TransferURI(scheme: scheme, options: options, path: path, actions: [], isBare: isBare)
  }

  /// The sub-folder that the last `mv:` names, or empty.
  var subfolder: String {
    for case .move(let folder) in actions.reversed() { return folder }
    return ""
  }

  /// The last name of the path, a query set aside.
  var lastName: String {
    let hasQuery = Self.webSchemes.contains(scheme)
    let end = hasQuery ? path.firstIndex(where: { $0 == "?" || $0 == "#" }) ?? path.endIndex : path.endIndex
    return path[..<end].split(separator: "/", omittingEmptySubsequences: true).last.map(String.init) ?? ""
  }

  private static func options(
    _ names: ArraySlice<Substring>, of scheme: String, in shown: String
  ) throws(TransferFailure) -> [RunOption] {
    var options: [RunOption] = []
    for name in names {
      guard scheme == "run+fastq" else {
        throw TransferFailure(.input, "\(shown): \(scheme):// knows no option @\(name)")
      }
      guard let option = RunOption(rawValue: String(name)) else {
        let known = RunOption.allCases.map { "@\($0.rawValue)" }.joined(separator: ", ")
        throw TransferFailure(.input, "\(shown): \(scheme):// knows no option @\(name); known are \(known)")
      }
      if !options.contains(option) { options.append(option) }
    }
    return options
  }

  private static func checkAccession(_ path: String, in shown: String) throws(TransferFailure) {
    let digits = path.utf8.dropFirst(3)
    guard ["ERR", "SRR", "DRR"].contains(path.prefix(3)), !digits.isEmpty,
      digits.allSatisfy({ (48...57).contains($0) })
    else {
      throw TransferFailure(
        .input, "\(shown): \"\(path)\" is not the accession of a run; one is such as SRR000001, ERR… or DRR…")
    }
  }

  private static func checkAspera(_ path: String, in shown: String) throws(TransferFailure) {
    guard !path.contains("*") else {
      throw TransferFailure(.input, "\(shown): Aspera knows no pattern; name a file, or a folder with a /")
    }
    let authority = path.prefix { $0 != "/" }
    let parts = authority.split(separator: "@", omittingEmptySubsequences: false)
    let host = parts[parts.count - 1].split(separator: ":", omittingEmptySubsequences: false)
    guard !host[0].isEmpty, host.count == 1 || (host.count == 2 && UInt16(host[1]) != nil) else {
      throw TransferFailure(.input, "\(shown): asp:// needs a host, such as asp://user@host/file")
    }
    // The client would read it as one of its flags.
    guard !authority.hasPrefix("-"), !authority.hasPrefix("%") else {
      throw TransferFailure(.input, "\(shown): the user or host of asp:// begins with a letter or digit")
    }
    let names = path.dropFirst(authority.count).split(separator: "/")
    guard let last = names.last, last != "." && !names.contains("..") else {
      throw TransferFailure(.input, "\(shown): asp:// needs the path of a file or folder, without ..")
    }
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
    let isAspera = (otherNames[scheme] ?? scheme) == "asp"
    guard webSchemes.contains(scheme) || isAspera else { return path }
    let host = path.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    var shown = path
    if let at = host.lastIndex(of: "@"), let colon = host[..<at].firstIndex(of: ":") {
      shown = "\(host[..<colon]):***\(path[at...])"
    }
    // A query is where signed links carry their signature.
    if !isAspera, let query = shown.firstIndex(of: "?") { shown = shown[...query] + "…" }
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
