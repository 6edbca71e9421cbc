import CZlib

/// zlib for payloads, in one go.
package enum Deflate {
  /// Nil when zlib has no memory.
  package static func deflate(_ bytes: [UInt8]) -> [UInt8]? {
    var size = compressBound(uLong(bytes.count))
    let result = [UInt8](unsafeUninitializedCapacity: Int(size)) { room, count in
      let status = compress2(room.baseAddress!, &size, bytes, uLong(bytes.count), 1)
      count = status == Z_OK ? Int(size) : 0
    }
    return result.isEmpty ? nil : result
  }

  /// Nil when the bytes are not a whole zlib stream, or hold more than `limit` bytes.
  package static func inflate(_ bytes: [UInt8], limit: Int) -> [UInt8]? {
    var stream = z_stream()
    guard inflateInit_(&stream, zlibVersion(), Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return nil }
    defer { inflateEnd(&stream) }
    var input = bytes
    var output: [UInt8] = []
    return input.withUnsafeMutableBufferPointer { source -> [UInt8]? in
      stream.next_in = source.baseAddress
      stream.avail_in = uInt(source.count)
      while true {
        let step = min(max(bytes.count * 4, 4096), 1 << 20)
        var produced = 0
        var status: Int32 = Z_OK
        let part = [UInt8](unsafeUninitializedCapacity: step) { room, count in
          stream.next_out = room.baseAddress
          stream.avail_out = uInt(step)
          status = CZlib.inflate(&stream, Z_NO_FLUSH)
          produced = step - Int(stream.avail_out)
          count = produced
        }
        output.append(contentsOf: part)
        guard output.count <= limit else { return nil }
        if status == Z_STREAM_END { return stream.avail_in == 0 ? output : nil }
        guard status == Z_OK, produced > 0 || stream.avail_in > 0 else { return nil }
      }
    }
  }
}
