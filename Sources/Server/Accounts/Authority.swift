import Crypto
package import Foundation
import NIOSSL
import SwiftASN1
package import SystemPackage
import X509

/// The server's own certificate authority, made on its first start, and the certificate it signs for the server.
///
/// In `<directory>` (0700) lie `authority.pem`, `authority.key`, `server.pem` and `server.key` (keys 0600), each written in one
/// step. The authority lives ten years, so that those who trust it are not disturbed; the server's certificate one, and is
/// made anew by a start within its last 30 days, or when the names changed.
package enum Authority {
  /// The identity to serve with.
  ///
  /// - Parameters:
  ///   - directory: `<data_dir>/tls`; made when it is not there.
  ///   - names: what clients call the server: host names and addresses. `localhost`, `127.0.0.1` and `::1` are added.
  ///   - configured: certificate and key of the operator's own; then nothing is made.
  /// - Throws: ``AuthorityError``, one sentence that names the file.
  package static func load(
    directory: FilePath, names: [String], configured: (certificate: FilePath, privateKey: FilePath)? = nil,
    now: Date = Date()
  ) throws -> ServerIdentity {
    if let configured { return try read(configured.certificate, configured.privateKey) }
    try PrivateFolder.make(directory)
    let authority = try loadAuthority(directory, now: now)
    let server = try loadServer(directory, authority: authority, names: allNames(names), now: now)
    let authorityPEM = try authority.certificate.serializeAsPEM().pemString
    return ServerIdentity(
      certificateChainPEM: [try server.certificate.serializeAsPEM().pemString, authorityPEM],
      privateKeyPEM: try server.key.serializeAsPEM().pemString,
      authorityPEM: authorityPEM,
      fingerprint: try fingerprint(of: authority.certificate))
  }

  private struct Pair {
    var certificate: Certificate
    var key: Certificate.PrivateKey
  }

  // MARK: Own certificates

  private static func loadAuthority(_ directory: FilePath, now: Date) throws -> Pair {
    let certificatePath = directory.appending("authority.pem")
    let keyPath = directory.appending("authority.key")
    let certificateText = try PrivateFolder.readIfPresent(certificatePath)
    let keyText = try PrivateFolder.readIfPresent(keyPath)
    switch (certificateText, keyText) {
    case (nil, _):
      // A key alone is what a first start leaves when it is cut short: nobody has seen its certificate.
      let pair = try makeAuthority(now: now)
      try PrivateFolder.write(pair.key.serializeAsPEM().pemString, to: keyPath, mode: .ownerReadWrite)
      try PrivateFolder.write(
        pair.certificate.serializeAsPEM().pemString, to: certificatePath,
        mode: [.ownerReadWrite, .groupRead, .otherRead])
      return pair
    case (_, nil):
      throw AuthorityError(
        "\(keyPath) is missing beside \(certificatePath); restore it, or remove \(directory) to make a new authority, which every client has to accept anew."
      )
    case (let certificateText?, let keyText?):
      let pair: Pair
      do {
        pair = Pair(
          certificate: try Certificate(pemEncoded: certificateText),
          key: try Certificate.PrivateKey(pemEncoded: keyText))
      } catch {
        throw AuthorityError(
          "\(certificatePath) or \(keyPath) is not a valid PEM file; restore both, or remove \(directory) to make a new authority."
        )
      }
      guard pair.certificate.publicKey == pair.key.publicKey else {
        throw AuthorityError(
          "\(keyPath) is not the key of \(certificatePath); restore the two that belong together.")
      }
      guard pair.certificate.notValidAfter > now else {
        throw AuthorityError(
          "The authority in \(certificatePath) has expired; remove \(directory) to make a new one, which every client has to accept anew."
        )
      }
      return pair
    }
  }

  private static func loadServer(_ directory: FilePath, authority: Pair, names: [String], now: Date) throws
    -> Pair
  {
    let certificatePath = directory.appending("server.pem")
    let keyPath = directory.appending("server.key")
    if let certificateText = try PrivateFolder.readIfPresent(certificatePath),
      let keyText = try PrivateFolder.readIfPresent(keyPath),
      let certificate = try? Certificate(pemEncoded: certificateText),
      let key = try? Certificate.PrivateKey(pemEncoded: keyText),
      certificate.publicKey == key.publicKey,
      authority.certificate.publicKey.isValidSignature(certificate.signature, for: certificate),
      certificate.notValidBefore <= now,
      certificate.notValidAfter > now.addingTimeInterval(30 * day),
      let alternatives = try? certificate.extensions.subjectAlternativeNames,
      Set(alternatives) == Set(try names.map(generalName))
    {
      return Pair(certificate: certificate, key: key)
    }
    let pair = try makeServer(authority: authority, names: names, now: now)
    // The key first: a certificate whose key does not belong to it is made anew by the next start.
    try PrivateFolder.write(pair.key.serializeAsPEM().pemString, to: keyPath, mode: .ownerReadWrite)
    try PrivateFolder.write(
      pair.certificate.serializeAsPEM().pemString, to: certificatePath,
      mode: [.ownerReadWrite, .groupRead, .otherRead])
    return pair
  }

  private static let day: TimeInterval = 86_400

  private static func makeAuthority(now: Date) throws -> Pair {
    let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    let name = try DistinguishedName {
      OrganizationName("scitq")
      CommonName("scitq authority \(Secret.hexadecimal(Secret.randomBytes(4)))")
    }
    let certificate = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
      // A client whose clock is a little behind takes part from the first minute.
      notValidBefore: now.addingTimeInterval(-day), notValidAfter: now.addingTimeInterval(3653 * day),
      issuer: name, subject: name, signatureAlgorithm: .ecdsaWithSHA256,
      extensions: try Certificate.Extensions {
        Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
        Critical(KeyUsage(keyCertSign: true, cRLSign: true))
        SubjectKeyIdentifier(hash: key.publicKey)
      },
      issuerPrivateKey: key)
    return Pair(certificate: certificate, key: key)
  }

  private static func makeServer(authority: Pair, names: [String], now: Date) throws -> Pair {
    let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    let end = min(now.addingTimeInterval(365 * day), authority.certificate.notValidAfter)
    let certificate = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
      notValidBefore: now.addingTimeInterval(-day), notValidAfter: end,
      issuer: authority.certificate.subject,
      subject: try DistinguishedName {
        OrganizationName("scitq")
        // A common name holds 64 characters at most; the alternative names are what counts.
        CommonName(String((names.first ?? "scitq").prefix(64)))
      },
      signatureAlgorithm: .ecdsaWithSHA256,
      extensions: try Certificate.Extensions {
        Critical(BasicConstraints.notCertificateAuthority)
        Critical(KeyUsage(digitalSignature: true))
        try ExtendedKeyUsage([.serverAuth])
        SubjectAlternativeNames(try names.map(generalName))
        SubjectKeyIdentifier(hash: key.publicKey)
        AuthorityKeyIdentifier(
          keyIdentifier: SubjectKeyIdentifier(hash: authority.key.publicKey).keyIdentifier)
      },
      issuerPrivateKey: authority.key)
    return Pair(certificate: certificate, key: key)
  }

  /// The given names, and those that every machine has.
  private static func allNames(_ names: [String]) -> [String] {
    var seen: Set<String> = []
    return (names.map { $0.lowercased() } + ["localhost", "127.0.0.1", "::1"]).filter {
      !$0.isEmpty && seen.insert($0).inserted
    }
  }

  private static func generalName(_ name: String) throws -> GeneralName {
    if let address = IPAddress.bytes(name) { return .ipAddress(ASN1OctetString(contentBytes: address[...])) }
    guard name.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
      throw AuthorityError(
        "\"\(name)\" cannot stand in a certificate; a host name has letters, digits, hyphens and dots.")
    }
    return .dnsName(name)
  }

  static func fingerprint(of certificate: Certificate) throws -> String {
    var serializer = DER.Serializer()
    try certificate.serialize(into: &serializer)
    return Secret.hexadecimal(Array(SHA256.hash(data: serializer.serializedBytes)))
  }

  // MARK: Configured certificates

  private static func read(_ certificatePath: FilePath, _ keyPath: FilePath) throws -> ServerIdentity {
    guard let certificateText = try PrivateFolder.readIfPresent(certificatePath) else {
      throw AuthorityError("The file \(certificatePath) that server.certificate names does not exist.")
    }
    guard let keyText = try PrivateFolder.readIfPresent(keyPath) else {
      throw AuthorityError("The file \(keyPath) that server.private_key names does not exist.")
    }
    // Through the library that will serve with them: what it does not take is refused here, with a sentence.
    guard let chain = try? NIOSSLCertificate.fromPEMBytes(Array(certificateText.utf8)), let last = chain.last
    else {
      throw AuthorityError("\(certificatePath) holds no certificates in PEM form.")
    }
    guard let key = try? NIOSSLPrivateKey(bytes: Array(keyText.utf8), format: .pem) else {
      throw AuthorityError("\(keyPath) holds no unencrypted private key in PEM form.")
    }
    do {
      var configuration = TLSConfiguration.makeServerConfiguration(
        certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
      configuration.minimumTLSVersion = .tlsv13
      // It refuses a key that does not belong to the first certificate.
      _ = try NIOSSLContext(configuration: configuration)
    } catch {
      throw AuthorityError(
        "\(keyPath) is not the key of the first certificate in \(certificatePath); name the two that belong together."
      )
    }
    let documents = try chain.map {
      PEMDocument(type: "CERTIFICATE", derBytes: try $0.toDERBytes()).pemString
    }
    return ServerIdentity(
      certificateChainPEM: documents, privateKeyPEM: keyText, authorityPEM: documents[documents.count - 1],
      fingerprint: Secret.hexadecimal(Array(SHA256.hash(data: try last.toDERBytes()))))
  }
}
