import Crypto
import Foundation

/// Tokens that prove who somebody is: 32 random bytes behind a word that tells the kind. The server keeps their SHA-256 only:
/// who reads the database cannot log in with what is there.
package enum Secret {
  package enum Kind: String, CaseIterable, Sendable {
    /// A user who has logged in.
    case user = "scitq_u_"
    /// A worker that joins for the first time.
    case join = "scitq_j_"
    /// A worker that has joined.
    case worker = "scitq_w_"
    /// A running task that may call back.
    case task = "scitq_t_"
  }

  /// A new token, as its holder gets it.
  package static func make(_ kind: Kind) -> String { kind.rawValue + base64url(randomBytes(32)) }

  /// What is stored for a token: the SHA-256 of all of it, in hexadecimal. A token is random, so it needs no salt.
  package static func hash(_ token: String) -> String {
    hexadecimal(Array(SHA256.hash(data: Array(token.utf8))))
  }

  /// Whether the text has the form of a token of the kind. What has not needs no look into the database.
  package static func isWellFormed(_ token: String, _ kind: Kind) -> Bool {
    guard token.hasPrefix(kind.rawValue) else { return false }
    let rest = token.utf8.dropFirst(kind.rawValue.utf8.count)
    return rest.count == 43
      && rest.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
          true
        default: false
        }
      }
  }

  /// A password for a first account, good to type: 20 letters and digits without those that look alike.
  package static func makePassword() -> String {
    let letters = Array("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")
    var random = SystemRandomNumberGenerator()
    return String((0..<20).map { _ in letters.randomElement(using: &random)! })
  }

  /// Compares in a time that depends on the lengths alone.
  package static func equal(_ a: String, _ b: String) -> Bool { equal(Array(a.utf8), Array(b.utf8)) }

  static func equal(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    guard a.count == b.count else { return false }
    var difference: UInt8 = 0
    for index in a.indices { difference |= a[index] ^ b[index] }
    return difference == 0
  }

  static func randomBytes(_ count: Int) -> [UInt8] {
    SymmetricKey(size: SymmetricKeySize(bitCount: count * 8)).withUnsafeBytes { Array($0) }
  }

  static func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(
      decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }

  private static func base64url(_ bytes: [UInt8]) -> String {
    Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing(
      "=", with: "")
  }
}
