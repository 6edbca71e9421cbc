package import NIOCore

/// Takes frames out of bytes as they arrive. A value, so that a test can feed it byte by byte.
package struct FrameDecoder: Sendable {
  /// Grows to `Frame.maximumLength` once the peer is known.
  package var maximumLength: Int

  package init(maximumLength: Int) { self.maximumLength = maximumLength }

  /// The next whole frame, or nil until more bytes arrive. A header is judged as soon as it is there, so a
  /// frame that is too long is refused before any of its payload is kept.
  package func next(from buffer: inout ByteBuffer) throws(FrameError) -> Frame? {
    let start = buffer.readerIndex
    guard let length: UInt32 = buffer.getInteger(at: start) else { return nil }
    guard length >= 8 else { throw .tooShort(length: length) }
    guard Int(length) <= maximumLength else { throw .tooLong(length: length, maximum: maximumLength) }
    guard buffer.readableBytes >= Frame.headerLength,
      let kindByte: UInt8 = buffer.getInteger(at: start + 4),
      let flags: UInt8 = buffer.getInteger(at: start + 5),
      let method: UInt16 = buffer.getInteger(at: start + 6),
      let stream: UInt32 = buffer.getInteger(at: start + 8)
    else { return nil }
    guard let kind = FrameKind(rawValue: kindByte) else { throw .unknownKind(kindByte) }
    guard flags & ~1 == 0 else { throw .unknownFlags(flags) }
    guard buffer.readableBytes >= 4 + Int(length) else { return nil }
    buffer.moveReaderIndex(forwardBy: Frame.headerLength)
    var payload = buffer.readBytes(length: Int(length) - 8) ?? []
    if flags & 1 != 0 {
      guard let inflated = Deflate.inflate(payload, limit: maximumLength) else { throw .badDeflation }
      payload = inflated
    }
    return Frame(kind, method: method, stream: stream, payload: payload)
  }
}

package enum FrameEncoder {
  /// Payloads from this size on are deflated where the peer is on another machine.
  static let deflateFrom = 16 << 10

  package static func write(_ frame: Frame, into buffer: inout ByteBuffer, deflate: Bool) {
    var flags: UInt8 = 0
    var payload = frame.payload
    if deflate, payload.count >= deflateFrom, let deflated = Deflate.deflate(payload),
      deflated.count < payload.count
    {
      payload = deflated
      flags = 1
    }
    buffer.reserveCapacity(minimumWritableBytes: Frame.headerLength + payload.count)
    buffer.writeInteger(UInt32(8 + payload.count))
    buffer.writeInteger(frame.kind.rawValue)
    buffer.writeInteger(flags)
    buffer.writeInteger(frame.method)
    buffer.writeInteger(frame.stream)
    buffer.writeBytes(payload)
  }
}
