import Foundation
import SystemPackage

/// How a server knows its own hosts among those of others, in an account that it may share.
struct OrderMark: Sendable {
  var server: String

  /// The tag that has the order's key.
  static let order = "scitq-order"
  /// The tag that has the server's id.
  static let owner = "scitq-server"

  var prefix: String { "scitq-\(server)-" }

  /// Whether a key is one of this server's: `scitq-SERVER-` and a number. The rest has no hyphen, so that the
  /// server `a` does not take the hosts of the server `a-b` for its own.
  func owns(_ key: String) -> Bool {
    guard key.hasPrefix(prefix) else { return false }
    let rest = key.utf8.dropFirst(prefix.utf8.count)
    return !rest.isEmpty
      && rest.allSatisfy { (48...57).contains($0) || (97...122).contains($0) }
  }

  /// Whether a host with these tags, and of this name, is this server's.
  func owns(_ name: String, tags: [String: String]?) -> Bool {
    owns(name) && tags?[Self.order] == name && tags?[Self.owner] == server
  }

  /// Whoever asks for another's host has made a mistake: nothing is done.
  func check(_ key: String) throws(ProviderError) {
    guard owns(key) else { throw ProviderError(.misconfigured, "\(key) is no host of the server \(server)") }
  }
}

/// A boot script as a file that a client reads: it has a ticket, so that it is for this user alone, and not
/// for long.
struct BootFile {
  /// Writes it, calls the body with its path, and removes it again.
  static func with<Value: Sendable>(
    _ order: InstanceOrder, in folder: FilePath, _ body: (String) async throws(ProviderError) -> Value
  ) async throws(ProviderError) -> Value {
    let path = folder.appending("\(order.key).\(UInt32.random(in: 0 ... .max))")
    do {
      try PrivateFolder.make(folder)
      try PrivateFolder.write(order.boot.text, to: path, mode: .ownerReadWrite)
    } catch {
      throw ProviderError(.misconfigured, "\(error)")
    }
    defer { try? FileManager.default.removeItem(atPath: path.string) }
    return try await body(path.string)
  }
}
