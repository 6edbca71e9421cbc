import Crypto
import NIOCore
import NIOPosix
import NIOSSL

/// Whom a client believes. There is no way to believe everybody.
public struct Trust: Sendable {
  enum Kind: Sendable {
    case system
    case authority(pem: String)
  }
  let kind: Kind

  /// The authorities this machine trusts; the certificate must name the host that was asked for.
  public static var system: Trust { Trust(kind: .system) }

  /// One pinned authority, as PEM. It signs for nobody but its server, so the host name adds nothing and is not
  /// checked: a server may be reached by an address that its certificate does not name.
  public static func authority(pem: String) -> Trust { Trust(kind: .authority(pem: pem)) }

  func clientContext() throws(CallError) -> NIOSSLContext {
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.minimumTLSVersion = .tlsv13
    do {
      switch kind {
      case .system:
        tls.certificateVerification = .fullVerification
      case .authority(let pem):
        tls.certificateVerification = .noHostnameVerification
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(pem.utf8)))
      }
      return try NIOSSLContext(configuration: tls)
    } catch {
      throw CallError(.invalid, "the trusted certificate cannot be read: \(error); it must be PEM")
    }
  }

  /// Connects just to see the certificates that the server presents, the server's own first, its authority last.
  /// Nothing is sent but the TLS greeting, and nothing is believed.
  public static func probe(
    _ address: ServerAddress, timeout: Duration = .seconds(15)
  ) async throws(CallError) -> [PresentedCertificate] {
    let group = MultiThreadedEventLoopGroup.singleton
    let seen = group.next().makePromise(of: [PresentedCertificate].self)
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.minimumTLSVersion = .tlsv13
    tls.certificateVerification = .noHostnameVerification
    let context: NIOSSLContext
    do { context = try NIOSSLContext(configuration: tls) } catch {
      seen.fail(error)
      throw CallError(.internal, "TLS is not to be had here: \(error)")
    }
    let bootstrap = ClientBootstrap(group: group)
      .connectTimeout(.nanoseconds(timeout.nanoseconds))
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let handler = try NIOSSLClientHandler(
            context: context, serverHostname: nil,
            customVerificationCallback: { chain, verdict in
              let presented = chain.compactMap { try? PresentedCertificate($0) }
              seen.succeed(presented)
              verdict.succeed(NIOSSLVerificationResult.failed)
            })
          try channel.pipeline.syncOperations.addHandler(handler)
          try channel.pipeline.syncOperations.addHandler(ProbeEnd(seen))
        }
      }
    do {
      let channel = try await bootstrap.connect(host: address.host, port: address.port).get()
      let limit = channel.eventLoop.scheduleTask(in: .nanoseconds(timeout.nanoseconds)) {
        seen.fail(CallError(.unavailable, "\(address) did not answer the TLS greeting in time"))
      }
      let chain = try await seen.futureResult.get()
      limit.cancel()
      channel.close(promise: nil)
      return chain
    } catch let error as CallError {
      throw error
    } catch {
      seen.fail(error)
      throw Connection.unreachable(address, error)
    }
  }

  private final class ProbeEnd: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    let seen: EventLoopPromise<[PresentedCertificate]>
    init(_ seen: EventLoopPromise<[PresentedCertificate]>) { self.seen = seen }
    func channelInactive(context: ChannelHandlerContext) {
      seen.fail(CallError(.unavailable, "the server closed the connection during the TLS greeting"))
      context.fireChannelInactive()
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
      // The failed verdict of a successful probe comes by here too, when the promise is kept already.
      seen.fail(error)
      context.close(promise: nil)
    }
  }
}

/// A certificate as a server showed it.
public struct PresentedCertificate: Sendable, Hashable {
  public let pem: String
  /// SHA-256 of the certificate's DER, in hexadecimal.
  public let fingerprint: String

  init(_ certificate: NIOSSLCertificate) throws {
    let der = try certificate.toDERBytes()
    self.init(der: der)
  }

  /// From DER bytes.
  public init(der: [UInt8]) {
    fingerprint = Self.fingerprint(der: der)
    let body = PresentedCertificate.base64(der)
    var lines = "-----BEGIN CERTIFICATE-----\n"
    var index = body.startIndex
    while index < body.endIndex {
      let end = body.index(index, offsetBy: 64, limitedBy: body.endIndex) ?? body.endIndex
      lines += body[index..<end] + "\n"
      index = end
    }
    pem = lines + "-----END CERTIFICATE-----\n"
  }

  /// SHA-256 of the bytes, in hexadecimal.
  public static func fingerprint(der: [UInt8]) -> String {
    SHA256.hash(data: der).map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }

  private static func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      var value = 0
      for offset in 0..<3 { value = value << 8 | (offset < group.count ? Int(group[start + offset]) : 0) }
      for digit in 0..<4 {
        text.append(digit <= group.count ? alphabet[value >> (18 - 6 * digit) & 63] : UInt8(ascii: "="))
      }
    }
    return String(decoding: text, as: UTF8.self)
  }
}

extension Duration {
  package var nanoseconds: Int64 {
    components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
  }
}
