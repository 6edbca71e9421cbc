import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import ScitqProtocol
import SystemPackage

/// What hosts are told while they boot, over HTTP on the server's port: the worker's program and its SHA-256, for a ticket
/// that is good; and what they say of their progress.
struct BootSession {
  let engine: Engine
  let tickets: Tickets
  let source: BootSource
  let logger: Logger

  private static let longestWord = 2048
  private static let piece = 256 * 1024

  func run(_ channel: NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>) async {
    try? await channel.executeThenClose { parts, out in
      var head: HTTPRequestHead?
      var body: [UInt8] = []
      for try await part in parts {
        switch part {
        case .head(let found): (head, body) = (found, [])
        case .body(let some): body += some.readableBytesView.prefix(max(0, Self.longestWord - body.count))
        case .end:
          guard let head else { return }
          try await answer(head, body, out)
          if !head.isKeepAlive { return }
        }
      }
    }
  }

  private typealias Writer = NIOAsyncChannelOutboundWriter<HTTPServerResponsePart>

  private func answer(_ head: HTTPRequestHead, _ body: [UInt8], _ out: Writer) async throws {
    let words = head.headers["authorization"].first?.split(separator: " ") ?? []
    guard words.count == 2, words[0].lowercased() == "bearer",
      let instance = tickets.instance(of: String(words[1])),
      await engine.worker(ofTicket: instance) != nil
    else {
      return try await say(.forbidden, "the ticket is not good here, or not any more\n", head, out)
    }
    switch (head.method, head.uri) {
    case (.GET, "/boot/worker"): try await send(source.program, head, out)
    case (.GET, "/boot/sha256"):
      guard let sum = try? await source.sha256() else {
        return try await say(.internalServerError, "the worker's program cannot be read\n", head, out)
      }
      try await say(.ok, sum, head, out)
    case (.POST, "/boot/progress"):
      let text = String(decoding: body, as: UTF8.self)
      let phase = String(text.prefix { $0.isLetter }.prefix(30))
      let words = text.dropFirst(phase.count).drop { $0 == " " }.filter { !$0.isNewline }
      let report = FleetReport.progress(instance, phase: "boot: \(phase)", words: String(words.prefix(500)))
      _ = try? await engine.ask { .fleet(report, $0) }
      try await say(.ok, "", head, out)
    default: try await say(.notFound, "there is /boot/worker, /boot/sha256 and /boot/progress\n", head, out)
    }
  }

  private func say(_ status: HTTPResponseStatus, _ text: String, _ head: HTTPRequestHead, _ out: Writer)
    async throws
  {
    let headers: HTTPHeaders = ["content-length": "\(text.utf8.count)", "content-type": "text/plain"]
    try await out.write(.head(HTTPResponseHead(version: head.version, status: status, headers: headers)))
    try await out.write(.body(.byteBuffer(ByteBuffer(string: text))))
    try await out.write(.end(nil))
  }

  private func send(_ path: String, _ head: HTTPRequestHead, _ out: Writer) async throws {
    let file: SystemPackage.FileDescriptor
    do { file = try SystemPackage.FileDescriptor.open(path, .readOnly) } catch {
      logger.error("the worker's program cannot be read", metadata: ["path": "\(path)", "error": "\(error)"])
      return try await say(.internalServerError, "the worker's program cannot be read\n", head, out)
    }
    defer { try? file.close() }
    let length = try file.seek(offset: 0, from: .end)
    try file.seek(offset: 0, from: .start)
    let headers: HTTPHeaders = [
      "content-length": "\(length)", "content-type": "application/octet-stream",
    ]
    try await out.write(.head(HTTPResponseHead(version: head.version, status: .ok, headers: headers)))
    var left = length
    while left > 0 {
      // A local file, in the page's cache after the first host: read where the thread is.
      let bytes = try [UInt8](unsafeUninitializedCapacity: Int(min(Int64(Self.piece), left))) {
        buffer, count in
        count = try file.read(into: UnsafeMutableRawBufferPointer(buffer))
      }
      if bytes.isEmpty { throw ChannelError.eof }
      left -= Int64(bytes.count)
      try await out.write(.body(.byteBuffer(ByteBuffer(bytes: bytes))))
    }
    try await out.write(.end(nil))
  }
}
