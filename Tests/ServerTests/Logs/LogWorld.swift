import Foundation
import Logging
import NIOPosix
import ScitqProtocol
import SystemPackage

@testable import ScitqServer

/// A folder of logs that can be opened again, and is gone afterwards.
final class LogWorld: Sendable {
  let path: String
  let pool: NIOThreadPool

  static func run<T>(_ body: (LogWorld) async throws -> T) async throws -> T {
    let path = "\(NSTemporaryDirectory())/scitq-logs-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    return try await run(at: path, body)
  }

  static func run<T>(at path: String, _ body: (LogWorld) async throws -> T) async throws -> T {
    let pool = NIOThreadPool(numberOfThreads: 4)
    pool.start()
    let world = LogWorld(path: path, pool: pool)
    let result: Result<T, any Error>
    do { result = .success(try await body(world)) } catch { result = .failure(error) }
    try await pool.shutdownGracefully()
    try? FileManager.default.removeItem(atPath: path)
    return try result.get()
  }

  private init(path: String, pool: NIOThreadPool) {
    self.path = path
    self.pool = pool
  }

  /// A store as a server makes it at its start.
  func store(maxBytes: Int64 = 1 << 30, compress: Bool = true, maxOpenFiles: Int = 256) -> LogStore {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return LogStore(
      directory: FilePath(path), maxBytes: maxBytes, compress: compress, maxOpenFiles: maxOpenFiles,
      threadPool: pool, logger: logger)
  }

  func file(_ task: TaskID, _ suffix: String) -> String {
    "\(path)/logs/\(task.rawValue / 1000)/\(task).\(suffix)"
  }
  func exists(_ task: TaskID, _ suffix: String) -> Bool {
    FileManager.default.fileExists(atPath: file(task, suffix))
  }
}

extension LogStore {
  func append(_ text: String, to task: TaskID, _ stream: LogStream = .out) async throws -> Int64 {
    let lengths = try await lengths(task: task)
    return await append(
      task: task, stream: stream, offset: stream == .out ? lengths.out : lengths.err, bytes: Array(text.utf8))
  }

  func text(_ task: TaskID, _ stream: LogStream? = nil, from position: LogPosition = LogPosition())
    async throws -> String
  {
    var bytes: [UInt8] = []
    for try await piece in merged(task: task, stream: stream, from: position) { bytes += piece.bytes }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// The same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
