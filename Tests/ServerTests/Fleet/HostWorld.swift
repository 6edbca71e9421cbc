import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// What tests of providers share: a folder, a server that hosts boot from, and what boots there.
///
/// The worker that hosts fetch is a script: it writes what it was started with to `joined` in its folder, and
/// its end to `KEY.said` beside its folder.
final class HostWorld: Sendable {
  let folder: FilePath
  let boot: BootScript
  private let server: Background

  static let support = FilePath(#filePath).removingLastComponent()

  /// - Parameter stubborn: the worker takes no notice of being asked to end.
  static func run(stubborn: Bool = false, _ body: (HostWorld) async throws -> Void) async throws {
    let world = try await HostWorld(stubborn: stubborn)
    do { try await body(world) } catch {
      await world.end()
      throw error
    }
    await world.end()
  }

  private init(stubborn: Bool) async throws {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    folder = FilePath(parent).appending("hosts-\(UUID().uuidString.prefix(8))")
    let home = folder.appending("boot").string
    try FileManager.default.createDirectory(
      atPath: home, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let worker = """
      #!/bin/sh
      said="$(dirname "$PWD")/$(basename "$PWD").said"
      trap 'echo asked >>"$said"; \(stubborn ? ":" : "exit 0")' TERM
      env >environment
      printf '%s\\n' "$*" >joined.part
      mv joined.part joined
      while :; do sleep 0.1; done

      """
    try worker.write(toFile: home + "/worker", atomically: true, encoding: .utf8)
    try "TICKET".write(toFile: home + "/ticket", atomically: true, encoding: .utf8)
    try await Self.call(
      "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
      "-days", "2",
      "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", home + "/key.pem",
      "-out",
      home + "/cert.pem")
    let sum = try await Self.call("sha256sum", home + "/worker")
    server = try await Background(
      "python3", [Self.support.appending("boot_server.py").string, home], in: folder)
    try await Self.until("the server that hosts boot from") {
      FileManager.default.fileExists(atPath: home + "/port")
    }
    boot = BootScript(
      server: "127.0.0.1:" + (try String(contentsOfFile: home + "/port", encoding: .utf8)),
      authority: try String(contentsOfFile: home + "/cert.pem", encoding: .utf8), authorityFingerprint: "f",
      ticket: "TICKET", sha256: String(sum.prefix(64)), name: "", concurrency: 2, prefetch: 1, installs: false
    )
  }

  private func end() async {
    await server.stop()
    for number in HostProcess.tree(naming: folder.string + "/") { kill(number, SIGKILL) }
    try? FileManager.default.removeItem(atPath: folder.string)
  }

  /// The order of a number, by the server `test` or another.
  func order(_ number: Int, of server: String = "test", _ flavor: Flavor) -> InstanceOrder {
    var boot = boot
    boot.name = "scitq-\(server)-\(number)"
    return InstanceOrder(key: boot.name, flavor: flavor, boot: boot, concurrency: 2)
  }

  /// What hosts have said, as `PHASE words` lines.
  var progress: String {
    (try? String(contentsOfFile: folder.appending("boot/progress").string, encoding: .utf8)) ?? ""
  }

  func contents(_ path: FilePath) -> String {
    (try? String(contentsOfFile: path.string, encoding: .utf8)) ?? ""
  }

  /// A program of the test's own, that can be run.
  func program(_ name: String, _ text: String) throws -> String {
    let path = folder.appending(name).string
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
    return path
  }

  @discardableResult
  static func call(_ arguments: String..., environment: [String: String] = [:]) async throws -> String {
    let answer = await ClientProgram(program: arguments[0], environment: environment).run(
      Array(arguments.dropFirst()))
    try #require(answer.isSuccess, "\(arguments): \(answer.error)")
    return answer.text
  }

  static func until(_ what: String, seconds: Double = 60, _ condition: () async throws -> Bool) async throws {
    let end = ContinuousClock.now.advanced(by: .seconds(seconds))
    while try await !condition() {
      try #require(ContinuousClock.now < end, "waited \(seconds) s for: \(what)")
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  /// Whether all of these are there to be run.
  static func has(_ programs: String...) -> Bool {
    let folders: [Substring] =
      (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") + ["/usr/sbin", "/sbin"]
    return programs.allSatisfy { program in
      folders.contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(program)") }
    }
  }

  /// The worker of a folder has come so far as to join.
  func joined(_ folder: FilePath) -> Bool {
    FileManager.default.fileExists(atPath: folder.appending("joined").string)
  }
}

/// A program that runs beside the test, in a session of its own and with no signals held back, as a daemon
/// has it.
struct Background: Sendable {
  let process: HostProcess

  init(_ program: String, _ arguments: [String], in folder: FilePath) async throws {
    let note = folder.appending("process-\(UUID().uuidString)")
    let script = #"""
      file=$1 && shift
      set -- "$(sed 's/^.*) //' "/proc/$$/stat" | cut -d' ' -f20)" "$@"
      echo "$$ $1" >"$file.part"
      mv "$file.part" "$file"
      shift
      exec "$@" >"$file.log" 2>&1 </dev/null
      """#
    let answer = await ClientProgram(program: "setsid")
      .run(["--fork", "sh", "-c", script, "sh", note.string, program] + arguments, deadline: .seconds(30))
    try #require(answer.isSuccess, "\(program): \(answer.error)")
    try await HostWorld.until("\(program) starts") { HostProcess(at: note) != nil }
    process = try #require(HostProcess(at: note))
  }

  func stop() async {
    guard process.runs else { return }
    kill(process.number, SIGTERM)
    let end = ContinuousClock.now.advanced(by: .seconds(10))
    while process.runs, ContinuousClock.now < end { try? await Task.sleep(for: .milliseconds(20)) }
    if process.runs { kill(process.number, SIGKILL) }
  }
}

/// The class of the failure with which something ends; nil: it did not fail.
func failure(_ body: () async throws -> Void) async -> ProviderError? {
  do { try await body() } catch { return error as? ProviderError }
  return nil
}
