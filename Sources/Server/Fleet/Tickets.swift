import Crypto
import Foundation
import ScitqProtocol

/// What lets one host in: derived from this server's join secret, so that an order that is tried twice has one ticket, and
/// none is kept anywhere. A ticket is good while its order waits for its host, and dies when the worker has joined;
/// that of a job in a queue, which may begin anew, with the job.
struct Tickets: Sendable {
  private let key: SymmetricKey

  init(secret: String) {
    key = SymmetricKey(data: SHA256.hash(data: Data("scitq host ticket \(secret)".utf8)))
  }

  static let prefix = "scitq_k_"

  func ticket(for instance: InstanceID) -> String {
    let seal = HMAC<SHA256>.authenticationCode(for: Data("\(instance)".utf8), using: key)
    return "\(Self.prefix)\(instance)_\(Secret.hexadecimal(Array(seal)))"
  }

  /// Whose ticket it is; nil: nobody's.
  func instance(of ticket: String) -> InstanceID? {
    guard ticket.hasPrefix(Self.prefix) else { return nil }
    let words = ticket.dropFirst(Self.prefix.count).split(separator: "_")
    guard words.count == 2, let number = Int64(words[0]) else { return nil }
    let instance = InstanceID(number)
    return Secret.equal(self.ticket(for: instance), ticket) ? instance : nil
  }
}
