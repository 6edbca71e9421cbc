import NIOCore
import NIOSSL
import SwiftProtobuf

/// The client's end of the conversation. Lives on its channel's event loop.
final class ClientHandler: ChannelInboundHandler {
  typealias InboundIn = Frame
  typealias OutboundOut = Frame

  enum Waiter {
    case single(CheckedContinuation<Result<[UInt8], CallError>, Never>, Credit?)
    case feed(AsyncThrowingStream<[UInt8], any Error>.Continuation)
  }

  /// A ping goes out when nothing came for so long; after three times that the connection counts as dead.
  private static let quiet = TimeAmount.seconds(10)

  private let greeting: WireHello
  private let welcomed: EventLoopPromise<WireWelcome>
  private let ended: EventLoopPromise<CallError?>
  private let onPush: @Sendable (Pushed) -> Void
  private var context: ChannelHandlerContext?
  private var waiters: [UInt32: Waiter] = [:]
  private var lastStream: UInt32 = 0
  private var isWelcome = false
  private var failure: CallError?
  private var flushIsDue = false
  private var heard = NIODeadline.now()
  private var pinging: RepeatedTask?

  init(
    greeting: WireHello, welcomed: EventLoopPromise<WireWelcome>, ended: EventLoopPromise<CallError?>,
    onPush: @escaping @Sendable (Pushed) -> Void
  ) {
    self.greeting = greeting
    self.welcomed = welcomed
    self.ended = ended
    self.onPush = onPush
  }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func channelActive(context: ChannelHandlerContext) {
    send(Frame(.hello, payload: (try? greeting.serializedBytes()) ?? []))
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    pinging = context.eventLoop.scheduleRepeatedTask(initialDelay: Self.quiet, delay: Self.quiet) { _ in
      bound.value.watch()
    }
    context.fireChannelActive()
  }

  private func watch() {
    let silence = NIODeadline.now() - heard
    if silence > Self.quiet + Self.quiet + Self.quiet {
      fail(CallError(.unavailable, "the server has been silent for \(silence.nanoseconds / 1_000_000_000) s"))
      context?.close(promise: nil)
    } else if silence >= Self.quiet {
      send(Frame(.ping))
    }
  }

  func open(_ waiter: Waiter, begin: (UInt32) -> Void) -> UInt32 {
    guard let context, context.channel.isActive else {
      settle(waiter, with: failure ?? CallError(.unavailable, "the connection is closed"))
      return 0
    }
    repeat { lastStream &+= 1 } while lastStream == 0 || waiters[lastStream] != nil
    waiters[lastStream] = waiter
    begin(lastStream)
    return lastStream
  }

  func send(_ frame: Frame) {
    guard let context else { return }
    context.write(wrapOutboundOut(frame), promise: nil)
    guard !flushIsDue else { return }
    flushIsDue = true
    // At the end of this turn of the loop, so that what is said together leaves together.
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.execute {
      bound.value.flushIsDue = false
      bound.value.context?.flush()
    }
  }

  func cancel(_ stream: UInt32, method: UInt16) {
    guard let waiter = waiters.removeValue(forKey: stream) else { return }
    send(Frame(.cancel, method: method, stream: stream))
    settle(waiter, with: CallError(.unavailable, "the call was canceled"))
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let frame = unwrapInboundIn(data)
    heard = .now()
    switch frame.kind {
    case .welcome:
      guard !isWelcome, let welcome = try? WireWelcome(serializedBytes: frame.payload) else {
        return leave(context, CallError(.internal, "the server's welcome does not parse"))
      }
      isWelcome = true
      welcomed.succeed(welcome)
    case .response:
      guard case .single(let continuation, let credit)? = waiters.removeValue(forKey: frame.stream) else {
        return
      }
      credit?.close()
      continuation.resume(returning: .success(frame.payload))
    case .error:
      let error =
        (try? WireFailure(serializedBytes: frame.payload)).map(CallError.init(wire:))
        ?? CallError(.internal, "the server sent an error that does not parse")
      if frame.stream == 0 {
        leave(context, error)
      } else if let waiter = waiters.removeValue(forKey: frame.stream) {
        settle(waiter, with: error)
      }
    case .chunk:
      if case .feed(let sink)? = waiters[frame.stream] { sink.yield(frame.payload) }
    case .end:
      if case .feed(let sink)? = waiters.removeValue(forKey: frame.stream) { sink.finish() }
    case .window:
      if case .single(_, let credit?)? = waiters[frame.stream], let count = Window.count(frame.payload) {
        credit.give(count)
      }
    case .push: push(frame)
    case .ping: send(Frame(.pong, stream: frame.stream))
    case .pong: break
    case .hello, .request, .cancel:
      leave(context, CallError(.internal, FrameError.unexpected(frame.kind).description))
    }
  }

  private func push(_ frame: Frame) {
    switch Method(rawValue: frame.method) {
    case .orders:
      if let message = try? WireOrders(serializedBytes: frame.payload) { onPush(.orders(message)) }
    case .revocations:
      if let message = try? WireRevocations(serializedBytes: frame.payload) { onPush(.revocations(message)) }
    case .settings:
      if let message = try? WireWorkerSettings(serializedBytes: frame.payload) { onPush(.settings(message)) }
    case .clean:
      if let message = try? WireClean(serializedBytes: frame.payload) { onPush(.clean(message)) }
    default: break  // A newer server may push what this client does not know.
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    leave(context, CallError(.unavailable, Connection.describe(error)))
  }

  func channelInactive(context: ChannelHandlerContext) {
    pinging?.cancel()
    let error = failure ?? CallError(.unavailable, "the server closed the connection")
    let open = waiters
    waiters = [:]
    for waiter in open.values { settle(waiter, with: error) }
    welcomed.fail(error)
    ended.succeed(failure ?? error)
    self.context = nil
    context.fireChannelInactive()
  }

  private func leave(_ context: ChannelHandlerContext, _ error: CallError) {
    fail(error)
    context.close(promise: nil)
  }

  private func fail(_ error: CallError) {
    if failure == nil { failure = error }
    welcomed.fail(error)
  }

  private func settle(_ waiter: Waiter, with error: CallError) {
    switch waiter {
    case .single(let continuation, let credit):
      credit?.close()
      continuation.resume(returning: .failure(error))
    case .feed(let sink): sink.finish(throwing: error)
    }
  }
}
