/// What a frame is for.
public enum FrameKind: UInt8, CaseIterable, Sendable {
  case hello = 1
  case welcome, request, response, error, push, chunk, end, cancel, ping, pong
  /// The receiver of a stream has used up so many bytes of it: the payload is that number, four bytes.
  case window
}

/// The unit of the wire: a header of twelve bytes, big-endian, and a payload.
///
/// ```
/// 0        4      5      6        8            12
/// │ length │ kind │flags │ method │ stream id  │ payload …
/// ```
/// `length` counts what follows it: 8 and the payload.
public struct Frame: Sendable, Equatable {
  public static let headerLength = 12
  /// The longest frame, counted as `length` counts.
  public static let maximumLength = 16 << 20
  /// The longest frame before the peer has said who it is.
  public static let maximumLengthBeforeHello = 64 << 10

  public var kind: FrameKind
  public var method: UInt16
  public var stream: UInt32
  /// As the message was encoded: never deflated here.
  public var payload: [UInt8]

  public init(_ kind: FrameKind, method: UInt16 = 0, stream: UInt32 = 0, payload: [UInt8] = []) {
    self.kind = kind
    self.method = method
    self.stream = stream
    self.payload = payload
  }
}

/// Bytes that are no frame. Each case's description is the sentence sent back before the connection ends.
public enum FrameError: Error, Equatable, Sendable, CustomStringConvertible {
  case tooLong(length: UInt32, maximum: Int)
  case tooShort(length: UInt32)
  case unknownKind(UInt8)
  case unknownFlags(UInt8)
  case badDeflation
  case unexpected(FrameKind)

  public var description: String {
    switch self {
    case .tooLong(let length, let maximum):
      "frame of \(length) bytes: at most \(maximum) are taken here"
    case .tooShort(let length):
      "frame length \(length): a frame counts at least 8 bytes after its length"
    case .unknownKind(let kind): "unknown frame kind \(kind)"
    case .unknownFlags(let flags): "unknown frame flags \(flags): only bit 0 (deflated) is known"
    case .badDeflation: "a deflated payload does not inflate, or to more than a frame may hold"
    case .unexpected(let kind): "a \(kind) frame has no meaning here"
    }
  }
}
