import NIOCore
import NIOHTTP1
import NIOPosix
import ScitqProtocol

/// Looks at the first byte of a connection: hosts that boot have no more than an HTTP client, everybody else speaks in
/// frames, which begin with the high byte of their length, and none is long enough for that to be a letter.
final class Doorman: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer

  enum Visitor: Sendable {
    case session(NIOAsyncChannel<Frame, Never>)
    case boot(NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>)
  }

  private let deflate: Bool
  private let visitor: EventLoopPromise<Visitor>
  private var early: [NIOAny] = []
  private var patience: Scheduled<Void>?
  private var hasDecided = false

  /// Who says nothing for so long is sent away.
  private static let patience = TimeAmount.seconds(15)
  /// Nor does a host that boots stay that neither says anything nor takes what it asked for.
  private static let longestSilence = TimeAmount.seconds(60)

  init(deflate: Bool, visitor: EventLoopPromise<Visitor>) {
    self.deflate = deflate
    self.visitor = visitor
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let channel = context.channel
    patience = context.eventLoop.scheduleTask(in: Self.patience) { channel.close(promise: nil) }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    early.append(data)
    guard !hasDecided,
      let first = unwrapInboundIn(data).getInteger(at: unwrapInboundIn(data).readerIndex, as: UInt8.self)
    else { return }
    hasDecided = true
    patience?.cancel()
    do {
      let pipeline = context.pipeline.syncOperations
      let found: Visitor
      if first >= UInt8(ascii: "A"), first <= UInt8(ascii: "Z") {
        try pipeline.addHandlers(IdleStateHandler(allTimeout: Self.longestSilence), IdleCloser())
        try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
        found = .boot(try NIOAsyncChannel(wrappingChannelSynchronously: context.channel))
      } else {
        try pipeline.addHandler(
          FrameHandler(maximumLength: Frame.maximumLengthBeforeHello, deflate: deflate))
        found = .session(try NIOAsyncChannel(wrappingChannelSynchronously: context.channel))
      }
      visitor.succeed(found)
      for data in early { context.fireChannelRead(data) }
      early = []
      context.fireChannelReadComplete()
      pipeline.removeHandler(self, promise: nil)
    } catch {
      visitor.fail(error)
      context.close(promise: nil)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    leave()
    context.close(promise: nil)
  }

  private func leave() {
    patience?.cancel()
    guard !hasDecided else { return }
    hasDecided = true
    visitor.fail(ChannelError.eof)
  }
}

/// Ends connections on which nothing happens.
private final class IdleCloser: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if event is IdleStateHandler.IdleStateEvent { return context.close(promise: nil) }
    context.fireUserInboundEventTriggered(event)
  }
}
