import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Speaks HTTP/1.1 to rclone over its private unix socket: one connection a call.
struct RcloneSocket: Sendable {
  let path: String
  /// The value of the `Authorization` header.
  let authorization: String

  struct Reply: Sendable {
    var status: Int
    var body: ByteBuffer
  }

  /// The connection could not be made or ended before the answer: rclone is gone.
  struct Gone: Error {}

  /// Posts one call and waits for its answer. With a `group`, cancelling the task stops the jobs of that group,
  /// and this returns when rclone has answered: what it was doing has ended then.
  func post(_ method: String, body: [UInt8], group: String?) async throws(Gone) -> Reply {
    let future = send(method, body: body)
    let stopping = Mutex<RepeatedTask?>(nil)
    let reply = await withTaskCancellationHandler {
      await Self.result(of: future.reply)
    } onCancel: {
      guard let group else {
        future.close()
        return
      }
      // Asked again until the call answers: the job may not have been registered yet at the first time.
      let stop = Array(#"{"group":"\#(group)"}"#.utf8)
      let repeated = future.reply.eventLoop.scheduleRepeatedTask(
        initialDelay: .zero, delay: .milliseconds(100)
      ) { _ in
        _ = send("job/stopgroup", body: stop)
      }
      stopping.withLock { $0 = repeated }
      future.reply.whenComplete { _ in repeated.cancel() }
      // A job that will not stop loses its connection, which ends its context within rclone.
      let closing = future.reply.eventLoop.scheduleTask(in: .seconds(10)) { future.close() }
      future.reply.whenComplete { _ in closing.cancel() }
    }
    stopping.withLock { $0?.cancel() }
    switch reply {
    case .success(let reply): return reply
    case .failure: throw Gone()
    }
  }

  private static func result(of future: EventLoopFuture<Reply>) async -> Result<Reply, any Error> {
    do { return .success(try await future.get()) } catch { return .failure(error) }
  }

  private struct Pending: Sendable {
    var reply: EventLoopFuture<Reply>
    var channel: EventLoopFuture<any Channel>
    func close() { channel.whenSuccess { $0.close(promise: nil) } }
  }

  private func send(_ method: String, body: [UInt8]) -> Pending {
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    let promise = loop.makePromise(of: Reply.self)
    let channel = ClientBootstrap(group: loop)
      .connectTimeout(.seconds(10))
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHTTPClientHandlers(leftOverBytesStrategy: .dropBytes)
          try channel.pipeline.syncOperations.addHandler(ReplyCollector(promise: promise))
        }
      }
      .connect(unixDomainSocketPath: path)
    let head = HTTPRequestHead(
      version: .http1_1, method: .POST, uri: "/" + method,
      headers: [
        "Host": "rclone", "Content-Type": "application/json", "Content-Length": String(body.count),
        "Authorization": authorization, "Connection": "close",
      ])
    channel.whenFailure { promise.fail($0) }
    channel.whenSuccess { channel in
      channel.write(HTTPClientRequestPart.head(head), promise: nil)
      channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
      channel.writeAndFlush(HTTPClientRequestPart.end(nil)).whenFailure { _ in channel.close(promise: nil) }
    }
    return Pending(reply: promise.futureResult, channel: channel)
  }
}

/// Gathers one answer and fulfils the promise once, also when the connection ends early.
private final class ReplyCollector: ChannelInboundHandler {
  typealias InboundIn = HTTPClientResponsePart

  private let promise: EventLoopPromise<RcloneSocket.Reply>
  private var reply: RcloneSocket.Reply?
  private var isDone = false

  init(promise: EventLoopPromise<RcloneSocket.Reply>) { self.promise = promise }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      // 1xx answers announce another one.
      if head.status.code >= 200 { reply = .init(status: Int(head.status.code), body: ByteBuffer()) }
    case .body(var part):
      reply?.body.writeBuffer(&part)
    case .end:
      guard let reply, !isDone else { return }
      isDone = true
      promise.succeed(reply)
      context.close(promise: nil)
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    finish(error)
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    finish(RcloneSocket.Gone())
    context.fireChannelInactive()
  }

  private func finish(_ error: any Error) {
    guard !isDone else { return }
    isDone = true
    promise.fail(error)
  }
}
