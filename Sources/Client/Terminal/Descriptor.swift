import Foundation

/// Plain reads and writes on file descriptors, whole and unbuffered.
enum Descriptor {
  /// Reads once; answers the number of bytes, 0 at the end.
  static func read(_ descriptor: Int32, into block: inout [UInt8], atMost limit: Int) throws -> Int {
    var failure: Int32 = 0
    block = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
      var result: Int
      repeat {
        result = Foundation.read(descriptor, buffer.baseAddress, limit)
      } while result < 0 && errno == EINTR
      failure = result < 0 ? errno : 0
      count = max(result, 0)
    }
    guard failure == 0 else { throw Failure("reading failed: \(reason(failure))") }
    return block.count
  }

  /// Writes all of it, or throws. A reader that has gone is `OutputClosed`.
  static func write(_ bytes: some Sequence<UInt8>, to descriptor: Int32) throws {
    let bytes = ContiguousArray(bytes)
    var position = 0
    while position < bytes.count {
      let written = bytes.withUnsafeBytes { buffer in
        Foundation.write(descriptor, buffer.baseAddress! + position, buffer.count - position)
      }
      if written >= 0 {
        position += written
      } else if errno == EPIPE {
        throw OutputClosed()
      } else if errno == EAGAIN {
        // A terminal that somebody set to non-blocking: wait until it takes more.
        var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = poll(&wait, 1, 1000)
      } else if errno != EINTR {
        throw Failure("writing the output failed: \(reason(errno))")
      }
    }
  }

  static func reason(_ code: Int32) -> String { String(cString: strerror(code)).lowercased() }
}

/// Whoever read the output has gone, as `head` does: an end, not a failure worth a sentence.
struct OutputClosed: Error {}
