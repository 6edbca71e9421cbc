import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import ScitqProtocol
import ServiceLifecycle
import SystemPackage

/// The one port: TLS 1.3, and a session for each connection.
struct Listener: Service {
  let context: SessionContext
  let boot: BootSession
  let tls: NIOSSLContext
  let host: String
  let port: Int
  /// Where the address it really listens on is written, for whoever asked for port 0.
  let addressFile: FilePath
  let logger: Logger

  func run() async throws {
    let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.backlog, value: 1024)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(.socketOption(.so_keepalive), value: 1)
      .bind(host: host, port: port) { channel in
        let remote = channel.remoteAddress
        let isLocal = remote?.ipAddress.map { $0 == "::1" || $0.hasPrefix("127.") } ?? false
        return channel.eventLoop.makeCompletedFuture {
          let visitor = channel.eventLoop.makePromise(of: Doorman.Visitor.self)
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(NIOSSLServerHandler(context: tls))
          try pipeline.addHandler(Doorman(deflate: !isLocal, visitor: visitor))
          return visitor.futureResult
        }
      }
    let address = server.channel.localAddress
    let shown = ServerAddress(host: host == "0.0.0.0" ? "127.0.0.1" : host, port: address?.port ?? port)
    try PrivateFolder.write("\(shown)\n", to: addressFile, mode: [.ownerReadWrite, .groupRead, .otherRead])
    logger.info("listening", metadata: ["address": "\(ServerAddress(host: host, port: shown.port))"])
    let sessions = SessionCount(limit: context.configuration.limits.maxConnections)
    // Hosts that boot, who need no password to connect, take no place of others.
    let boots = SessionCount(limit: Self.mostBoots)
    try await withGracefulShutdownHandler {
      try await server.executeThenClose { connections in
        try await withThrowingDiscardingTaskGroup { group in
          for try await visitor in connections {
            group.addTask {
              guard let visitor = try? await visitor.get() else { return }
              switch visitor {
              case .session(let connection): await receive(connection, sessions)
              case .boot(let channel): await receive(channel, boots)
              }
            }
          }
          group.cancelAll()
        }
      }
    } onGracefulShutdown: {
      server.channel.close(promise: nil)
    }
  }

  private static let mostBoots = 1_000

  private func receive(_ connection: NIOAsyncChannel<Frame, Never>, _ sessions: SessionCount) async {
    guard sessions.enter() else {
      return Wire(channel: connection.channel).end(
        CallError(
          .exhausted,
          "the server has its limit of \(context.configuration.limits.maxConnections) connections; try again later"
        ))
    }
    defer { sessions.leave() }
    await Session(context: context, connection: connection).run()
  }

  private func receive(
    _ channel: NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>, _ boots: SessionCount
  ) async {
    guard boots.enter() else { return channel.channel.close(promise: nil) }
    defer { boots.leave() }
    await boot.run(channel)
  }
}
