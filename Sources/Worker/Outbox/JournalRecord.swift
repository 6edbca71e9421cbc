package import ScitqProtocol

/// One thing that the agent must know after a crash.
package enum JournalRecord: Sendable, Hashable {
  /// An attempt was accepted: the bytes of its `WireTaskOrder`.
  case order(AttemptID, [UInt8])
  /// Something to tell the server: the bytes of a `WireReport`.
  case report(AttemptID, sequence: Int64, isFinal: Bool, [UInt8])
  /// The server has everything up to this sequence number.
  case acknowledged(Int64)
  /// For how long the attempt's command had run when it was last paused.
  case ran(AttemptID, microseconds: Int64)
  /// Nothing is left of the attempt on this host.
  case forgotten(AttemptID)
}

/// How records stand in the file:
///
///     0        4        8      9               25
///     ┌────────┬────────┬──────┬───────────────┬──────────┐
///     │ length │ crc-32 │ kind │ two numbers … │ payload… │   little-endian; length counts from kind on
///     └────────┴────────┴──────┴───────────────┴──────────┘
///
/// A report carries a third number, its sequence; so does a time, in microseconds. The checksum covers kind, numbers and payload; a record whose
/// checksum is wrong was being written when the power went, and it and what follows never happened.
package enum JournalFormat {
  package static let magic: [UInt8] = Array("scitq journal 1\n".utf8)

  static let headerBytes = 8
  static let longest = 64 << 20

  package static func append(_ record: JournalRecord, to bytes: inout [UInt8]) {
    let start = bytes.count
    bytes.append(contentsOf: repeatElement(0, count: headerBytes))
    func put(_ kind: UInt8, _ a: Int64, _ b: Int64) {
      bytes.append(kind)
      putNumber(a, &bytes)
      putNumber(b, &bytes)
    }
    switch record {
    case .order(let id, let payload):
      put(1, id.task.rawValue, id.assignment)
      bytes.append(contentsOf: payload)
    case .report(let id, let sequence, let isFinal, let payload):
      put(isFinal ? 5 : 2, id.task.rawValue, id.assignment)
      putNumber(sequence, &bytes)
      bytes.append(contentsOf: payload)
    case .acknowledged(let sequence): put(3, sequence, 0)
    case .forgotten(let id): put(4, id.task.rawValue, id.assignment)
    case .ran(let id, let microseconds):
      put(6, id.task.rawValue, id.assignment)
      putNumber(microseconds, &bytes)
    }
    let body = start + headerBytes
    putWord(UInt32(bytes.count - body), &bytes, at: start)
    putWord(Checksum.crc32(bytes[body...]), &bytes, at: start + 4)
  }

  /// The records from the start of `bytes`, and how many bytes they take; what is torn or wrong ends them.
  package static func records(in bytes: ArraySlice<UInt8>) -> (records: [JournalRecord], length: Int) {
    var records: [JournalRecord] = []
    var at = bytes.startIndex
    while at + headerBytes <= bytes.endIndex {
      let length = Int(word(bytes, at))
      let body = at + headerBytes
      guard length >= 17, length <= longest, body + length <= bytes.endIndex else { break }
      let content = bytes[body..<body + length]
      guard Checksum.crc32(content) == word(bytes, at + 4), let record = record(content) else { break }
      records.append(record)
      at = body + length
    }
    return (records, at - bytes.startIndex)
  }

  private static func record(_ content: ArraySlice<UInt8>) -> JournalRecord? {
    let start = content.startIndex
    let a = number(content, start + 1)
    let b = number(content, start + 9)
    let id = AttemptID(task: TaskID(a), assignment: b)
    switch content[start] {
    case 1: return .order(id, Array(content[(start + 17)...]))
    case 2, 5:
      guard content.count >= 25 else { return nil }
      return .report(
        id, sequence: number(content, start + 17), isFinal: content[start] == 5,
        Array(content[(start + 25)...]))
    case 3: return .acknowledged(a)
    case 4: return .forgotten(id)
    case 6:
      guard content.count >= 25 else { return nil }
      return .ran(id, microseconds: number(content, start + 17))
    default: return nil
    }
  }

  private static func putNumber(_ value: Int64, _ bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  private static func putWord(_ value: UInt32, _ bytes: inout [UInt8], at index: Int) {
    for place in 0..<4 { bytes[index + place] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(place))) }
  }

  private static func word(_ bytes: ArraySlice<UInt8>, _ at: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) }
  }

  private static func number(_ bytes: ArraySlice<UInt8>, _ at: Int) -> Int64 {
    Int64(bitPattern: (0..<8).reduce(0) { $0 | UInt64(bytes[at + $1]) << (8 * UInt64($1)) })
  }
}

/// CRC-32 (the polynomial of zlib and Ethernet).
enum Checksum {
  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ (value >> 1) : value >> 1 }
  }

  static func crc32(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    let table = Self.table
    return bytes.withUnsafeBufferPointer { bytes in
      table.withUnsafeBufferPointer { table in
        var value: UInt32 = 0xFFFF_FFFF
        for byte in bytes { value = table[Int((value ^ UInt32(byte)) & 0xFF)] ^ (value >> 8) }
        return value ^ 0xFFFF_FFFF
      }
    }
  }
}
