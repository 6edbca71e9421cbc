import ScitqProtocol

/// What engine and supervisor say to each other over the unix socket of one host: length, kind, attempt, payload,
/// little-endian. The length counts what follows it.
enum SupervisorFrame {
  enum Kind: UInt8 {
    // From the engine.
    case hello = 1, start, attach, consumed, delivered, kill, remove, list, watch, pause, resume
    // From the supervisor.
    case welcome = 65, started, refused, attached, output, exited, gone, killed, held, paused, resumed
  }

  /// Grows when old and new can no longer understand each other.
  static let version: UInt32 = 1
  /// kind, task, assignment.
  static let headerSize = 17
  /// No frame is longer: a start carries the arguments and the environment, which the kernel bounds too.
  static let maximumLength = 64 << 20
  /// How much of a stream may be on its way to an engine that has not consumed it.
  static let window: Int64 = 256 << 10
  /// Output travels in pieces of at most this.
  static let chunk = 64 << 10
}

extension [UInt8] {
  mutating func put<T: FixedWidthInteger>(_ value: T) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  mutating func put(terminated text: String) {
    append(contentsOf: text.utf8)
    append(0)
  }

  /// Appends one frame, its payload written by `payload`.
  mutating func frame(
    _ kind: SupervisorFrame.Kind, _ attempt: AttemptID = AttemptID(task: 0, assignment: 0),
    payload: (inout [UInt8]) -> Void = { _ in }
  ) {
    let start = count
    put(UInt32(0))
    append(kind.rawValue)
    put(attempt.task.rawValue)
    put(attempt.assignment)
    payload(&self)
    let length = UInt32(count - start - 4)
    for i in 0..<4 { self[start + i] = UInt8(truncatingIfNeeded: length >> (8 * i)) }
  }
}

/// Reads a frame's fields in order. A field that is not there reads as zero and marks the reader as broken.
struct FrameReader {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0
  private(set) var broken = false

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  mutating func get<T: FixedWidthInteger>(_: T.Type = T.self) -> T {
    guard position + MemoryLayout<T>.size <= bytes.count else {
      broken = true
      return 0
    }
    defer { position += MemoryLayout<T>.size }
    return T(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: T.self))
  }

  mutating func attempt() -> AttemptID {
    let task: Int64 = get()
    return AttemptID(task: TaskID(task), assignment: get())
  }

  /// A pointer to a text with a zero at its end, within the frame.
  mutating func terminated() -> UnsafePointer<CChar>? {
    let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
    guard let end = rest.firstIndex(of: 0) else {
      broken = true
      return nil
    }
    position += end + 1
    return rest.baseAddress?.assumingMemoryBound(to: CChar.self)
  }

  mutating func rest() -> UnsafeRawBufferPointer {
    defer { position = bytes.count }
    return UnsafeRawBufferPointer(rebasing: bytes[position...])
  }
}

extension SupervisorFrame {
  enum Step {
    /// More bytes are needed.
    case incomplete
    /// The bytes are no frames.
    case broken
    /// One frame was read; so many bytes are done with.
    case frame(Kind, AttemptID, FrameReader, Int)
  }

  /// The first frame in `bytes`.
  static func next(in bytes: UnsafeRawBufferPointer) -> Step {
    guard bytes.count >= 4 else { return .incomplete }
    let length = Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
    guard length >= headerSize, length <= maximumLength else { return .broken }
    guard bytes.count >= 4 + length else { return .incomplete }
    var reader = FrameReader(UnsafeRawBufferPointer(rebasing: bytes[4..<(4 + length)]))
    guard let kind = Kind(rawValue: reader.get()) else { return .broken }
    let attempt = reader.attempt()
    return .frame(kind, attempt, reader, 4 + length)
  }
}
