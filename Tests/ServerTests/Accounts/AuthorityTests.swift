import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import SwiftASN1
import SystemPackage
import Testing
import X509

@testable import ScitqServer

@Suite("The server's own authority")
struct AuthorityTests {
  private func withFolder(_ body: (FilePath) async throws -> Void) async throws {
    let path = "\(NSTemporaryDirectory())/scitq-tls-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try await body(FilePath(path).appending("tls"))
  }

  private func mode(_ path: FilePath) throws -> Int {
    try #require(FileManager.default.attributesOfItem(atPath: path.string)[.posixPermissions] as? Int)
  }

  @Test("a first start makes it, a second one finds it, and keys are nobody else's to read")
  func madeOnce() async throws {
    try await withFolder { folder in
      let first = try Authority.load(directory: folder, names: ["queue.example.org", "10.1.2.3"])
      #expect(try Authority.load(directory: folder, names: ["queue.example.org", "10.1.2.3"]) == first)
      #expect(try mode(folder) == 0o700)
      #expect(try mode(folder.appending("authority.key")) == 0o600)
      #expect(try mode(folder.appending("server.key")) == 0o600)
      #expect(first.certificateChainPEM.count == 2 && first.certificateChainPEM[1] == first.authorityPEM)
      let authority = try Certificate(pemEncoded: first.authorityPEM)
      #expect(try Authority.fingerprint(of: authority) == first.fingerprint && first.fingerprint.count == 64)
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: folder.string).sorted() == [
          "authority.key", "authority.pem", "server.key", "server.pem",
        ])
    }
  }

  @Test("the server's certificate is made anew near its end or for new names; the authority stays")
  func renewed() async throws {
    try await withFolder { folder in
      let now = Date()
      let first = try Authority.load(directory: folder, names: ["one"], now: now)
      let later = try Authority.load(
        directory: folder, names: ["one"], now: now.addingTimeInterval(330 * 86_400))
      #expect(later == first)
      let renewed = try Authority.load(
        directory: folder, names: ["one"], now: now.addingTimeInterval(340 * 86_400))
      #expect(renewed.certificateChainPEM[0] != first.certificateChainPEM[0])
      #expect(renewed.authorityPEM == first.authorityPEM && renewed.fingerprint == first.fingerprint)
      let renamed = try Authority.load(
        directory: folder, names: ["two"], now: now.addingTimeInterval(340 * 86_400))
      #expect(renamed.certificateChainPEM[0] != renewed.certificateChainPEM[0])
      #expect(renamed.fingerprint == first.fingerprint)
    }
  }

  @Test("a damaged or half lost authority is an error that says what to do")
  func damaged() async throws {
    try await withFolder { folder in
      _ = try Authority.load(directory: folder, names: [])
      let key = folder.appending("authority.key").string
      let text = try String(contentsOfFile: key, encoding: .utf8)
      try FileManager.default.removeItem(atPath: key)
      #expect { try Authority.load(directory: folder, names: []) } throws: {
        "\($0)".contains("authority.key is missing")
      }
      try "no key".write(toFile: key, atomically: true, encoding: .utf8)
      #expect { try Authority.load(directory: folder, names: []) } throws: { "\($0)".contains("valid PEM") }
      try String(contentsOfFile: folder.appending("server.key").string, encoding: .utf8)
        .write(toFile: key, atomically: true, encoding: .utf8)
      #expect { try Authority.load(directory: folder, names: []) } throws: {
        "\($0)".contains("is not the key of")
      }
      try text.write(toFile: key, atomically: true, encoding: .utf8)
      try "torn".write(toFile: folder.appending("server.pem").string, atomically: true, encoding: .utf8)
      _ = try Authority.load(directory: folder, names: [])
    }
  }

  @Test("the operator's own certificate is taken; a wrong one is refused with the file's name")
  func configured() async throws {
    try await withFolder { folder in
      let made = try Authority.load(directory: folder, names: ["own"])
      let chain = folder.appending("chain.pem")
      try made.certificateChainPEM.joined(separator: "\n").write(
        toFile: chain.string, atomically: true, encoding: .utf8)
      let other = folder.appending("elsewhere")
      let taken = try Authority.load(
        directory: other, names: [], configured: (chain, folder.appending("server.key")))
      #expect(taken.fingerprint == made.fingerprint && taken.certificateChainPEM.count == 2)
      #expect(!FileManager.default.fileExists(atPath: other.string))
      for (certificate, key, part) in [
        (chain, folder.appending("authority.key"), "is not the key of"),
        (folder.appending("server.key"), folder.appending("server.key"), "no certificates"),
        (chain, chain, "no unencrypted private key"),
        (folder.appending("none.pem"), chain, "none.pem that server.certificate names does not exist"),
      ] {
        #expect {
          try Authority.load(directory: other, names: [], configured: (certificate, key))
        } throws: { "\($0)".contains(part) }
      }
    }
  }

  @Test("a name that cannot stand in a certificate is refused")
  func badName() async throws {
    try await withFolder { folder in
      #expect { try Authority.load(directory: folder, names: ["bad name"]) } throws: {
        "\($0)".contains("bad name")
      }
    }
  }

  @Test(
    "a client that trusts the authority shakes hands by every name, and by no other", .timeLimit(.minutes(1)),
    arguments: [
      // At 127.0.0.2 the address, which the certificate lacks, cannot stand in for the name.
      ("localhost", "127.0.0.2", true), ("queue.example.org", "127.0.0.2", true), (nil, "127.0.0.1", true),
      ("other.example.org", "127.0.0.2", false), (nil, "127.0.0.2", false),
    ])
  func handshake(name: String?, address: String, isGood: Bool) async throws {
    try await withFolder { folder in
      let identity = try Authority.load(directory: folder, names: ["queue.example.org"])
      var server = TLSConfiguration.makeServerConfiguration(
        certificateChain: try identity.certificateChainPEM.map {
          .certificate(try NIOSSLCertificate(bytes: Array($0.utf8), format: .pem))
        },
        privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(identity.privateKeyPEM.utf8), format: .pem))
      )
      server.minimumTLSVersion = .tlsv13
      let serverContext = try NIOSSLContext(configuration: server)
      var client = TLSConfiguration.makeClientConfiguration()
      client.trustRoots = .certificates([
        try NIOSSLCertificate(bytes: Array(identity.authorityPEM.utf8), format: .pem)
      ])
      let clientContext = try NIOSSLContext(configuration: client)

      let listener = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
        .childChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandlers(
              NIOSSLServerHandler(context: serverContext), Echo())
          }
        }
        .bind(host: "0.0.0.0", port: 0).get()
      let answered = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Bool.self)
      let connection = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandlers(
              NIOSSLClientHandler(context: clientContext, serverHostname: name), Answer(answered))
          }
        }
        .connect(host: address, port: listener.localAddress!.port!).get()
      #expect(try await answered.futureResult.get() == isGood)
      try? await connection.close()
      try await listener.close()
    }
  }

  private final class Echo: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      context.writeAndFlush(data, promise: nil)
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }

  /// Says something, and whether it came back.
  private final class Answer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private var answered: EventLoopPromise<Bool>?
    init(_ answered: EventLoopPromise<Bool>) { self.answered = answered }
    func channelActive(context: ChannelHandlerContext) {
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "hello")), promise: nil)
    }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { finish(true) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
      finish(false)
      context.close(promise: nil)
    }
    func channelInactive(context: ChannelHandlerContext) { finish(false) }
    private func finish(_ result: Bool) {
      answered?.succeed(result)
      answered = nil
    }
  }
}
