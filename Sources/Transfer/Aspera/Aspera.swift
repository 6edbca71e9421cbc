import ScitqProtocol
import Subprocess
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Aspera's command-line client: nothing else speaks its protocol.
struct Aspera: Sendable {
  let program: FilePath
  /// The file with a private key.
  let key: String?
  private let environment: [String: String]

  /// The account under which ENA gives public files.
  static let archiveUser = "era-fasp"

  /// The client that `SCITQ_ASCP` names, or else `ascp` on `PATH`.
  init(_ environment: [String: String], _ archive: PublicArchive) throws(TransferFailure) {
    let named = environment["SCITQ_ASCP"].flatMap { $0.isEmpty ? nil : $0 }
    if let named, access(named, X_OK) != 0 {
      throw TransferFailure(
        .input, "SCITQ_ASCP names \(named), which is not a program; name Aspera's client ascp in it")
    }
    guard let program = named.map({ FilePath($0) }) ?? findProgram("ascp", path: environment["PATH"]) else {
      throw TransferFailure(
        .input,
        "Aspera's client ascp was not found; install IBM Aspera Connect or its transfer SDK, and put ascp on PATH or name it in SCITQ_ASCP"
      )
    }
    self.program = program
    self.environment = environment
    key = environment["SCITQ_ASPERA_KEY"].flatMap { $0.isEmpty ? nil : $0 } ?? archive.asperaKey
  }

  /// Brings the file or folder that an `asp://` URI names into `folder`, under its own name. What an earlier call has
  /// brought there of a file is not brought again.
  func fetch(_ uri: TransferURI, into folder: FilePath) async throws(TransferFailure) {
    let source = Source(uri)
    var environment = environment
    if let password = source.password { environment["ASPERA_SCP_PASS"] = password }
    var arguments = ["-QT", "-l", "300m", "-P", source.port, "-k", "1"]
    if let key { arguments += ["-i", key] }
    arguments += [source.address, folder.string]
    let complaint: String
    do {
      let result = try await Subprocess.run(
        .path(program), arguments: Arguments(arguments),
        environment: .custom(environment.asSubprocessEnvironment), input: .none,
        output: .string(limit: 64 << 10), error: .string(limit: 64 << 10))
      if Task.isCancelled { throw TransferFailure.interrupted }
      if result.terminationStatus.isSuccess { return }
      complaint = "\(result.standardError)\n\(result.standardOutput)"
    } catch let failure as TransferFailure {
      throw failure
    } catch {
      if Task.isCancelled { throw .interrupted }
      throw TransferFailure(.input, "\(uri): \(program) could not be run: \(error)")
    }
    throw Self.failure(complaint, source, "\(uri.withoutActions)")
  }

  private static func failure(_ said: String, _ source: Source, _ name: String) -> TransferFailure {
    let line = said.split(separator: "\n").first { !$0.allSatisfy(\.isWhitespace) } ?? "it ended in failure"
    var message = "ascp: \(line)"
    if let password = source.password, !password.isEmpty {
      message = message.replacing(password, with: "***")
    }
    if message.lowercased().contains("no such file") {
      return TransferFailure(.inputMissing, "\(name): \(message)")
    }
    return RcloneError.failure(status: 0, message: message, doing: name)
  }

  /// What an `asp://` URI names, as the client wants it.
  private struct Source {
    var address: String
    var password: String?
    /// Where the server listens; its usual one unless the URI has another.
    var port = "33001"

    init(_ uri: TransferURI) {
      let authority = uri.path.prefix { $0 != "/" }
      let path = uri.path.dropFirst(authority.count)
      var user = ""
      var host = authority
      if let at = authority.lastIndex(of: "@") {
        let parts = authority[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        user = Selector.decoded(parts[0]) + "@"
        if parts.count > 1 { password = Selector.decoded(parts[1]) }
        host = authority[authority.index(after: at)...]
      }
      if let colon = host.lastIndex(of: ":") {
        port = String(host[host.index(after: colon)...])
        host = host[..<colon]
      }
      address = "\(user)\(host):\(path.hasSuffix("/") ? path.dropLast() : path)"
    }
  }
}

extension [String: String] {
  /// For a program that is started.
  var asSubprocessEnvironment: [Environment.Key: String] {
    reduce(into: [:]) { values, pair in
      if let key = Environment.Key(rawValue: pair.key) { values[key] = pair.value }
    }
  }
}

/// The program of this name in the first folder of `path` that has it.
func findProgram(_ name: String, path: String?) -> FilePath? {
  for folder in (path ?? "/usr/bin:/bin").split(separator: ":") {
    let path = "\(folder)/\(name)"
    if access(path, X_OK) == 0 { return FilePath(path) }
  }
  return nil
}
