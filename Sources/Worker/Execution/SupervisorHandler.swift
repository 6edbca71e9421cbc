import NIOCore
import ScitqProtocol

/// Hands bytes to the link. Lives on its channel's event loop.
final class SupervisorHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let link: SupervisorLink
  private var welcome: EventLoopPromise<UInt64>?
  private var buffer = ByteBuffer()

  init(link: SupervisorLink, welcome: EventLoopPromise<UInt64>) {
    self.link = link
    self.welcome = welcome
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if buffer.readableBytes == 0 { swap(&buffer, &bytes) } else { buffer.writeBuffer(&bytes) }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if let welcome {
      guard let identity = greeting() else { return }
      guard identity != 0 else {
        welcome.fail(
          ExecutionFailure(.engine, "the supervisor is of another version: let its tasks end, then try again")
        )
        self.welcome = nil
        return context.close(promise: nil)
      }
      link.welcomed(context.channel, identity: identity)
      self.welcome = nil
      welcome.succeed(identity)
    }
    if !link.receive(&buffer) { context.close(promise: nil) }
    if buffer.readableBytes == 0 { buffer = ByteBuffer() } else { buffer.discardReadBytes() }
  }

  /// Zero: it is a stranger. Nil: it has not said everything.
  private func greeting() -> UInt64? {
    var done = 0
    defer { buffer.moveReaderIndex(forwardBy: done) }
    return buffer.withUnsafeReadableBytes { bytes in
      switch SupervisorFrame.next(in: bytes) {
      case .incomplete: return nil
      case .broken: return 0
      case .frame(let kind, _, var payload, let length):
        done = length
        let version: UInt32 = payload.get()
        let identity: UInt64 = payload.get()
        return kind == .welcome && version == SupervisorFrame.version && !payload.broken ? identity : 0
      }
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    welcome?.fail(ChannelError.eof)
    welcome = nil
    link.lost(context.channel)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
