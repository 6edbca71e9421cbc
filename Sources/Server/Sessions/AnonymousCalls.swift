import ScitqProtocol

/// What anybody who reaches the port may ask: to be let in.
struct AnonymousCalls {
  let session: Session

  init(_ session: Session) { self.session = session }

  /// Nil when the call is another's.
  func answer(_ method: Method, _ payload: [UInt8], _ caller: Caller) async throws(CallError) -> [UInt8]? {
    let accounts = session.context.accounts
    let peer = session.peer
    switch method {
    case .login:
      return try await ScitqServer.answer(Call.login, payload) { (request) async throws(CallError) in
        try await accounts.login(request, from: peer)
      }
    case .certificate:
      return try await ScitqServer.answer(Call.certificate, payload) { _ in
        var certificate = WireCertificate()
        certificate.pem = session.context.authorityPEM
        return certificate
      }
    case .changePassword:
      var user: User?
      if case .user(let caller, _, _) = caller { user = caller }
      return try await ScitqServer.answer(Call.changePassword, payload) {
        [user] (request) async throws(CallError) in
        try await accounts.changePassword(request, by: user, from: peer)
        return WireEmpty()
      }
    default: return nil
    }
  }
}
