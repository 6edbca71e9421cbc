import NIOCore
import NIOEmbedded
import SwiftProtobuf
import Testing

@testable import ScitqProtocol

@Suite("Frames")
struct FrameTests {
  static func bytes(_ frame: Frame, deflate: Bool = false) -> ByteBuffer {
    var buffer = ByteBuffer()
    FrameEncoder.write(frame, into: &buffer, deflate: deflate)
    return buffer
  }

  @Test("the bytes of a frame are those of docs/protocol.md")
  func example() {
    let buffer = Self.bytes(
      Frame(.request, method: 23, stream: 7, payload: [0x08, 0x2A, 0x10, 0x03, 0x18, 0x01]))
    #expect(
      Array(buffer.readableBytesView) == [
        0x00, 0x00, 0x00, 0x0E, 0x03, 0x00, 0x00, 0x17, 0x00, 0x00, 0x00, 0x07, 0x08, 0x2A, 0x10, 0x03, 0x18,
        0x01,
      ])
  }

  @Test(
    "frames come out as they went in, however the bytes are cut", arguments: [1, 2, 3, 5, 7, 11, 64, 4096])
  func cuts(size: Int) throws {
    var random = Seeded()
    let frames = (0..<40).map { _ in Frame.random(&random) }
    var all = ByteBuffer()
    for frame in frames { FrameEncoder.write(frame, into: &all, deflate: Bool.random(using: &random)) }
    let decoder = FrameDecoder(maximumLength: Frame.maximumLength)
    var pending = ByteBuffer()
    var out: [Frame] = []
    while all.readableBytes > 0 {
      pending.writeImmutableBuffer(all.readSlice(length: min(size, all.readableBytes))!)
      while let frame = try decoder.next(from: &pending) { out.append(frame) }
    }
    #expect(out == frames, "\(random)")
    #expect(pending.readableBytes == 0)
  }

  @Test("a frame that is too long is refused when its first four bytes are there")
  func tooLong() {
    let decoder = FrameDecoder(maximumLength: Frame.maximumLengthBeforeHello)
    var buffer = ByteBuffer(integer: UInt32(2 << 30))
    #expect(throws: FrameError.tooLong(length: 2 << 30, maximum: 64 << 10)) {
      try decoder.next(from: &buffer)
    }
  }

  @Test("a length below eight, an unknown kind and unknown flags are refused, each by name")
  func refused() {
    let decoder = FrameDecoder(maximumLength: 1024)
    var short = ByteBuffer(integer: UInt32(7))
    #expect(throws: FrameError.tooShort(length: 7)) { try decoder.next(from: &short) }
    var kind = ByteBuffer(bytes: [0, 0, 0, 8, 99, 0, 0, 0, 0, 0, 0, 0])
    #expect(throws: FrameError.unknownKind(99)) { try decoder.next(from: &kind) }
    var flags = ByteBuffer(bytes: [0, 0, 0, 8, 3, 2, 0, 0, 0, 0, 0, 0])
    #expect(throws: FrameError.unknownFlags(2)) { try decoder.next(from: &flags) }
  }

  @Test("a payload that inflates to more than a frame may hold is refused")
  func bomb() {
    let bomb = Deflate.deflate([UInt8](repeating: 0, count: 32 << 20))!
    var buffer = ByteBuffer()
    buffer.writeInteger(UInt32(8 + bomb.count))
    buffer.writeBytes([FrameKind.chunk.rawValue, 1, 0, 0, 0, 0, 0, 1])
    buffer.writeBytes(bomb)
    let decoder = FrameDecoder(maximumLength: Frame.maximumLength)
    #expect(throws: FrameError.badDeflation) { try decoder.next(from: &buffer) }
  }

  @Test("random bytes give frames or a refusal, and never more than they hold", arguments: 0..<200)
  func fuzz(round: Int) {
    var random = Seeded(round)
    let decoder = FrameDecoder(maximumLength: 4096)
    var buffer = ByteBuffer(
      bytes: (0..<Int.random(in: 0...512, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      })
    // A plausible beginning gets further than noise.
    if Bool.random(using: &random) { buffer.setInteger(UInt32.random(in: 0...64, using: &random), at: 0) }
    let before = buffer.readableBytes
    var taken = 0
    while let frame = try? decoder.next(from: &buffer) { taken += Frame.headerLength + frame.payload.count }
    #expect(taken <= before * 4096, "\(random)")
  }

  @Test("the handler answers bytes that are no frame with an error frame, then closes")
  func handler() throws {
    let channel = EmbeddedChannel(handler: FrameHandler(maximumLength: 1024, deflate: false))
    try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    #expect(throws: FrameError.self) {
      try channel.writeInbound(ByteBuffer(bytes: [0xFF, 0xFF, 0xFF, 0xFF]))
      try channel.throwIfErrorCaught()
    }
    var answer = try #require(try channel.readOutbound(as: ByteBuffer.self))
    let frame = try #require(try FrameDecoder(maximumLength: 1024).next(from: &answer))
    #expect(frame.kind == .error)
    let failure = try WireFailure(serializedBytes: frame.payload)
    #expect(failure.message.contains("4294967295"))
    channel.embeddedEventLoop.run()
    #expect(!channel.isActive)
  }
}

extension Frame {
  static func random(_ random: inout Seeded) -> Frame {
    Frame(
      FrameKind.allCases.randomElement(using: &random)!, method: .random(in: 0...UInt16.max, using: &random),
      stream: .random(in: 0...UInt32.max, using: &random),
      payload: (0..<Int.random(in: 0...40_000, using: &random)).map { UInt8(truncatingIfNeeded: $0 / 7) })
  }
}

/// A generator that says its seed, and takes it back from SCITQ_SEED.
struct Seeded: RandomNumberGenerator, CustomStringConvertible {
  private let seed: UInt64
  private var state: UInt64

  init(_ round: Int = 0) {
    let given = Seed.given
    seed = given ?? UInt64.random(in: 0...UInt64.max)
    state = seed &+ UInt64(round) &* 0x9E37_79B9_7F4A_7C15
  }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  var description: String { "SCITQ_SEED=\(seed)" }
}
