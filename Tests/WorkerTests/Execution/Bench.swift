import Foundation
import Glibc
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

/// A store of its own, with folders for attempts, and what tests ask of any engine.
final class Bench: Sendable {
  let store: FilePath
  let storeID: String

  init(depth: Int = 0) throws {
    storeID = String(UUID().uuidString.replacingOccurrences(of: "-", with: "").lowercased())
    var path = FileManager.default.temporaryDirectory.appendingPathComponent("scitq-exec-\(storeID)").path
    for _ in 0..<depth { path += "/a-folder-with-a-name-of-forty-characters-" }
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    store = FilePath(path)
  }

  deinit {
    try? FileManager.default.removeItem(
      at: FileManager.default.temporaryDirectory.appendingPathComponent("scitq-exec-\(storeID)"))
  }

  /// The worker's own program, beside the tests' one, or where SCITQ_WORKER says.
  static let worker: FilePath = {
    if let named = ProcessInfo.processInfo.environment["SCITQ_WORKER"] { return FilePath(named) }
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return FilePath(own).removingLastComponent().appending("scitq-worker")
  }()

  func launch(
    _ task: Int64, _ command: String, shell: String = "", image: String = "busybox",
    environment: [String: String] = [:], options: [String] = [], memory: Int64 = 0, folders: Bool = true
  ) throws -> Launch {
    let root = store.appending("tasks/\(task)")
    let names = ["input", "output", "temp", "resource", "scripts"]
    if folders {
      for name in names {
        try FileManager.default.createDirectory(
          atPath: root.appending(name).string, withIntermediateDirectories: true)
      }
    }
    var needs = WireNeeds()
    needs.memoryBytes = memory
    return Launch(
      attempt: AttemptID(task: TaskID(task), assignment: 1), image: image, command: command, shell: shell,
      environment: environment, options: options, needs: needs,
      folders: .init(
        input: root.appending("input"), output: root.appending("output"), temp: root.appending("temp"),
        resource: root.appending("resource"), scripts: root.appending("scripts")))
  }

  func run(_ launch: Launch, on engine: any ExecutionEngine) async throws -> (
    Exit, out: [UInt8], err: [UInt8]
  ) {
    try await engine.prepare(launch)
    try await engine.create(launch)
    try await engine.start(launch)
    let (out, err) = try await Self.collect(engine.output(of: launch.attempt, from: LogOffsets()))
    let exit = try await engine.exit(of: launch.attempt)
    await engine.remove(launch.attempt)
    return (exit, out, err)
  }

  /// Everything a stream says; offsets must be without gap or overlap.
  static func collect(
    _ stream: AsyncThrowingStream<OutputChunk, any Error>, from offsets: LogOffsets = LogOffsets()
  ) async throws -> (out: [UInt8], err: [UInt8]) {
    var out: [UInt8] = []
    var err: [UInt8] = []
    for try await chunk in stream {
      #expect(chunk.bytes.count <= 256 << 10)
      switch chunk.stream {
      case .out:
        #expect(chunk.offset == offsets.out + Int64(out.count))
        out += chunk.bytes
      case .err:
        #expect(chunk.offset == offsets.err + Int64(err.count))
        err += chunk.bytes
      }
    }
    return (out, err)
  }

  /// Waits for a state, at most 20 seconds.
  static func eventually(_ condition: () async throws -> Bool) async rethrows -> Bool {
    let deadline = ContinuousClock.now + .seconds(20)
    while ContinuousClock.now < deadline {
      if try await condition() { return true }
      try? await Task.sleep(for: .milliseconds(10))
    }
    return false
  }

  static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  /// Processes whose environment names this store.
  func processes() -> [pid_t] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    let wanted = Array("\(Supervisor.marker)=\(store.string)".utf8)
    return entries.compactMap { pid_t($0) }.filter { pid in
      guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/environ") else { return false }
      return data.split(separator: 0).contains { Array($0) == wanted } && !Self.isZombie(pid)
    }
  }

  static func isZombie(_ pid: pid_t) -> Bool {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat"),
      let end = data.lastIndex(of: UInt8(ascii: ")")), end + 2 < data.endIndex
    else { return true }
    return data[end + 2] == UInt8(ascii: "Z")
  }

  /// The supervisor of this store.
  func supervisor() -> pid_t? {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { pid_t($0) }.first { pid in
      guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") else { return false }
      let words = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      return words.count >= 4 && words[1] == "supervise" && words[3] == store.string && !Self.isZombie(pid)
    }
  }

  /// Ends the supervisor and what it runs.
  func stop() async {
    for pid in processes() { kill(pid, SIGKILL) }
    if let pid = supervisor() { kill(pid, SIGKILL) }
    _ = await Self.eventually { self.supervisor() == nil }
    for pid in processes() { kill(pid, SIGKILL) }
  }
}

/// Runs the body with a bench that is cleared away afterwards, also when the body throws.
func withBench(depth: Int = 0, _ body: (Bench) async throws -> Void) async throws {
  let bench = try Bench(depth: depth)
  do {
    try await body(bench)
    await bench.stop()
  } catch {
    await bench.stop()
    throw error
  }
}
