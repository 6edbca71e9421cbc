import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

/// A stand-in for a cloud's services: a python program beside this file, on a port of its own, with a folder
/// in which it tells what it has and is told how to behave.
final class CloudService: Sendable {
  let folder: URL
  private let process: Process

  /// Where a program is, by PATH; nil: nowhere.
  static func program(_ name: String) -> String? {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  static func folder() throws -> URL {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let folder = URL(filePath: parent).appending(path: "cloud-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    return folder
  }

  private init(_ script: String) throws {
    folder = try Self.folder()
    process = Process()
    process.executableURL = URL(filePath: try #require(Self.program("python3")))
    let program = URL(filePath: #filePath).deletingLastPathComponent().appending(path: script)
    process.arguments = [program.path, folder.path]
    process.standardInput = FileHandle.nullDevice
    try process.run()
  }

  /// Starts it, waits until it answers, and stops it when the body has ended, however it does.
  static func with(_ script: String, _ body: (CloudService) async throws -> Void) async throws {
    let standIn = try CloudService(script)
    do {
      let end = ContinuousClock.now + .seconds(30)
      while !FileManager.default.fileExists(atPath: standIn.folder.appending(path: "port").path) {
        try #require(standIn.process.isRunning && ContinuousClock.now < end, "\(script) does not start")
        try await Task.sleep(for: .milliseconds(50))
      }
      try await body(standIn)
    } catch {
      await standIn.end()
      throw error
    }
    await standIn.end()
  }

  private func end() async {
    // Not to be asked to end: it is started with the signals blocked that are blocked here.
    kill(process.processIdentifier, SIGKILL)
    while process.isRunning { try? await Task.sleep(for: .milliseconds(20)) }
    try? FileManager.default.removeItem(at: folder)
  }

  /// How it behaves from now on; "": well.
  func behave(_ mode: String) throws {
    try mode.write(to: folder.appending(path: "mode"), atomically: true, encoding: .utf8)
  }

  func text(_ file: String) throws -> String {
    try String(contentsOf: folder.appending(path: file), encoding: .utf8)
  }

  func rows<Row: Decodable>(_ file: String, as type: Row.Type) throws -> [Row] {
    try JSONDecoder().decode([Row].self, from: Data(contentsOf: folder.appending(path: file)))
  }

  /// What was asked of it, that begins so.
  func requests(_ beginning: String) throws -> Int {
    try text("requests").split(separator: "\n").count { $0.hasPrefix(beginning) }
  }
}

/// Clients that are no clients: a shell script in place of the real one.
struct RogueClient {
  let folder: URL
  let program: String

  init(_ script: String) throws {
    folder = try CloudService.folder()
    program = folder.appending(path: "client").path
    try "#!/bin/sh\n\(script)\n".write(toFile: program, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program)
  }

  func remove() { try? FileManager.default.removeItem(at: folder) }
}

extension InstanceOrder {
  static func test(_ key: String, _ flavor: String, region: String, isSpot: Bool = false) -> InstanceOrder {
    let boot = BootScript(
      server: "127.0.0.1:1", authority: "PEM", authorityFingerprint: "ab", ticket: "the-ticket", sha256: "cd",
      name: key,
      concurrency: 1, prefetch: 1, installs: true)
    return InstanceOrder(
      key: key,
      flavor: Flavor(provider: "x.y", region: region, name: flavor, cpu: 2, memory: 8, isSpot: isSpot),
      boot: boot,
      concurrency: 1)
  }
}

/// The error that a provider throws.
func failure(of body: () async throws(ProviderError) -> Void) async throws -> ProviderError {
  do throws(ProviderError) { try await body() } catch { return error }
  throw CancellationError()
}
