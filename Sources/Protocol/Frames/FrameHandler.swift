package import NIOCore
import SwiftProtobuf

/// Bytes to frames and back in a channel's pipeline.
///
/// Bytes that are no frame are answered with an error frame that says why, and the connection ends: after a wrong
/// length nothing that follows can be trusted to be a frame.
package final class FrameHandler: ChannelDuplexHandler {
  package typealias InboundIn = ByteBuffer
  package typealias InboundOut = Frame
  package typealias OutboundIn = Frame
  package typealias OutboundOut = ByteBuffer

  /// Sent through the pipeline once the peer has said who it is.
  package struct PeerIsKnown: Sendable {
    package init() {}
  }

  private var decoder: FrameDecoder
  private var pending = ByteBuffer()
  private var outgoing = ByteBuffer()
  private let deflate: Bool
  private var broken = false

  package init(maximumLength: Int, deflate: Bool) {
    decoder = FrameDecoder(maximumLength: maximumLength)
    self.deflate = deflate
  }

  package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !broken else { return }
    var bytes = unwrapInboundIn(data)
    if pending.readableBytes == 0 { pending = bytes } else { pending.writeBuffer(&bytes) }
    do throws(FrameError) {
      while let frame = try decoder.next(from: &pending) {
        context.fireChannelRead(wrapInboundOut(frame))
        // A handler may have closed the channel while it looked at the frame.
        if broken { return }
      }
    } catch {
      refuse(context, error)
      return
    }
    pending.discardReadBytes()
  }

  private func refuse(_ context: ChannelHandlerContext, _ error: FrameError) {
    broken = true
    pending.clear()
    let failure = CallError(.invalid, error.description).wire
    let frame = Frame(.error, payload: (try? failure.serializedBytes()) ?? [])
    let loopBound = NIOLoopBound(context, eventLoop: context.eventLoop)
    var buffer = context.channel.allocator.buffer(capacity: 256)
    FrameEncoder.write(frame, into: &buffer, deflate: false)
    context.writeAndFlush(wrapOutboundOut(buffer)).whenComplete { _ in
      loopBound.value.close(promise: nil)
    }
    context.fireErrorCaught(error)
  }

  package func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    let frame = unwrapOutboundIn(data)
    // Small frames that are written before a flush leave in one piece: one TLS record, one system call.
    FrameEncoder.write(frame, into: &outgoing, deflate: deflate)
    if promise != nil || outgoing.readableBytes >= 64 << 10 { flushOutgoing(context, promise) }
  }

  package func flush(context: ChannelHandlerContext) {
    flushOutgoing(context, nil)
    context.flush()
  }

  private func flushOutgoing(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
    guard outgoing.readableBytes > 0 else { return }
    let buffer = outgoing
    outgoing = context.channel.allocator.buffer(capacity: 4096)
    context.write(wrapOutboundOut(buffer), promise: promise)
  }

  package func triggerUserOutboundEvent(
    context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?
  ) {
    if event is PeerIsKnown {
      decoder.maximumLength = Frame.maximumLength
      promise?.succeed()
    } else {
      context.triggerUserOutboundEvent(event, promise: promise)
    }
  }
}
