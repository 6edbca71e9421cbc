import ScitqProtocol

/// What to do about a server whose authority is not known to be trusted. Decided from facts alone.
enum TrustDecision: Hashable {
  /// Believe it, and pin it.
  case accept
  /// Show the fingerprint to the person at the terminal.
  case ask
  case refuse(String)

  struct Facts {
    let address: ServerAddress
    /// The authority's fingerprint as the server presents it.
    var presented: String
    /// The fingerprint of the authority pinned for this server, and the file it is in.
    var pinned: (fingerprint: String, file: String)?
    /// `SCITQ_SSL_FINGERPRINT`.
    var expected: String?
    var hasTerminal: Bool
  }

  static func about(_ facts: Facts) -> TrustDecision {
    if let expected = facts.expected {
      if Certificates.normalized(expected) == facts.presented { return .accept }
      return .refuse(
        """
        the authority of \(facts.address) has the fingerprint \(Certificates.spaced(facts.presented)), which is not the \
        one in SCITQ_SSL_FINGERPRINT; compare it with 'scitq cert --fingerprint' on the server
        """)
    }
    if let pinned = facts.pinned, pinned.fingerprint != facts.presented {
      return .refuse(
        """
        THE CERTIFICATE OF \(facts.address) HAS CHANGED: its authority had the fingerprint \
        \(Certificates.spaced(pinned.fingerprint)) and has \(Certificates.spaced(facts.presented)) now, so somebody may \
        be listening in; if the server was set up anew, remove \(pinned.file) and connect again
        """)
    }
    if facts.hasTerminal { return .ask }
    return .refuse(
      """
      the certificate of \(facts.address) is not known here and there is no terminal to ask on; set \
      SCITQ_SSL_CERTIFICATE to a file with the output of 'scitq cert', or SCITQ_SSL_FINGERPRINT to the fingerprint \
      that 'scitq cert --fingerprint' prints on the server
      """)
  }
}
