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

/// Reads zip archives by their directory: stored and deflated entries, also of the 64-bit kind.
struct ZipArchive {
  private let file: Int32
  private let size: Int64
  private let interruption: Interruption

  static func extract(
    _ path: FilePath, to extraction: inout Extraction, _ interruption: Interruption
  ) throws(TransferFailure) {
    let file = open(path.string, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else { throw systemFailure(path.string) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw systemFailure(path.string) }
    let archive = ZipArchive(file: file, size: Int64(status.st_size), interruption: interruption)
    do throws(TransferFailure) {
      try archive.extract(&extraction)
    } catch {
      extraction.abandon()
      throw error
    }
  }

  private struct Entry {
    var name: [UInt8]
    var isEncrypted: Bool
    var method: Int
    var check: UInt32
    var packed: Int64
    var bytes: Int64
    var header: Int64
    var mode: mode_t
  }

  private func extract(_ extraction: inout Extraction) throws(TransferFailure) {
    var (position, count) = try directory(extraction)
    while count > 0 {
      try interruption.check()
      let entry = try readEntry(&position, extraction)
      count -= 1
      guard let name = String(validating: entry.name, as: UTF8.self) else {
        throw extraction.damaged("a name in it is not UTF-8; pack it again with such names")
      }
      guard !entry.isEncrypted else { throw extraction.refused(name, "is encrypted") }
      let kind = entry.mode & S_IFMT
      if name.hasSuffix("/") || kind == S_IFDIR {
        try extraction.makeFolder(name, mode: entry.mode & 0o777 == 0 ? 0o755 : entry.mode)
      } else if kind == S_IFLNK {
        guard entry.bytes <= Int64(PATH_MAX) else { throw extraction.damaged("a link in it is too long") }
        var target: [UInt8] = []
        try content(of: entry, named: name, extraction) { bytes throws(TransferFailure) in
          target.append(contentsOf: bytes)
        }
        guard let text = String(validating: target, as: UTF8.self) else {
          throw extraction.damaged("a name in it is not UTF-8; pack it again with such names")
        }
        try extraction.makeLink(name, to: text)
      } else if kind == 0 || kind == S_IFREG {
        try extraction.beginFile(name, mode: entry.mode & 0o777 == 0 ? 0o644 : entry.mode, modified: 0)
        let context = extraction
        try content(of: entry, named: name, context) { bytes throws(TransferFailure) in
          try extraction.write(bytes)
        }
        extraction.endFile()
      } else {
        throw extraction.refused(name, "is a device or a pipe")
      }
    }
  }

  // MARK: directory

  /// Where the directory of entries starts, and how many it has.
  private func directory(_ extraction: Extraction) throws(TransferFailure) -> (Int64, Int64) {
    // The end record is followed by a comment of at most 65,535 bytes.
    let start = max(0, size - 65_557)
    let tail = try bytes(at: start, count: Int(size - start), extraction)
    var found = tail.count - 22
    while found >= 0, !tail[found...].starts(with: [0x50, 0x4B, 5, 6]) { found -= 1 }
    guard found >= 0 else { throw extraction.damaged("it has no directory, as if it ended too early") }
    var count = Int64(Self.number(tail, found + 10, 2))
    var position = Int64(Self.number(tail, found + 16, 4))
    if count == 0xFFFF || position == 0xFFFF_FFFF, found >= 20,
      tail[(found - 20)...].starts(with: [0x50, 0x4B, 6, 7])
    {
      let record = try bytes(at: Int64(clamping: Self.number(tail, found - 12, 8)), count: 56, extraction)
      guard record.starts(with: [0x50, 0x4B, 6, 6]) else {
        throw extraction.damaged("its directory makes no sense")
      }
      count = Int64(clamping: Self.number(record, 32, 8))
      position = Int64(clamping: Self.number(record, 48, 8))
    }
    return (position, count)
  }

  private func readEntry(
    _ position: inout Int64, _ extraction: Extraction
  ) throws(TransferFailure) -> Entry {
    let head = try bytes(at: position, count: 46, extraction)
    guard head.starts(with: [0x50, 0x4B, 1, 2]) else {
      throw extraction.damaged("its directory makes no sense")
    }
    let lengths = (28...32).filter { $0 % 2 == 0 }.map { Int(Self.number(head, $0, 2)) }
    let rest = try bytes(at: position + 46, count: lengths[0] + lengths[1], extraction)
    position += 46 + Int64(lengths.reduce(0, +))
    let isUnix = head[5] == 3 || head[5] == 19
    var entry = Entry(
      name: Array(rest[..<lengths[0]]), isEncrypted: Self.number(head, 8, 2) & 1 != 0,
      method: Int(Self.number(head, 10, 2)), check: UInt32(Self.number(head, 16, 4)),
      packed: Int64(Self.number(head, 20, 4)), bytes: Int64(Self.number(head, 24, 4)),
      header: Int64(Self.number(head, 42, 4)), mode: isUnix ? mode_t(Self.number(head, 40, 2)) : 0)
    // Fields that are too small for their numbers have them here, in this order.
    var extra = rest[lengths[0]...]
    while extra.count >= 4 {
      let bytes = Array(extra)
      let length = Int(Self.number(bytes, 2, 2))
      guard bytes.count >= 4 + length else { break }
      if Self.number(bytes, 0, 2) == 1 {
        var at = 4
        for field in [\Entry.bytes, \Entry.packed, \Entry.header] where entry[keyPath: field] == 0xFFFF_FFFF {
          guard at + 8 <= 4 + length else { throw extraction.damaged("its directory makes no sense") }
          entry[keyPath: field] = Int64(clamping: Self.number(bytes, at, 8))
          at += 8
        }
      }
      extra = extra.dropFirst(4 + length)
    }
    return entry
  }

  // MARK: content

  private func content(
    of entry: Entry, named name: String, _ extraction: Extraction, _ sink: ByteSink
  ) throws(TransferFailure) {
    let head = try bytes(at: entry.header, count: 30, extraction)
    guard head.starts(with: [0x50, 0x4B, 3, 4]) else {
      throw extraction.damaged("the entry \(name) makes no sense")
    }
    var position = entry.header + 30 + Int64(Self.number(head, 26, 2) + Self.number(head, 28, 2))
    var left = entry.packed
    var check = crc32(0, nil, 0)
    var made: Int64 = 0
    func give(_ bytes: UnsafeRawBufferPointer) throws(TransferFailure) {
      made += Int64(bytes.count)
      guard made <= entry.bytes else { throw extraction.damaged("the entry \(name) is longer than it says") }
      check = crc32(check, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt32(bytes.count))
      try sink(bytes)
    }
    guard entry.method == 0 || entry.method == 8 else {
      throw extraction.refused(name, "is compressed in a way that is not known here; pack it with deflate")
    }
    var stream = try Inflating.Stream(windowBits: -15, name: name)
    defer { stream.end() }
    var hasEnded = entry.method == 0
    while left > 0 {
      try interruption.check()
      let piece = try bytes(at: position, count: Int(min(left, 256 << 10)), extraction)
      position += Int64(piece.count)
      left -= Int64(piece.count)
      // Bridges a throwing closure: `withUnsafeBytes` cannot throw this module's type through.
      let result = piece.withUnsafeBytes { bytes in
        Result { () throws(TransferFailure) in
          if entry.method == 0 {
            try give(bytes)
          } else {
            hasEnded = try stream.inflate(bytes, give).ended || hasEnded
          }
        }
      }
      try result.get()
      if hasEnded && entry.method == 8 { break }
    }
    guard hasEnded, made == entry.bytes, UInt32(truncatingIfNeeded: check) == entry.check else {
      throw extraction.damaged("the entry \(name) is not what its checksum says")
    }
  }

  private func bytes(at position: Int64, count: Int, _ extraction: Extraction) throws(TransferFailure)
    -> [UInt8]
  {
    guard position >= 0, count >= 0, position <= size, Int64(count) <= size - position else {
      throw extraction.damaged("it ends too early")
    }
    var result = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let more = result.withUnsafeMutableBytes {
        pread(file, $0.baseAddress! + done, count - done, off_t(position) + off_t(done))
      }
      if more < 0 && errno == EINTR { continue }
      guard more > 0 else { throw extraction.damaged("it cannot be read") }
      done += more
    }
    return result
  }

  /// Little-endian.
  private static func number(_ bytes: [UInt8], _ at: Int, _ count: Int) -> UInt64 {
    (0..<count).reversed().reduce(0) { $0 << 8 | UInt64(bytes[at + $1]) }
  }
}
