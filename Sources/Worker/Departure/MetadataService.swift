import NIOCore
import NIOHTTP1
import NIOPosix
package import ScitqProtocol

/// The HTTP/1.1 service by which a cloud tells a host about itself: one connection a question.
///
/// No question harms who asks: each has a deadline, an answer has a largest size, and whatever goes wrong is
/// no answer.
package struct MetadataService: Sendable, Hashable {
  package struct Reply: Sendable, Hashable {
    package var status: Int
    package var body: String

    package init(status: Int, body: String) {
      self.status = status
      self.body = body
    }
  }

  package var address: ServerAddress
  /// From the question to the last byte of the answer.
  package var deadline: Duration

  package init(_ address: ServerAddress, deadline: Duration = .seconds(2)) {
    self.address = address
    self.deadline = deadline
  }

  /// `HOST`, `HOST:PORT` or `[V6]:PORT`; nil: it is none of these. Without a port it is HTTP's own.
  package init?(_ text: String) {
    guard var address = ServerAddress(text) else { return nil }
    let hasPort = text.hasPrefix("[") ? text.contains("]:") : text.contains(":")
    if !hasPort { address.port = 80 }
    self.init(address)
  }

  /// Where all three clouds have it: an address of the link, which no router passes on.
  package static let usual = MetadataService(ServerAddress(host: "169.254.169.254", port: 80))

  /// Nil where there is no whole answer within the deadline, or the task is canceled.
  package func get(_ path: String, _ headers: [(String, String)]) async -> Reply? {
    await ask(.GET, path, headers)
  }

  /// Puts nothing there; nil as with `get`.
  package func put(_ path: String, _ headers: [(String, String)]) async -> Reply? {
    await ask(.PUT, path, headers)
  }

  private func ask(_ method: HTTPMethod, _ path: String, _ headers: [(String, String)]) async -> Reply? {
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    // Fulfilled by whatever is first: the answer, the end of the connection, the deadline, a cancellation.
    let promise = loop.makePromise(of: Reply?.self)
    let limit = TimeAmount(deadline)
    let channel = ClientBootstrap(group: loop)
      .connectTimeout(limit)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHTTPClientHandlers(leftOverBytesStrategy: .dropBytes)
          try channel.pipeline.syncOperations.addHandler(MetadataReply(promise))
        }
      }
      .connect(host: address.host, port: address.port)
    let alarm = loop.scheduleTask(in: limit) { promise.succeed(nil) }
    promise.futureResult.whenComplete { _ in
      alarm.cancel()
      channel.whenSuccess { $0.close(promise: nil) }
    }
    var fields = HTTPHeaders(headers)
    fields.add(name: "Host", value: address.host)
    fields.add(name: "Connection", value: "close")
    if method == .PUT { fields.add(name: "Content-Length", value: "0") }
    let head = HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: fields)
    channel.whenFailure { _ in promise.succeed(nil) }
    channel.whenSuccess { channel in
      channel.write(HTTPClientRequestPart.head(head), promise: nil)
      channel.writeAndFlush(HTTPClientRequestPart.end(nil)).whenFailure { _ in promise.succeed(nil) }
    }
    return await withTaskCancellationHandler {
      try? await promise.futureResult.get()
    } onCancel: {
      promise.succeed(nil)
    }
  }
}

/// Gathers one answer; the end of the connection before it is no answer.
private final class MetadataReply: ChannelInboundHandler {
  typealias InboundIn = HTTPClientResponsePart

  /// What these services say is a line or a few events.
  private static let largest = 1 << 18

  private let promise: EventLoopPromise<MetadataService.Reply?>
  private var status = 0
  private var body = ByteBuffer()

  init(_ promise: EventLoopPromise<MetadataService.Reply?>) { self.promise = promise }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): status = Int(head.status.code)
    case .body(var part):
      body.writeBuffer(&part)
      if body.readableBytes > Self.largest { promise.succeed(nil) }
    case .end:
      // 1xx announces another answer.
      guard status >= 200 else { return }
      promise.succeed(.init(status: status, body: String(buffer: body)))
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { promise.succeed(nil) }

  func channelInactive(context: ChannelHandlerContext) {
    promise.succeed(nil)
    context.fireChannelInactive()
  }
}
