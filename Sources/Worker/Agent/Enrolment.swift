import Crypto
import FoundationEssentials
package import ScitqProtocol
import SystemPackage

/// What makes this store a worker of a server: its own id, the credential it was given, and whom it believes.
package struct Enrolment: Sendable {
  private let store: StorePaths
  /// Made once for each store: a second agent on it is the same worker.
  package let storeID: String
  /// Given by the server when it joined; nil: it has not.
  package private(set) var credential: String?
  /// The part of the join token that proves the right to join.
  package let joinToken: String?
  /// SHA-256 of the server's authority, in hexadecimal, from the join token.
  package let fingerprint: String?

  /// Reads what the store has.
  /// - Parameter token: `SECRET.FINGERPRINT`, or `SECRET` for a server whose certificate this machine trusts anyway.
  package init(store: StorePaths, token: String?) throws(Files.Problem) {
    self.store = store
    if let id = Files.text(store.storeID), !id.isEmpty {
      storeID = id
    } else {
      storeID = (0..<4).map { _ in
        let text = String(UInt32.random(in: .min ... .max), radix: 16)
        return String(repeating: "0", count: 8 - text.count) + text
      }.joined()
      try Files.replace(store.storeID, with: storeID + "\n")
    }
    credential = Files.text(store.credential).flatMap { $0.isEmpty ? nil : $0 }
    (joinToken, fingerprint) = Self.split(token)
  }

  package static func split(_ token: String?) -> (secret: String?, fingerprint: String?) {
    guard let token, !token.isEmpty else { return (nil, nil) }
    guard let dot = token.lastIndex(of: ".") else { return (token, nil) }
    let print = token[token.index(after: dot)...]
    guard print.count == 64, print.allSatisfy(\.isHexDigit) else { return (token, nil) }
    return (String(token[..<dot]), print.lowercased())
  }

  /// Keeps the credential, for the owner's eyes only.
  package mutating func keep(credential: String) throws(Files.Problem) {
    try Files.replace(store.credential, with: credential + "\n", mode: 0o600)
    self.credential = credential
  }

  package mutating func dropCredential() {
    Files.removeFile(store.credential)
    credential = nil
  }

  /// Whom to believe: the given file; else the authority that the join token names, which is looked for among the
  /// certificates the server presents and kept; else the authorities of this machine.
  package func trust(_ server: ServerAddress, certificateFile: String?) async throws(CallError) -> Trust {
    if let certificateFile, !certificateFile.isEmpty {
      guard let pem = Files.text(.init(certificateFile)) else {
        throw CallError(
          .invalid, "the file \(certificateFile), which SCITQ_SSL_CERTIFICATE names, cannot be read")
      }
      return .authority(pem: pem)
    }
    let kept = Files.text(store.authority)
    if let kept, fingerprint == nil || Self.fingerprint(pem: kept) == fingerprint {
      return .authority(pem: kept)
    }
    guard let fingerprint else { return .system }
    let presented = try await Trust.probe(server, timeout: .seconds(15))
    guard let match = presented.first(where: { $0.fingerprint.lowercased() == fingerprint }) else {
      throw CallError(
        .forbidden,
        "\(server) does not present the certificate that the join token names (sha256 \(fingerprint)); "
          + "it is another server, or its certificate was replaced: take a new join token")
    }
    do { try Files.replace(store.authority, with: match.pem, mode: 0o644) } catch {
      throw CallError(.unavailable, "the server's certificate cannot be kept: \(error)")
    }
    return .authority(pem: match.pem)
  }

  private static func fingerprint(pem: String) -> String? {
    let lines = pem.split(whereSeparator: \.isNewline)
    guard let begin = lines.firstIndex(where: { $0.hasPrefix("-----BEGIN") }),
      let end = lines[begin...].firstIndex(where: { $0.hasPrefix("-----END") }),
      let der = Data(base64Encoded: lines[(begin + 1)..<end].joined())
    else { return nil }
    return SHA256.hash(data: der).map { byte in
      let text = String(byte, radix: 16)
      return text.count == 1 ? "0" + text : text
    }.joined()
  }
}
