import ScitqProtocol
import Subprocess
import Synchronization

/// What a container prints, read from the engine's own log of it.
///
/// Nothing is read before somebody asks for it, and at most half a MiB is read ahead of the reader. Its one task ends
/// with the log, with the reader's cancellation, or when nobody holds this any longer.
final class ContainerOutput: Sendable {
  private let pieces = Pieces()
  private let work: Mutex<Task<Void, Never>?> = Mutex(nil)
  private let read: @Sendable (Pieces) async -> Void

  init(read: @escaping @Sendable (Pieces) async -> Void) { self.read = read }

  deinit {
    work.withLock { $0 }?.cancel()
    pieces.finish()
  }

  func next() async throws -> OutputChunk? {
    work.withLock { work in
      if work == nil { work = Task { [pieces, read] in await read(pieces) } }
    }
    return try await withTaskCancellationHandler {
      try await pieces.next()
    } onCancel: {
      work.withLock { $0 }?.cancel()
      pieces.finish(throwing: CancellationError())
    }
  }

  /// Chunks between a reader of logs and a reader of chunks.
  final class Pieces: Sendable {
    private struct State {
      var chunks: [OutputChunk] = []
      var size = 0
      var ended = false
      var failure: (any Error)?
      var reader: CheckedContinuation<Void, Never>?
      var writers: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())
    private static let limit = 512 << 10

    /// Waits until there is room. Once finished, everything is dropped.
    func put(_ chunk: OutputChunk) async {
      while true {
        let (done, reader) = state.withLock { state -> (Bool, CheckedContinuation<Void, Never>?) in
          if state.ended { return (true, nil) }
          guard state.size < Self.limit else { return (false, nil) }
          state.chunks.append(chunk)
          state.size += chunk.bytes.count
          return (true, state.reader.take())
        }
        reader?.resume()
        if done { return }
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
          let waits = state.withLock { state -> Bool in
            guard state.size >= Self.limit, !state.ended else { return false }
            state.writers.append(continuation)
            return true
          }
          if !waits { continuation.resume() }
        }
      }
    }

    func finish(throwing error: (any Error)? = nil) {
      let woken = state.withLock { state -> [CheckedContinuation<Void, Never>] in
        guard !state.ended else { return [] }
        state.ended = true
        state.failure = error
        defer { state.writers = [] }
        return state.writers + (state.reader.take().map { [$0] } ?? [])
      }
      for continuation in woken { continuation.resume() }
    }

    func next() async throws -> OutputChunk? {
      while true {
        let (chunk, over, writers) = try state.withLock { state in
          guard !state.chunks.isEmpty else {
            if let failure = state.failure { throw failure }
            return (OutputChunk?.none, state.ended, [CheckedContinuation<Void, Never>]())
          }
          let chunk = state.chunks.removeFirst()
          state.size -= chunk.bytes.count
          defer { state.writers = [] }
          return (chunk, false, state.writers)
        }
        for writer in writers { writer.resume() }
        if let chunk { return chunk }
        if over { return nil }
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
          let waits = state.withLock { state -> Bool in
            guard state.chunks.isEmpty, !state.ended else { return false }
            state.reader = continuation
            return true
          }
          if !waits { continuation.resume() }
        }
      }
    }
  }
}

/// One reading of a container's log: drops what is known, hands on the rest.
struct LogReading: Sendable {
  var tool: ContainerTool
  var container: String

  struct End: Sendable {
    var offsets: LogOffsets
    /// The engine ended the log of itself; it did not go away in the middle.
    var orderly: Bool
    var message: String
  }

  /// Reads from the log's start, as engines number nothing, and skips up to `offsets`.
  func run(from offsets: LogOffsets, follow: Bool, into pieces: ContainerOutput.Pieces) async throws -> End {
    let arguments = ["logs"] + (follow ? ["--follow"] : []) + [container]
    let result = try await Subprocess.run(
      .name(tool.program), arguments: Arguments(arguments), input: .none, output: .sequence, error: .sequence
    ) { execution in
      async let out = read(execution.standardOutput, .out, from: offsets.out, suspicious: false, into: pieces)
      async let err = read(execution.standardError, .err, from: offsets.err, suspicious: true, into: pieces)
      return try await (out, err)
    }
    let (out, err) = result.closureResult
    let orderly = result.terminationStatus.isSuccess
    // The program says its own errors on the stream on which it passes on the container's.
    var reached = LogOffsets(out: out.offset, err: err.offset)
    if orderly, !err.held.isEmpty {
      await pieces.put(OutputChunk(stream: .err, offset: err.offset, bytes: err.held))
      reached.err += Int64(err.held.count)
    }
    return End(offsets: reached, orderly: orderly, message: String(decoding: err.held, as: UTF8.self))
  }

  private struct Reached: Sendable {
    var offset: Int64
    var held: [UInt8] = []
  }

  private func read(
    _ sequence: SubprocessOutputSequence, _ stream: OutputChunk.Stream, from known: Int64, suspicious: Bool,
    into pieces: ContainerOutput.Pieces
  ) async throws -> Reached {
    var skip = known
    var offset = known
    var held: [UInt8] = []
    for try await buffer in sequence {
      var bytes = buffer.withUnsafeBytes { Array($0) }
      if skip > 0 {
        let dropped = Int(min(skip, Int64(bytes.count)))
        skip -= Int64(dropped)
        bytes.removeFirst(dropped)
        if bytes.isEmpty { continue }
      }
      if !held.isEmpty {
        bytes = held + bytes
        held = []
      }
      if suspicious, let at = Self.ownWords(in: bytes) {
        held = Array(bytes[at...])
        bytes.removeLast(bytes.count - at)
      }
      var position = 0
      while position < bytes.count {
        let end = min(position + (256 << 10), bytes.count)
        await pieces.put(OutputChunk(stream: stream, offset: offset, bytes: Array(bytes[position..<end])))
        offset += Int64(end - position)
        position = end
      }
      try Task.checkCancellation()
    }
    return Reached(offset: offset, held: held)
  }

  /// Where the end of `bytes` may be the program's own error, which is its last word: kept back until it is known.
  static func ownWords(in bytes: [UInt8]) -> Int? {
    let from = max(0, bytes.count - 1024)
    let tail = bytes[from...]
    return ownWordings.compactMap { tail.firstRange(of: $0)?.lowerBound }.min()
  }

  private static let ownWordings: [[UInt8]] = [
    "unexpected EOF", "error during connect", "Error response from daemon", "Cannot connect to the",
    "error from daemon in stream", "Error grabbing logs", "read unix", "Error: ", "EOF\n", "connection reset",
  ].map { Array($0.utf8) }
}
