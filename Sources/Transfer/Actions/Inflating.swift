import CZlib
import ScitqProtocol
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

typealias ByteSink = (UnsafeRawBufferPointer) throws(TransferFailure) -> Void

private let chunk = 256 << 10

/// Gives the bytes of a file in pieces.
func readFile(
  _ path: FilePath, _ interruption: Interruption, _ sink: ByteSink
) throws(TransferFailure) {
  let file = open(path.string, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
  guard file >= 0 else { throw systemFailure(path.string) }
  defer { close(file) }
  try readAll(file, named: path.string, interruption, sink)
}

/// Gives what can be read in pieces until its end.
func readAll(
  _ file: Int32, named name: String, _ interruption: Interruption, _ sink: ByteSink
) throws(TransferFailure) {
  let buffer = UnsafeMutableRawPointer.allocate(byteCount: chunk, alignment: 16)
  defer { buffer.deallocate() }
  while true {
    try interruption.check()
    let count = read(file, buffer, chunk)
    if count == 0 { return }
    guard count > 0 else {
      if errno == EINTR { continue }
      throw systemFailure(name)
    }
    try sink(UnsafeRawBufferPointer(start: buffer, count: count))
  }
}

/// Decompresses in this process what gzip and zip have compressed.
enum Inflating {
  /// All members of a gzip file, one after the other, as `gzip -d` would.
  static func gzip(
    _ path: FilePath, named name: String, _ interruption: Interruption, _ sink: ByteSink
  ) throws(TransferFailure) {
    var stream = try Stream(windowBits: 15 + 16, name: name)
    defer { stream.end() }
    var isWithinMember = true
    var isTrailer = false
    try readFile(path, interruption) { bytes throws(TransferFailure) in
      var rest = bytes
      while !rest.isEmpty && !isTrailer {
        if !isWithinMember {
          // What follows the last member may be padding.
          guard rest[0] == 0x1F else {
            isTrailer = true
            return
          }
          stream.reset()
          isWithinMember = true
        }
        let (used, ended) = try stream.inflate(rest, sink)
        rest = UnsafeRawBufferPointer(rebasing: rest[used...])
        if ended { isWithinMember = false }
      }
    }
    guard !isWithinMember else { throw TransferFailure(.input, "\(name) is damaged: it ends too early") }
  }

  /// A zlib stream that decompresses.
  struct Stream {
    private let state: UnsafeMutablePointer<z_stream>
    private let output: UnsafeMutableRawPointer
    private let name: String

    init(windowBits: Int32, name: String) throws(TransferFailure) {
      self.name = name
      state = .allocate(capacity: 1)
      state.initialize(to: z_stream())
      output = .allocate(byteCount: chunk, alignment: 16)
      guard inflateInit2_(state, windowBits, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
        state.deallocate()
        output.deallocate()
        throw TransferFailure(.input, "\(name) cannot be decompressed: no memory for it")
      }
    }

    mutating func reset() { inflateReset(state) }

    mutating func end() {
      inflateEnd(state)
      state.deallocate()
      output.deallocate()
    }

    /// How many of the bytes were used, and whether the compressed stream has ended with them.
    mutating func inflate(
      _ bytes: UnsafeRawBufferPointer, _ sink: ByteSink
    ) throws(TransferFailure) -> (used: Int, ended: Bool) {
      // zlib takes its input as mutable and leaves it as it is.
      state.pointee.next_in = UnsafeMutablePointer(
        mutating: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
      state.pointee.avail_in = UInt32(bytes.count)
      while true {
        state.pointee.next_out = output.assumingMemoryBound(to: UInt8.self)
        state.pointee.avail_out = UInt32(chunk)
        let code = CZlib.inflate(state, Z_NO_FLUSH)
        let made = chunk - Int(state.pointee.avail_out)
        if made > 0 { try sink(UnsafeRawBufferPointer(start: output, count: made)) }
        let used = bytes.count - Int(state.pointee.avail_in)
        switch code {
        case Z_STREAM_END: return (used, true)
        case Z_OK, Z_BUF_ERROR:
          if state.pointee.avail_in == 0 && state.pointee.avail_out > 0 { return (used, false) }
        default:
          throw TransferFailure(.input, "\(name) is damaged: its compressed bytes make no sense")
        }
      }
    }
  }
}
