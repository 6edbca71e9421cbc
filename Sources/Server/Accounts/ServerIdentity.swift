/// What the server shows to those who connect, and the key that proves it.
package struct ServerIdentity: Sendable, Equatable {
  /// The server's certificate, and after it those that vouch for it.
  package var certificateChainPEM: [String]
  package var privateKeyPEM: String
  /// What clients trust: the authority that signed, or the last certificate of a configured chain.
  package var authorityPEM: String
  /// SHA-256 of the authority's DER, in hexadecimal.
  package var fingerprint: String
}

package struct AuthorityError: Error, Equatable, CustomStringConvertible {
  package var description: String

  init(_ description: String) { self.description = description }
}
