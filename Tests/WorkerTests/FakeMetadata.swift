import NIOCore
import NIOHTTP1
import NIOPosix
import ScitqProtocol
import Synchronization

@testable import ScitqWorker

/// A cloud's metadata service, as strict as the real ones: who asks without the right header is refused.
final class FakeMetadata: Sendable {
  struct State {
    var isSilent = false
    /// The body there is once the host is taken back.
    var notice: String?
    /// Of aws: which is taken now.
    var token = "token-1"
    var name = "host-7"
    /// What was asked, `METHOD PATH`.
    var asked: [String] = []
  }

  let cloud: EvictionWatch.Cloud
  let state = Mutex(State())

  init(_ cloud: EvictionWatch.Cloud) { self.cloud = cloud }

  func take(back notice: String) { state.withLock { $0.notice = notice } }
  var asked: [String] { state.withLock { $0.asked } }

  /// Nil: no answer at all.
  fileprivate func answer(_ head: HTTPRequestHead) -> (HTTPResponseStatus, String)? {
    state.withLock { state in
      state.asked.append("\(head.method) \(head.uri)")
      if state.isSilent { return nil }
      func has(_ name: String, _ value: String) -> Bool { head.headers.first(name: name) == value }
      switch (cloud, "\(head.method) \(head.uri)") {
      case (.aws, "PUT /latest/api/token"):
        guard has("X-aws-ec2-metadata-token-ttl-seconds", "21600") else { return (.badRequest, "") }
        return (.ok, state.token)
      case (.aws, "GET /latest/meta-data/spot/instance-action"):
        guard has("X-aws-ec2-metadata-token", state.token) else { return (.unauthorized, "") }
        return state.notice.map { (.ok, $0) } ?? (.notFound, "<html>404</html>")
      case (.azure, "GET /metadata/scheduledevents?api-version=2020-07-01"):
        guard has("Metadata", "true") else { return (.badRequest, "") }
        return (.ok, state.notice ?? #"{"DocumentIncarnation":1,"Events":[]}"#)
      case (.azure, "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text"):
        guard has("Metadata", "true") else { return (.badRequest, "") }
        return (.ok, state.name)
      case (.gcp, "GET /computeMetadata/v1/instance/preempted"):
        guard has("Metadata-Flavor", "Google") else { return (.forbidden, "") }
        return (.ok, state.notice ?? "FALSE")
      default: return (.notFound, "")
      }
    }
  }

  private final class Handler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let metadata: FakeMetadata
    private var head: HTTPRequestHead?

    init(_ metadata: FakeMetadata) { self.metadata = metadata }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      switch unwrapInboundIn(data) {
      case .head(let head): self.head = head
      case .body: break
      case .end:
        guard let head, let (status, body) = metadata.answer(head) else { return }
        let fields: HTTPHeaders = ["Content-Length": String(body.utf8.count)]
        context.write(
          wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: fields))),
          promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
      }
    }
  }

  /// Serves for the length of `body`.
  func serve<T>(_ body: (MetadataService) async throws -> T) async throws -> T {
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.configureHTTPServerPipeline()
          try channel.pipeline.syncOperations.addHandler(Handler(self))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    let address = ServerAddress(host: "127.0.0.1", port: channel.localAddress?.port ?? 0)
    do {
      let result = try await body(MetadataService(address))
      try await channel.close()
      return result
    } catch {
      try? await channel.close()
      throw error
    }
  }
}
