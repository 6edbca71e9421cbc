import Foundation
import ScitqProtocol

/// The authorities of servers that a person accepted once: one PEM file a server, in a folder only they can read.
struct KnownServers {
  let folder: URL

  init(folder: URL) { self.folder = folder }

  /// `$XDG_CONFIG_HOME/scitq/known_servers`, or the same below `~/.config`; nil without a home.
  init?(environment: [String: String]) {
    let base: URL
    if let config = environment["XDG_CONFIG_HOME"], config.hasPrefix("/") {
      base = URL(filePath: config, directoryHint: .isDirectory)
    } else if let home = environment["HOME"], home.hasPrefix("/") {
      base = URL(filePath: home, directoryHint: .isDirectory).appending(path: ".config")
    } else {
      return nil
    }
    self.init(folder: base.appending(path: "scitq/known_servers", directoryHint: .isDirectory))
  }

  /// Where this server's authority is kept.
  func file(for address: ServerAddress) -> URL {
    let host = address.host.lowercased().map { character in
      character.isASCII && (character.isLetter || character.isNumber || ".-:%".contains(character))
        ? character : "_"
    }
    return folder.appending(path: "\(String(host))_\(address.port).pem", directoryHint: .notDirectory)
  }

  /// The PEM of the authority pinned for this server, or nil where none is.
  func pinned(for address: ServerAddress) throws -> String? {
    let file = file(for: address)
    guard FileManager.default.fileExists(atPath: file.path) else { return nil }
    guard let pem = try? String(contentsOf: file, encoding: .utf8), Certificates.fingerprint(pem: pem) != nil
    else {
      throw Failure(
        "\(file.path) cannot be read as a PEM certificate; remove it to be asked about the server again")
    }
    return pem
  }

  /// Pins an authority; the file is whole or not there, and only its owner can read it.
  func pin(_ pem: String, for address: ServerAddress) throws {
    let file = file(for: address)
    do {
      try FileManager.default.createDirectory(
        at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
      let fresh = folder.appending(path: ".\(UUID().uuidString)")
      let descriptor = Foundation.open(fresh.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
      guard descriptor >= 0 else { throw Failure(Descriptor.reason(errno)) }
      defer { close(descriptor) }
      try Descriptor.write(pem.utf8, to: descriptor)
      guard fsync(descriptor) == 0, rename(fresh.path, file.path) == 0 else {
        let reason = Descriptor.reason(errno)
        unlink(fresh.path)
        throw Failure(reason)
      }
    } catch {
      throw Failure("the server's certificate cannot be kept in \(file.path): \(error)")
    }
  }
}

/// What the client itself needs to know of certificates.
enum Certificates {
  /// SHA-256 of the first certificate in the PEM text, in hexadecimal; nil where there is none.
  static func fingerprint(pem: String) -> String? {
    guard let start = pem.firstRange(of: "-----BEGIN CERTIFICATE-----"),
      let end = pem[start.upperBound...].firstRange(of: "-----END CERTIFICATE-----"),
      let der = Data(
        base64Encoded: String(pem[start.upperBound..<end.lowerBound]), options: .ignoreUnknownCharacters),
      !der.isEmpty
    else { return nil }
    return PresentedCertificate.fingerprint(der: Array(der))
  }

  /// Fingerprints are compared without colons, blanks, case and an algorithm's name before them.
  static func normalized(_ fingerprint: String) -> String {
    var text = fingerprint.lowercased()
    for prefix in ["sha256:", "sha256=", "sha-256:"] where text.hasPrefix(prefix) {
      text.removeFirst(prefix.count)
    }
    return text.filter { $0 != ":" && !$0.isWhitespace }
  }

  /// `ab:cd:…`, as people compare it.
  static func spaced(_ fingerprint: String) -> String {
    let letters = Array(fingerprint)
    return stride(from: 0, to: letters.count, by: 2)
      .map { String(letters[$0..<min($0 + 2, letters.count)]) }.joined(separator: ":")
  }
}
