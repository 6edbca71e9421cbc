import NIOCore
import NIOPosix
import NIOSSL
import SwiftProtobuf
import Synchronization

/// A client's connection to a server: TLS 1.3, one conversation, many calls at once.
///
/// Frames are sent in the order in which calls were begun; answers may come in any order. A connection that ends
/// fails every open call with `unavailable` and is not mended: open another one.
public final class Connection: Sendable {
  /// What the server answered to hello.
  public let welcome: WireWelcome
  private let channel: any Channel
  private let handler: NIOLoopBound<ClientHandler>
  private let ended: EventLoopFuture<CallError?>

  /// The protocol this code speaks. Another major version is refused; minor versions add fields only.
  public static let major: UInt32 = 1
  public static let minor: UInt32 = 0
  /// The version of this software.
  public static let software = "scitq 0.1.0"

  private init(
    welcome: WireWelcome, channel: any Channel, handler: NIOLoopBound<ClientHandler>,
    ended: EventLoopFuture<CallError?>
  ) {
    self.welcome = welcome
    self.channel = channel
    self.handler = handler
    self.ended = ended
  }

  /// Connects, greets, and waits for the welcome.
  ///
  /// `onPush` is called in order of arrival on the connection's event loop and must not block.
  public static func open(
    to address: ServerAddress, trust: Trust, hello: WireHello, timeout: Duration = .seconds(15),
    onPush: @escaping @Sendable (Pushed) -> Void = { _ in }
  ) async throws(CallError) -> Connection {
    let context = try trust.clientContext()
    let group = MultiThreadedEventLoopGroup.singleton
    var hello = hello
    hello.major = major
    hello.minor = minor
    hello.software = software
    let greeting = hello
    let sni = isAddress(address.host) ? nil : address.host
    let loop = group.next()
    let welcomed = loop.makePromise(of: WireWelcome.self)
    let ended = loop.makePromise(of: CallError?.self)
    // Another machine's bytes are worth deflating; this machine's are not.
    let deflate = !(address.host == "localhost" || address.host == "::1" || address.host.hasPrefix("127."))
    do {
      let (channel, handler) = try await ClientBootstrap(group: loop)
        .connectTimeout(.nanoseconds(timeout.nanoseconds))
        .channelOption(.tcpOption(.tcp_nodelay), value: 1)
        .connect(host: address.host, port: address.port) { channel in
          channel.eventLoop.makeCompletedFuture {
            let handler = ClientHandler(
              greeting: greeting, welcomed: welcomed, ended: ended, onPush: onPush)
            let pipeline = channel.pipeline.syncOperations
            try pipeline.addHandler(NIOSSLClientHandler(context: context, serverHostname: sni))
            try pipeline.addHandler(FrameHandler(maximumLength: Frame.maximumLength, deflate: deflate))
            try pipeline.addHandler(handler)
            return (channel, NIOLoopBound(handler, eventLoop: channel.eventLoop))
          }
        }
      let limit = loop.scheduleTask(in: .nanoseconds(timeout.nanoseconds)) {
        welcomed.fail(CallError(.unavailable, "\(address) did not answer within \(timeout)"))
        channel.close(promise: nil)
      }
      defer { limit.cancel() }
      let welcome = try await welcomed.futureResult.get()
      return Connection(
        welcome: welcome, channel: channel, handler: handler, ended: ended.futureResult)
    } catch let error as CallError {
      throw error
    } catch {
      welcomed.fail(error)
      ended.succeed(nil)
      throw unreachable(address, error)
    }
  }

  static func unreachable(_ address: ServerAddress, _ error: any Error) -> CallError {
    if let error = error as? NIOConnectionError {
      let why = error.connectionErrors.first.map { "\($0.error)" } ?? error.dnsAError.map { "\($0)" } ?? ""
      return CallError(
        .unavailable,
        "dial tcp \(address): \(why.contains("refused") ? "connection refused" : why.isEmpty ? "no such host" : why)"
      )
    }
    return CallError(.unavailable, "dial tcp \(address): \(describe(error))")
  }

  static func describe(_ error: any Error) -> String {
    let text = "\(error)"
    if text.contains("CERTIFICATE_VERIFY_FAILED") || text.contains("unableToValidateCertificate") {
      return "the server's certificate is not signed by a trusted authority"
    }
    if text.contains("refused") { return "connection refused" }
    if text.contains("WRONG_VERSION_NUMBER") { return "what answers there does not speak TLS" }
    return text
  }

  private static func isAddress(_ host: String) -> Bool {
    (try? SocketAddress(ipAddress: host, port: 0)) != nil
  }

  /// One request and its answer. Canceling the task cancels the call at the server.
  public func call<Request, Response>(
    _ call: Call<Request, Response>, _ request: Request
  ) async throws(CallError) -> Response {
    let payload = try Self.encode(request)
    let bytes = try await single(method: call.method) { handler, stream in
      handler.send(Frame(.request, method: call.method.rawValue, stream: stream, payload: payload))
    }
    return try Self.decode(bytes)
  }

  /// A request and the items that follow it. Items are taken as the server uses them up.
  public func upload<Request, Item, Response>(
    _ upload: Upload<Request, Item, Response>, _ request: Request, items: some Sequence<Item> & Sendable
  ) async throws(CallError) -> Response {
    let payload = try Self.encode(request)
    let method = upload.method.rawValue
    let credit = Credit()
    let bytes: [UInt8]
    do {
      bytes = try await withThrowingTaskGroup(of: [UInt8]?.self) { group in
        let started = AsyncStream<UInt32>.makeStream()
        group.addTask {
          defer { credit.close() }
          return try await self.single(method: upload.method, credit: credit) { handler, stream in
            handler.send(Frame(.request, method: method, stream: stream, payload: payload))
            started.continuation.yield(stream)
            started.continuation.finish()
          }
        }
        group.addTask {
          for await stream in started.stream {
            for item in items {
              let bytes: [UInt8] = try Self.encode(item)
              guard await credit.take(bytes.count) else { return nil }
              self.send(Frame(.chunk, method: method, stream: stream, payload: bytes))
            }
            self.send(Frame(.end, method: method, stream: stream))
          }
          return nil
        }
        while let result = try await group.next() {
          if let result {
            group.cancelAll()
            return result
          }
        }
        throw CallError(.unavailable, "the connection ended before the answer")
      }
    } catch let error as CallError {
      throw error
    } catch {
      throw CallError(.internal, "\(error)")
    }
    return try Self.decode(bytes)
  }

  /// A request that is answered by a stream. Dropping the stream cancels it at the server; reading it slowly
  /// slows the server's side of this stream and nothing else.
  public func feed<Request, Item>(
    _ feed: Feed<Request, Item>, _ request: Request
  ) -> AsyncThrowingStream<Item, any Error> {
    let method = feed.method.rawValue
    let (raw, sink) = AsyncThrowingStream<[UInt8], any Error>.makeStream()
    let channel = channel
    let handler = handler
    let payload = Result { try Self.encode(request) }
    let loop = channel.eventLoop
    let stream = loop.flatSubmit { () -> EventLoopFuture<UInt32> in
      loop.makeCompletedFuture {
        let bytes = try payload.get()
        return handler.value.open(.feed(sink)) { stream in
          handler.value.send(Frame(.request, method: method, stream: stream, payload: bytes))
        }
      }
    }
    stream.whenFailure { sink.finish(throwing: $0) }
    sink.onTermination = { reason in
      guard case .cancelled = reason else { return }
      stream.whenSuccess { handler.value.cancel($0, method: method) }
    }
    let source = FeedSource(raw.makeAsyncIterator())
    return AsyncThrowingStream {
      guard let bytes = try await source.next() else { return nil }
      stream.whenSuccess { id in
        handler.value.send(
          Frame(.window, method: method, stream: id, payload: Window.payload(bytes.count)))
      }
      return try Item(serializedBytes: bytes)
    }
  }

  /// The stream of raw items behind a feed. `AsyncThrowingStream` calls its closure from one task at a time, which
  /// is what makes the one iterator safe to hold here.
  private final class FeedSource: @unchecked Sendable {
    private var iterator: AsyncThrowingStream<[UInt8], any Error>.AsyncIterator
    init(_ iterator: AsyncThrowingStream<[UInt8], any Error>.AsyncIterator) { self.iterator = iterator }
    func next() async throws -> [UInt8]? { try await iterator.next(isolation: nil) }
  }

  /// Ends the connection; open calls fail.
  public func close() async {
    _ = try? await channel.close().get()
  }

  /// Returns when the connection has ended: why, or nil where this side closed it.
  public func waitUntilClosed() async -> CallError? {
    (try? await ended.get()) ?? nil
  }

  private func send(_ frame: Frame) {
    let handler = handler
    channel.eventLoop.execute { handler.value.send(frame) }
  }

  private func single(
    method: Method, credit: Credit? = nil,
    begin: @escaping @Sendable (ClientHandler, UInt32) -> Void
  ) async throws(CallError) -> [UInt8] {
    let stream = Mutex<UInt32?>(nil)
    let handler = handler
    let loop = channel.eventLoop
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation {
        (continuation: CheckedContinuation<Result<[UInt8], CallError>, Never>) in
        loop.execute {
          let id = handler.value.open(.single(continuation, credit)) { begin(handler.value, $0) }
          stream.withLock { $0 = id }
        }
      }
    } onCancel: {
      loop.execute {
        if let id = stream.withLock({ $0 }) { handler.value.cancel(id, method: method.rawValue) }
      }
    }
    return try result.get()
  }

  static func encode(_ message: some Message) throws(CallError) -> [UInt8] {
    do {
      let bytes: [UInt8] = try message.serializedBytes()
      guard bytes.count + 8 <= Frame.maximumLength else {
        throw CallError(
          .invalid,
          "a message of \(bytes.count) bytes does not fit a frame; at most \(Frame.maximumLength) do")
      }
      return bytes
    } catch let error as CallError {
      throw error
    } catch {
      throw CallError(.internal, "a message cannot be encoded: \(error)")
    }
  }

  static func decode<M: Message>(_ bytes: [UInt8]) throws(CallError) -> M {
    do { return try M(serializedBytes: bytes) } catch {
      throw CallError(.internal, "the server's answer does not parse: \(error)")
    }
  }
}

/// What a server says unasked.
public enum Pushed: Sendable {
  case orders(WireOrders)
  case revocations(WireRevocations)
  case settings(WireWorkerSettings)
  case clean(WireClean)
}

/// The figure in a window frame.
package enum Window {
  /// How many bytes of a stream may be on their way, unused by the receiver.
  package static let initial = 1 << 20

  package static func payload(_ count: Int) -> [UInt8] {
    let value = UInt32(clamping: count)
    return [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
  }

  package static func count(_ payload: [UInt8]) -> Int? {
    payload.count == 4 ? payload.reduce(0) { $0 << 8 | Int($1) } : nil
  }
}
