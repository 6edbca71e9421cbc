import Foundation

/// A network namespace with a virtual cable to this one. What is sent through it while it is cut is lost without a
/// word, as when a switch dies: connections stay open at both ends.
struct Cable: Sendable {
  let namespace: String
  /// Where this end is, seen from the other.
  let serverAddress: String

  static func lay() async throws -> Cable {
    let number = Int.random(in: 0..<(1 << 14))
    let cable = Cable(
      namespace: "scitq-\(number)",
      serverAddress: "10.\(200 + number / 4096).\(number / 16 % 256).\(number % 16 * 16 + 1)")
    let (near, far) = ("sq\(number)a", "sq\(number)b")
    let farAddress = cable.serverAddress.replacingOccurrences(
      of: #"\d+$"#, with: "\(number % 16 * 16 + 2)", options: .regularExpression)
    try await run("ip", "netns", "add", cable.namespace)
    try await run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", cable.namespace)
    try await run("ip", "addr", "add", "\(cable.serverAddress)/28", "dev", near)
    try await run("ip", "link", "set", near, "up")
    try await run("ip", "-n", cable.namespace, "addr", "add", "\(farAddress)/28", "dev", far)
    try await run("ip", "-n", cable.namespace, "link", "set", far, "up")
    try await run("ip", "-n", cable.namespace, "link", "set", "lo", "up")
    return cable
  }

  func cut() async throws {
    for chain in ["INPUT", "OUTPUT"] { try await inside("iptables", "-A", chain, "-j", "DROP") }
  }

  func mend() async throws { try await inside("iptables", "-F") }

  func remove() async { try? await Self.run("ip", "netns", "del", namespace) }

  private func inside(_ arguments: String...) async throws {
    try await Self.run(["ip", "netns", "exec", namespace] + arguments)
  }

  private static func run(_ arguments: String...) async throws { try await run(arguments) }

  private static func run(_ arguments: [String]) async throws {
    let log = FileManager.default.temporaryDirectory.appending(path: "cable-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: log) }
    let program = try Program(
      arguments[0], try Tools.onPath(arguments[0]), Array(arguments.dropFirst()),
      environment: ProcessInfo.processInfo.environment, out: log, err: log)
    let status = await program.ended()
    guard status == 0 else {
      throw Trouble(
        "\(arguments.joined(separator: " ")): \((try? String(contentsOf: log, encoding: .utf8)) ?? "\(status)")"
      )
    }
  }
}
