import Logging
import NIOCore
import NIOSSL
import ScitqProtocol
import SwiftProtobuf
import Synchronization

/// One connection, from hello to its end.
///
/// Frames are taken in order; each request runs in a task of its own, so that none waits for another, but for a
/// worker's log bytes, which are stored before the next frame is looked at: a report never overtakes its log.
final class Session: Sendable {
  /// A peer that says nothing for so long is gone: clients ping every ten seconds.
  private static let silence = TimeAmount.seconds(90)
  private static let greetingLimit = TimeAmount.seconds(10)
  /// Requests under way on one connection. More wait in the socket.
  private static let mostStreams = 4096

  let context: SessionContext
  let wire: Wire
  let peer: String
  private let connection: NIOAsyncChannel<Frame, Never>
  private let streams = Mutex<[UInt32: OpenStream]>([:])

  init(context: SessionContext, connection: NIOAsyncChannel<Frame, Never>) {
    self.context = context
    self.connection = connection
    wire = Wire(channel: connection.channel)
    peer = connection.channel.remoteAddress?.ipAddress ?? "unknown"
  }

  func run() async {
    do {
      try await connection.executeThenClose { inbound in
        var frames = inbound.makeAsyncIterator()
        let greeting = connection.channel.eventLoop.scheduleTask(in: Self.greetingLimit) { [wire] in
          wire.end(CallError(.unauthenticated, "no hello came within 10 s"))
        }
        guard let first = try await frames.next() else {
          greeting.cancel()
          return
        }
        greeting.cancel()
        let caller: Caller
        do throws(CallError) {
          caller = try await greet(first)
        } catch {
          wire.end(error)
          return
        }
        await converse(&frames, caller)
        if case .worker(let id, let epoch) = caller {
          context.workers.remove(id, epoch: epoch)
          context.engine.send(.disconnected(id, epoch: epoch))
        }
      }
    } catch {
      // A peer that resets its connection or speaks no TLS is no event of ours.
      context.logger.debug("session ended", metadata: ["peer": "\(peer)", "error": "\(error)"])
    }
  }

  // MARK: Hello

  private func greet(_ frame: Frame) async throws(CallError) -> Caller {
    guard frame.kind == .hello, let hello = try? WireHello(serializedBytes: frame.payload) else {
      throw CallError(.invalid, "a connection begins with hello; this began with \(frame.kind)")
    }
    guard hello.major == Connection.major else {
      let older = hello.major < Connection.major ? "client" : "server"
      throw CallError(
        .invalid,
        "the client speaks protocol \(hello.major), the server \(Connection.major): upgrade the \(older)")
    }
    var welcome = WireWelcome()
    welcome.major = Connection.major
    welcome.minor = Connection.minor
    welcome.software = Connection.software
    let caller: Caller
    switch (hello.role, hello.credential) {
    case (.user, .token(let token)?):
      let user = try await context.accounts.user(token: token)
      welcome.user = user.view
      caller = .user(user, token: Secret.hash(token), since: .now)
    case (.user, nil): caller = .anonymous
    case (.worker, .joinToken(let token)?):
      if let instance = context.tickets.instance(of: token) {
        (welcome.worker, caller) = try await connect(hello, credential: nil, ticket: instance)
        break
      }
      guard await context.accounts.isJoinToken(token) else {
        throw CallError(
          .unauthenticated,
          "the join token is not this server's; it is in the file join-token of its data_dir")
      }
      (welcome.worker, caller) = try await connect(hello, credential: nil)
    case (.worker, .workerCredential(let credential)?):
      (welcome.worker, caller) = try await connect(hello, credential: credential)
    default:
      throw CallError(.invalid, "hello names no role, or a credential that is not for its role")
    }
    let payload: [UInt8] = (try? welcome.serializedBytes()) ?? []
    if case .anonymous = caller {
    } else {
      // Before the welcome leaves: the peer may send a long frame as soon as it has it.
      _ = try? await wire.channel.triggerUserOutboundEvent(FrameHandler.PeerIsKnown()).get()
    }
    wire.send(Frame(.welcome, payload: payload))
    return caller
  }

  private func connect(
    _ hello: WireHello, credential: String?, ticket: InstanceID? = nil
  ) async throws(CallError) -> (WireWorkerWelcome, Caller) {
    let welcome = try await context.engine.connect(
      hello.worker, software: hello.software, credential: credential, ticket: ticket)
    let id = WorkerID(welcome.workerID)
    context.workers.add(id, epoch: welcome.epoch, wire)
    return (welcome, .worker(id, epoch: welcome.epoch))
  }

  // MARK: Frames

  private func converse(
    _ frames: inout NIOAsyncChannelInboundStream<Frame>.AsyncIterator, _ caller: Caller
  ) async {
    let heard = Mutex(NIODeadline.now())
    let watch = connection.channel.eventLoop.scheduleRepeatedTask(
      initialDelay: Self.silence, delay: .seconds(15)
    ) { [wire] _ in
      if NIODeadline.now() - heard.withLock({ $0 }) > Self.silence { wire.channel.close(promise: nil) }
    }
    defer { watch.cancel() }
    await withDiscardingTaskGroup { group in
      do {
        while let frame = try await frames.next() {
          heard.withLock { $0 = .now() }
          switch frame.kind {
          case .request: await begin(frame, caller, in: &group)
          case .chunk: received(frame)
          case .end: stream(frame.stream)?.receivedEnd()
          case .cancel: stream(frame.stream)?.cancel()
          case .window:
            if let count = Window.count(frame.payload) { stream(frame.stream)?.credit.give(count) }
          case .ping: wire.send(Frame(.pong, stream: frame.stream))
          case .pong: break
          case .hello, .welcome, .response, .error, .push:
            wire.end(CallError(.invalid, FrameError.unexpected(frame.kind).description))
            return
          }
        }
      } catch {
        context.logger.debug("session ended", metadata: ["peer": "\(peer)", "error": "\(error)"])
      }
      for stream in streams.withLock({ $0.values }) { stream.cancel() }
      group.cancelAll()
    }
  }

  private func stream(_ id: UInt32) -> OpenStream? { streams.withLock { $0[id] } }

  private func received(_ frame: Frame) {
    guard let stream = stream(frame.stream) else { return }
    stream.received(frame.payload)
  }

  private func begin(_ frame: Frame, _ caller: Caller, in group: inout DiscardingTaskGroup) async {
    guard let method = Method(rawValue: frame.method) else {
      wire.fail(
        frame.method, frame.stream,
        CallError(
          .invalid, "call \(frame.method) is unknown here: upgrade the server, or the client is wrong"))
      return
    }
    let stream = OpenStream(id: frame.stream, method: frame.method, wire: wire)
    let accepted = streams.withLock { streams in
      guard streams[frame.stream] == nil, streams.count < Self.mostStreams else { return false }
      streams[frame.stream] = stream
      return true
    }
    guard accepted else {
      wire.fail(
        frame.method, frame.stream,
        CallError(
          .exhausted, "stream \(frame.stream) is in use, or more than \(Self.mostStreams) calls are open"))
      return
    }
    // Stored in the order of arrival, before anything that comes after it.
    let stored: [WorkerCalls.StoredLog]? =
      method == .appendLog ? await WorkerCalls(self, caller).takeLog(frame.payload) : nil
    group.addTask { [self] in
      do throws(CallError) {
        let answer = try await handle(method, frame.payload, caller, stream, stored)
        if let answer {
          wire.respond(frame.method, frame.stream, answer)
          if case .worker = caller { WorkerCalls(self, caller).answered(method) }
        } else {
          wire.send(Frame(.end, method: frame.method, stream: frame.stream))
        }
      } catch {
        wire.fail(frame.method, frame.stream, error)
      }
      _ = streams.withLock { $0.removeValue(forKey: frame.stream) }
    }
  }

  /// The answer's payload; nil where the answer was a stream, which has been sent.
  private func handle(
    _ method: Method, _ payload: [UInt8], _ caller: Caller, _ stream: OpenStream,
    _ stored: [WorkerCalls.StoredLog]?
  ) async throws(CallError) -> [UInt8]? {
    if let answer = try await AnonymousCalls(self).answer(method, payload, caller) { return answer }
    switch caller {
    case .anonymous:
      throw CallError(.unauthenticated, "log in first: export SCITQ_TOKEN=$(scitq login)")
    case .user(let user, let token, let since):
      guard context.accounts.revocations.stands(token: token, of: user.id, since: since) else {
        throw CallError(
          .unauthenticated, "the token was revoked, or the account has changed: connect again")
      }
      return try await UserCalls(self, user, token, stream).answer(method, payload)
    case .worker:
      return try await WorkerCalls(self, caller).answer(method, payload, stored)
    }
  }
}

/// Typed answering of a call's bytes.
func answer<Request: Message, Response: Message>(
  _ call: Call<Request, Response>, _ payload: [UInt8],
  _ body: (Request) async throws(CallError) -> Response
) async throws(CallError) -> [UInt8] {
  try encode(try await body(try parse(payload)))
}

func parse<M: Message>(_ payload: [UInt8]) throws(CallError) -> M {
  do { return try M(serializedBytes: payload) } catch {
    throw CallError(.invalid, "the request's bytes do not parse as \(M.protoMessageName)")
  }
}

func encode(_ message: some Message) throws(CallError) -> [UInt8] {
  do { return try message.serializedBytes() } catch {
    throw CallError(.internal, "the answer cannot be encoded")
  }
}
