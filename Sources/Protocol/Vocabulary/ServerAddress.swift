/// Where a server listens.
public struct ServerAddress: Hashable, Sendable, CustomStringConvertible {
  public static let defaultPort = 50051

  public var host: String
  public var port: Int

  public init(host: String, port: Int = ServerAddress.defaultPort) {
    self.host = host
    self.port = port
  }

  /// `host`, `host:port`, `[v6]:port` or `[v6]`. Nil where it is none of these, or the port is not within 1…65535.
  public init?(_ text: String) {
    let host: Substring
    let port: Substring?
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      host = text[text.index(after: text.startIndex)..<end]
      let rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { return nil }
      port = rest.isEmpty ? nil : rest.dropFirst()
    } else {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count <= 2 else { return nil }
      host = parts[0]
      port = parts.count == 2 ? parts[1] : nil
    }
    guard !host.isEmpty else { return nil }
    self.host = String(host)
    if let port {
      guard let number = Int(port), (1...65535).contains(number) else { return nil }
      self.port = number
    } else {
      self.port = Self.defaultPort
    }
  }

  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
