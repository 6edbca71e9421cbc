import Foundation
import ScitqProtocol
import SystemPackage

@testable import ScitqServer

/// A stand-in for a cloud, in a process of its own: `ec2_front.py`, `gce.py`. What it is told and what it tells are
/// lines on its standard input and output; when its input ends, it does.
actor CloudStandIn {
  nonisolated let endpoint: String
  /// For files of the test, gone afterwards.
  nonisolated let folder: FilePath
  private let process: Process
  private let input: FileHandle
  private let output: FileHandle
  private var rest = Data()

  struct Trouble: Error, CustomStringConvertible {
    var description: String
  }

  /// Whether a program is there to be tested with.
  static func has(_ programs: String...) -> Bool {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    return programs.allSatisfy { program in
      folders.contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(program)") }
    }
  }

  static func run(_ script: String, _ body: (CloudStandIn) async throws -> Void) async throws {
    let cloud = try CloudStandIn(script)
    let result: Result<Void, any Error>
    do { result = .success(try await body(cloud)) } catch { result = .failure(error) }
    await cloud.end()
    try result.get()
  }

  private init(_ script: String) throws {
    let here = URL(filePath: #filePath).deletingLastPathComponent()
    folder = FilePath("\(NSTemporaryDirectory())/scitq-cloud-\(UUID().uuidString)")
    try FileManager.default.createDirectory(atPath: folder.string, withIntermediateDirectories: true)
    let (asked, told) = (Pipe(), Pipe())
    process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["python3", here.appending(path: script).path]
    process.standardInput = asked
    process.standardOutput = told
    input = asked.fileHandleForWriting
    output = told.fileHandleForReading
    try process.run()
    var data = Data()
    while !data.contains(10) {
      let more = output.availableData
      guard !more.isEmpty else { throw Trouble(description: "\(script) ended at its start") }
      data += more
    }
    let port = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    endpoint = "http://127.0.0.1:\(port)"
  }

  /// Tells it something; gives what it says to that.
  @discardableResult
  func tell(_ command: [String: Any]) throws -> [[String: String]] {
    try input.write(contentsOf: JSONSerialization.data(withJSONObject: command) + [10])
    while !rest.contains(10) {
      let more = output.availableData
      guard !more.isEmpty else { throw Trouble(description: "the stand-in has ended") }
      rest += more
    }
    let end = rest.firstIndex(of: 10) ?? rest.endIndex
    let line = Data(rest[..<end])
    rest = Data(rest[(end + 1)...])
    return try JSONDecoder().decode([[String: String]].self, from: line)
  }

  func refuse(_ call: String, _ status: Int, _ code: String, _ message: String) throws {
    try tell(["do": "refuse", "call": call, "status": status, "code": code, "message": message])
  }

  /// The calls since the last time it was asked.
  func seen() throws -> [[String: String]] { try tell(["do": "seen"]) }

  /// A program in the place of the real client.
  nonisolated func client(_ text: String) throws -> String {
    let path = "\(folder)/client-\(UUID().uuidString)"
    try Data("#!/bin/sh\n\(text)\n".utf8).write(to: URL(filePath: path))
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
    return path
  }

  private func end() async {
    try? input.close()
    for _ in 0..<200 where process.isRunning { try? await Task.sleep(for: .milliseconds(50)) }
    if process.isRunning { process.terminate() }
    try? FileManager.default.removeItem(atPath: folder.string)
  }

  /// What a host is to do when it boots, with signs that are easily lost on the way.
  static func boot(_ key: String) -> BootScript {
    BootScript(
      server: "scitq.example:50051", authority: "-----BEGIN CERTIFICATE-----\nüñ\n-----END CERTIFICATE-----",
      authorityFingerprint: "f00d", ticket: "ticket-$HOME-'\"\\-💧", sha256: "cafe", name: key, concurrency: 4,
      prefetch: 2, installs: true)
  }
}

/// What a provider refuses with; nil: it did not.
func refusal(_ body: () async throws -> Void) async throws -> ProviderError? {
  do {
    try await body()
    return nil
  } catch let error as ProviderError {
    return error
  }
}
