import Glibc

/// What one stream of an attempt printed and the server does not have yet.
///
/// Up to 256 KiB stay in memory; beyond that everything goes to a file in the store, so that a process never waits
/// for an engine that is away. What the server has is given back to the disk.
struct RetainedStream {
  /// The pipe's reading end, or -1 once the stream has ended.
  var fd: Int32
  /// The first byte that is kept, and one past the last that was read.
  private(set) var start: Int64 = 0
  private(set) var total: Int64 = 0
  /// The last bytes could not be put on disk; nothing more is read until they are.
  private(set) var stalled = false

  private var memory: [UInt8] = []
  private var segments: [Segment] = []

  /// A nameless file: the disk has its bytes back as soon as it is closed.
  private struct Segment {
    var fd: Int32
    var base: Int64
    var length: Int64 = 0
    var end: Int64 { base + length }
  }

  static let memoryLimit = 256 << 10
  private static let segmentLimit: Int64 = 16 << 20

  init(fd: Int32) { self.fd = fd }

  /// Takes what was read from the pipe. `path` names the file to spill into.
  mutating func append(_ bytes: UnsafeRawBufferPointer, path: () -> String) {
    total += Int64(bytes.count)
    memory.append(contentsOf: bytes)
    if !segments.isEmpty || memory.count > Self.memoryLimit { flush(path: path) }
  }

  /// Moves what memory holds to the disk; where that is full it stays in memory and the stream is stalled.
  mutating func flush(path: () -> String) {
    let base = total - Int64(memory.count)
    if segments.isEmpty || segments[segments.count - 1].length >= Self.segmentLimit {
      let name = path()
      let fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
      guard fd >= 0 else {
        stalled = true
        return
      }
      unlink(name)
      segments.append(Segment(fd: fd, base: base))
    }
    let last = segments.count - 1
    let segment = segments[last]
    var done = 0
    memory.withUnsafeBytes { bytes in
      while done < bytes.count {
        let n = pwrite(
          segment.fd, bytes.baseAddress! + done, bytes.count - done, off_t(segment.length) + off_t(done))
        if n < 0, errno == EINTR { continue }
        if n <= 0 { return }
        done += n
      }
    }
    segments[last].length += Int64(done)
    stalled = done < memory.count
    if stalled { memory.removeFirst(done) } else { memory.removeAll(keepingCapacity: true) }
  }

  /// Appends at most `limit` bytes from `offset` on to `target`; answers how many.
  func read(at offset: Int64, limit: Int, into target: inout [UInt8]) -> Int {
    let inMemory = total - Int64(memory.count)
    if offset >= inMemory {
      let from = Int(offset - inMemory)
      let n = min(limit, memory.count - from)
      if n > 0 { target.append(contentsOf: memory[from..<(from + n)]) }
      return max(n, 0)
    }
    guard let segment = segments.first(where: { offset >= $0.base && offset < $0.end }) else { return 0 }
    let want = min(limit, Int(segment.end - offset))
    let before = target.count
    target.append(contentsOf: repeatElement(0, count: want))
    let n = target.withUnsafeMutableBytes { bytes -> Int in
      var n = 0
      repeat {
        n = pread(segment.fd, bytes.baseAddress! + before, want, off_t(offset - segment.base))
      } while n < 0 && errno == EINTR
      return max(n, 0)
    }
    target.removeLast(want - n)
    return n
  }

  /// The server has everything before `offset`.
  mutating func release(upTo offset: Int64) {
    let offset = min(offset, total)
    guard offset > start else { return }
    start = offset
    while let first = segments.first, first.end <= start {
      close(first.fd)
      segments.removeFirst()
    }
    if segments.isEmpty { memory.removeFirst(memory.count - Int(total - start)) }
  }

  /// Closes what is open.
  mutating func discard() {
    if fd >= 0 { close(fd) }
    for segment in segments { close(segment.fd) }
    fd = -1
    segments = []
    memory = []
  }
}
