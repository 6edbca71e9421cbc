import Foundation
import ScitqProtocol

/// Opens connections to one server, and settles whether it is believed: `SCITQ_SSL_CERTIFICATE`, then the authority
/// pinned for it, then `SCITQ_SSL_FINGERPRINT`, then this system's authorities, then the person at the terminal, once.
/// Verification is never skipped, and the token is sent to nobody before it.
struct Dialer: Sendable {
  let address: ServerAddress
  let environment: [String: String]
  let timeout: Duration

  func open(token: String?) async throws -> Connection {
    if let path = environment["SCITQ_SSL_CERTIFICATE"], !path.isEmpty {
      guard let pem = try? String(contentsOfFile: path, encoding: .utf8),
        Certificates.fingerprint(pem: pem) != nil
      else {
        throw Failure("SCITQ_SSL_CERTIFICATE names \(path), which cannot be read as a PEM certificate")
      }
      return try await connect(.authority(pem: pem), token)
    }
    let known = KnownServers(environment: environment)
    if let known, let pem = try known.pinned(for: address) {
      do {
        return try await connect(.authority(pem: pem), token)
      } catch let error as CallError where error.code == .unavailable {
        // Gone, or another than it was? Only the certificate that it shows can tell.
        guard let authority = try? await authority(),
          authority.fingerprint != Certificates.fingerprint(pem: pem)
        else { throw error }
        return try await settle(authority, pinned: pem, known, token)
      }
    }
    // Asked first, so that a server that is down costs one attempt and not two.
    let authority = try await authority()
    if expectedFingerprint == nil {
      do {
        return try await connect(.system, token)
      } catch let error as CallError where error.code == .unavailable {}
    }
    return try await settle(authority, pinned: nil, known, token)
  }

  /// The last certificate that the server presents: the authority that signs for it.
  func authority() async throws -> PresentedCertificate {
    guard let last = try await Trust.probe(address, timeout: timeout).last else {
      throw Failure("\(address) presents no certificate; is it a scitq server?")
    }
    return last
  }

  private var expectedFingerprint: String? {
    environment["SCITQ_SSL_FINGERPRINT"].flatMap { $0.isEmpty ? nil : $0 }
  }

  private func connect(_ trust: Trust, _ token: String?) async throws -> Connection {
    var hello = WireHello()
    hello.role = .user
    if let token { hello.token = token }
    return try await Connection.open(to: address, trust: trust, hello: hello, timeout: timeout)
  }

  private func settle(
    _ authority: PresentedCertificate, pinned: String?, _ known: KnownServers?, _ token: String?
  ) async throws -> Connection {
    var facts = TrustDecision.Facts(
      address: address, presented: authority.fingerprint, expected: expectedFingerprint,
      hasTerminal: Prompt.isPossible)
    if let pinned, let known, let fingerprint = Certificates.fingerprint(pem: pinned) {
      facts.pinned = (fingerprint, known.file(for: address).path)
    }
    switch TrustDecision.about(facts) {
    case .refuse(let why): throw Failure(why)
    case .accept: break
    case .ask: try ask(about: authority)
    }
    // The pin counts only once the server has proved that this authority signs for it.
    do {
      let connection = try await connect(.authority(pem: authority.pem), token)
      try known?.pin(authority.pem, for: address)
      return connection
    } catch let error as CallError where error.code != .unavailable {
      // Refused for another reason, such as a token: the server has proved itself all the same.
      try known?.pin(authority.pem, for: address)
      throw error
    }
  }

  /// Shows the fingerprint on the terminal; returns if the person says yes.
  private func ask(about authority: PresentedCertificate) throws {
    guard let prompt = Prompt.open() else {
      throw Failure("the terminal was closed before it could be asked on")
    }
    try prompt.say(
      """
      The certificate of \(address) is not known here.
      Its authority has the SHA-256 fingerprint
        \(Certificates.spaced(authority.fingerprint))
      Compare it with 'scitq cert --fingerprint' on the server.

      """)
    guard try prompt.ask("Trust this server from now on? (yes/no) ").lowercased() == "yes" else {
      throw Failure("\(address) is not trusted, so nothing was sent to it")
    }
  }
}
