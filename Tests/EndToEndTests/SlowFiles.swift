import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A web server that takes its time: it answers each request for a file's bytes after a delay, with the file's name
/// and a line end.
final class SlowFiles: Sendable {
  private let listener: Int32
  private let port: UInt16

  init(delay: Duration) throws {
    #if canImport(Glibc)
      let stream = Int32(SOCK_STREAM.rawValue)
    #else
      let stream = SOCK_STREAM
    #endif
    let listener = socket(AF_INET, stream, 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, length) == 0 && listen(listener, 64) == 0
          && getsockname(listener, $0, &length) == 0
      }
    }
    guard listener >= 0, bound else { throw Trouble("no port can be had on 127.0.0.1") }
    self.listener = listener
    self.port = UInt16(bigEndian: address.sin_port)
    Thread.detachNewThread {
      while true {
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { return }
        Thread.detachNewThread { Self.serve(connection, delay) }
      }
    }
  }

  func url(_ name: String) -> String { "http://127.0.0.1:\(port)/\(name)" }

  func stop() {
    // Wakes the thread that waits in accept.
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
  }

  private static func serve(_ connection: Int32, _ delay: Duration) {
    defer { close(connection) }
    var request: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4_096)
    while true {
      while request.firstRange(of: Array("\r\n\r\n".utf8)) == nil {
        let count = read(connection, &buffer, buffer.count)
        guard count > 0 else { return }
        request += buffer[..<count]
      }
      let words = String(decoding: request, as: UTF8.self).split(separator: " ", maxSplits: 2)
      request.removeAll()
      guard words.count == 3 else { return }
      let body = words[1].dropFirst() + "\n"
      if words[0] == "GET" { usleep(UInt32(delay / .microseconds(1))) }
      let head = "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\nContent-Type: text/plain\r\n\r\n"
      let answer = Array((words[0] == "HEAD" ? head : head + body).utf8)
      guard send(connection, answer, answer.count, Int32(MSG_NOSIGNAL)) == answer.count else { return }
    }
  }
}
