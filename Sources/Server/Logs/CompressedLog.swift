import CZlib

/// A finished stream in the gzip format: a row of members of at most 256 KiB each, so that any place is reached by
/// inflating one member, and `zcat` shows the whole. Each member's header carries, in an extra field of the format, which bytes
/// of the stream it holds and how long the member is; a member in place of lost bytes holds the line that says so.
struct CompressedLog {
  struct Member: Equatable {
    var range: Range<Int64>
    /// Where the member begins in the file, and how long it is.
    var start: Int64
    var size: Int
    var isGap: Bool
  }

  enum Damage: Error, CustomStringConvertible {
    case header(at: Int64)
    case content(at: Int64)

    var description: String {
      switch self {
      case .header(let at): "the compressed log has no valid header at byte \(at)"
      case .content(let at): "the compressed log cannot be inflated at byte \(at)"
      }
    }
  }

  static let memberBytes = 256 * 1024
  /// Fixed header of the format (10), length of the extra field (2), its name and length (4), and its 24 bytes.
  private static let headerBytes = 40

  let members: [Member]
  var length: Int64 { members.last?.range.upperBound ?? 0 }

  /// Reads the headers, and nothing else.
  init(_ file: LogFile) throws {
    var members: [Member] = []
    var place: Int64 = 0
    let end = try file.size()
    while place < end {
      let header = try file.read(Self.headerBytes, at: place)
      guard header.count == Self.headerBytes, header[0...3].elementsEqual([0x1f, 0x8b, 8, 4]),
        header[12...15].elementsEqual([0x53, 0x51, 24, 0])
      else { throw Damage.header(at: place) }
      let from = Int64(bitPattern: Self.number(header[16..<24]))
      let to = Int64(bitPattern: Self.number(header[24..<32]))
      let size = Int64(Self.number(header[32..<36]))
      guard from == (members.last?.range.upperBound ?? 0), to > from, size > Self.headerBytes + 8,
        place + size <= end
      else { throw Damage.header(at: place) }
      members.append(
        Member(range: from..<to, start: place, size: Int(size), isGap: header[36] != 0))
      place += size
    }
    self.members = members
  }

  /// The member that holds the offset.
  func member(at offset: Int64) -> Member? {
    var low = 0
    var high = members.count
    while low < high {
      let middle = (low + high) / 2
      if members[middle].range.upperBound <= offset { low = middle + 1 } else { high = middle }
    }
    return low < members.count && members[low].range.contains(offset) ? members[low] : nil
  }

  /// What a member holds.
  static func contents(of member: Member, in file: LogFile) throws -> [UInt8] {
    let bytes = try file.read(member.size, at: member.start)
    guard bytes.count == member.size else { throw Damage.content(at: member.start) }
    let trailer = bytes.count - 8
    let size = Int(number(bytes[(trailer + 4)...]))
    guard size <= memberBytes else { throw Damage.content(at: member.start) }
    var stream = z_stream()
    guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
      throw Damage.content(at: member.start)
    }
    defer { inflateEnd(&stream) }
    var status = Z_OK
    // One byte more than announced: a stream that holds more is damage, not a longer log.
    let output = [UInt8](unsafeUninitializedCapacity: size + 1) { buffer, filled in
      bytes.withUnsafeBufferPointer { input in
        stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress! + headerBytes)
        stream.avail_in = UInt32(trailer - headerBytes)
        stream.next_out = buffer.baseAddress!
        stream.avail_out = UInt32(size + 1)
        status = inflate(&stream, Z_FINISH)
        filled = size + 1 - Int(stream.avail_out)
      }
    }
    guard status == Z_STREAM_END, output.count == size,
      UInt64(checksum(output)) == number(bytes[trailer..<(trailer + 4)])
    else { throw Damage.content(at: member.start) }
    return output
  }

  /// One member for `content`, which stands for `range` of the stream.
  static func encode(_ content: [UInt8], range: Range<Int64>, isGap: Bool) -> [UInt8] {
    precondition(content.count <= memberBytes)
    var stream = z_stream()
    let ready = deflateInit2_(
      &stream, 5, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
    precondition(ready == Z_OK, "zlib refuses parameters that it documents")
    defer { deflateEnd(&stream) }
    let bound = Int(deflateBound(&stream, UInt(content.count)))
    let deflated = [UInt8](unsafeUninitializedCapacity: bound) { buffer, filled in
      content.withUnsafeBufferPointer { input in
        stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
        stream.avail_in = UInt32(input.count)
        stream.next_out = buffer.baseAddress!
        stream.avail_out = UInt32(bound)
        let status = deflate(&stream, Z_FINISH)
        precondition(status == Z_STREAM_END, "zlib's own bound was too small")
        filled = bound - Int(stream.avail_out)
      }
    }
    var member: [UInt8] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 28, 0, 0x53, 0x51, 24, 0]
    member.reserveCapacity(headerBytes + deflated.count + 8)
    append(UInt64(bitPattern: range.lowerBound), bytes: 8, to: &member)
    append(UInt64(bitPattern: range.upperBound), bytes: 8, to: &member)
    append(UInt64(headerBytes + deflated.count + 8), bytes: 4, to: &member)
    append(isGap ? 1 : 0, bytes: 4, to: &member)
    member += deflated
    append(UInt64(checksum(content)), bytes: 4, to: &member)
    append(UInt64(content.count), bytes: 4, to: &member)
    return member
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt32 {
    UInt32(truncatingIfNeeded: bytes.withUnsafeBufferPointer { crc32(0, $0.baseAddress, UInt32($0.count)) })
  }

  private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private static func append(_ value: UInt64, bytes count: Int, to output: inout [UInt8]) {
    for index in 0..<count { output.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index))) }
  }
}
