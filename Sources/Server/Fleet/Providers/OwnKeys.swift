/// Which hosts are this server's, by the keys of its orders: `scitq-SERVER-NUMBER`.
///
/// The whole key is looked at: another server's name may begin with this one's.
struct OwnKeys: Sendable {
  let server: String

  /// The tag that has the order's key.
  static let order = "scitq-order"
  /// The tag that has the server's id.
  static let owner = "scitq-server"

  var prefix: String { "scitq-\(server)-" }

  func contains(_ key: some StringProtocol) -> Bool {
    guard key.hasPrefix(prefix) else { return false }
    let number = key.dropFirst(prefix.count)
    return !number.isEmpty && number.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
  }

  /// Whether a host of this name, and with these tags, is this server's.
  func contains(_ name: String, tags: [String: String]?) -> Bool {
    contains(name) && tags?[Self.order] == name && tags?[Self.owner] == server
  }

  /// Keys become names of folders and words of scripts, and what is not ours is not touched.
  func check(_ key: String) throws(ProviderError) {
    guard contains(key) else {
      throw ProviderError(.misconfigured, "\(key.debugDescription) is not the key of an order of \(server)")
    }
  }
}

extension BootScript {
  /// The script for a host that is a folder and a process: who starts it says in `SCITQ_FOLDER` which folder,
  /// the worker stays in the foreground, and nothing is installed on what is not ours.
  ///
  /// The script has its folder between single quotes: these end them, and begin them again.
  var pilot: BootScript {
    var script = self
    script.folder = #"'"$SCITQ_FOLDER"'"#
    script.staysInForeground = true
    script.installs = false
    return script
  }
}

extension Instance {
  /// Of Unix seconds as somebody told them; nil: no moment that can be meant.
  static func moment(_ seconds: Int64) -> Int64? {
    (0..<(1 << 40)).contains(seconds) ? seconds * 1_000_000 : nil
  }
}

extension String {
  /// As one word of a shell's script.
  var shellWord: String { "'\(replacing("'", with: #"'\''"#))'" }
}
