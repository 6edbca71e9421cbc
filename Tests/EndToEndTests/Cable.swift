import Foundation

/// A network namespace with a virtual cable to this one. What is sent through it while it is cut is lost without a
/// word, as when a switch dies: connections stay open at both ends.
struct Cable: Sendable {
  let namespace: String
  /// Where this end is, seen from the other.
  let serverAddress: String
  /// Where the other end is, seen from here.
  let address: String

  static func lay() async throws -> Cable {
    let number = Int.random(in: 0..<(1 << 14))
    let network = "10.\(200 + number / 4096).\(number / 16 % 256)"
    let cable = Cable(
      namespace: "scitq-\(number)", serverAddress: "\(network).\(number % 16 * 16 + 1)",
      address: "\(network).\(number % 16 * 16 + 2)")
    let (near, far) = ("sq\(number)a", "sq\(number)b")
    try await run("ip", "netns", "add", cable.namespace)
    try await run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", cable.namespace)
    try await run("ip", "addr", "add", "\(cable.serverAddress)/28", "dev", near)
    try await run("ip", "link", "set", near, "up")
    try await run("ip", "-n", cable.namespace, "addr", "add", "\(cable.address)/28", "dev", far)
    try await run("ip", "-n", cable.namespace, "link", "set", far, "up")
    try await run("ip", "-n", cable.namespace, "link", "set", "lo", "up")
    // All of this machine's addresses can be reached, those of other cables among them.
    try await run("ip", "-n", cable.namespace, "route", "add", "default", "via", cable.serverAddress)
    return cable
  }

  func cut() async throws {
    for chain in ["INPUT", "OUTPUT"] { try await inside("iptables", "-A", chain, "-j", "DROP") }
  }

  func mend() async throws { try await inside("iptables", "-F") }

  func remove() async { try? await Self.run("ip", "netns", "del", namespace) }

  private func inside(_ arguments: String...) async throws {
    try await Program.run(["ip", "netns", "exec", namespace] + arguments)
  }

  /// What runs at the other end.
  func processes() async throws -> [pid_t] {
    try await Program.run(["ip", "netns", "pids", namespace]).split(separator: "\n").compactMap { pid_t($0) }
  }

  private static func run(_ arguments: String...) async throws { try await Program.run(arguments) }
}
