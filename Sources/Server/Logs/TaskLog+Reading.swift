import Synchronization

extension TaskLog {
  /// The piece at a position, or nil where nothing more is stored now. With a stream named only that one is read, else
  /// both in order of arrival.
  func piece(at position: LogPosition, of only: LogStream?, max limit: Int) throws
    -> (piece: LogPiece?, next: LogPosition)
  {
    try state.withLock { state in
      guard !state.deleted else { return (nil, position) }
      try load(.out, &state)
      try load(.err, &state)
      var position = position
      guard let (stream, end) = segment(at: &position, of: only, &state) else { return (nil, position) }
      let piece = try read(stream, from: position[stream], to: end, max: limit, &state)
      position[stream] = piece.next
      return (piece, position)
    }
  }

  /// The stream to read at a position, and how far it goes until the other one is due.
  private func segment(
    at position: inout LogPosition, of only: LogStream?, _ state: inout State
  ) -> (LogStream, Int64)? {
    if let only {
      return position[only] < state[only].length ? (only, state[only].length) : nil
    }
    let count = lastPair(&state).count
    while position.checkpoint < count {
      openOrder(&state)
      guard let order = state.order, let pair = try? pair(position.checkpoint, in: order) else { break }
      // Clamped: after a crash the index may know of bytes that did not survive it.
      let out = min(pair.out, state.out.length)
      let err = min(pair.err, state.err.length)
      if position.out < out { return (.out, out) }
      if position.err < err { return (.err, err) }
      position.checkpoint += 1
    }
    if position.out < state.out.length { return (.out, state.out.length) }
    if position.err < state.err.length { return (.err, state.err.length) }
    return nil
  }

  private func read(
    _ stream: LogStream, from offset: Int64, to end: Int64, max limit: Int, _ state: inout State
  ) throws -> LogPiece {
    let limit = min(max(1, limit), CompressedLog.memberBytes)
    if case .compressed(let log) = state[stream].backing {
      guard let member = log.member(at: offset) else { throw SystemError(number: 5) }
      let contents = try inflate(member, of: stream, &state)
      if member.isGap {
        return LogPiece(stream: stream, offset: offset, bytes: contents, next: member.range.upperBound)
      }
      let from = Int(offset - member.range.lowerBound)
      let to = min(
        contents.count, from + limit, Int(min(end, member.range.upperBound) - member.range.lowerBound))
      guard from < to else { throw SystemError(number: 5) }
      return LogPiece(
        stream: stream, offset: offset, bytes: Array(contents[from..<to]), next: offset + Int64(to - from))
    }
    if let gap = state[stream].gaps.containing(offset) {
      return LogPiece(stream: stream, offset: offset, bytes: gap.line, next: gap.range.upperBound)
    }
    let stop = min(end, state[stream].gaps.nextStart(after: offset) ?? end, offset + Int64(limit))
    let bytes = try open(stream, &state, creating: false).read(Int(stop - offset), at: offset)
    guard !bytes.isEmpty else {
      let gap = LogGap(range: offset..<end, reason: "the file ends early")
      return LogPiece(stream: stream, offset: offset, bytes: gap.line, next: end)
    }
    return LogPiece(stream: stream, offset: offset, bytes: bytes, next: offset + Int64(bytes.count))
  }

  private func inflate(
    _ member: CompressedLog.Member, of stream: LogStream, _ state: inout State
  ) throws -> [UInt8] {
    if let last = state[stream].inflated, last.member == member { return last.bytes }
    let bytes = try CompressedLog.contents(of: member, in: open(stream, &state, creating: false))
    state[stream].inflated = (member, bytes)
    return bytes
  }

  /// Where the last lines begin. Reads backwards, and no more than it needs.
  func tail(lines: Int, of only: LogStream?) throws -> LogPosition {
    try state.withLock { state in
      guard !state.deleted else { return LogPosition() }
      try load(.out, &state)
      try load(.err, &state)
      var end = LogPosition(out: state.out.length, err: state.err.length)
      guard lines > 0 else {
        end.checkpoint = lastPair(&state).count
        return end
      }
      var search = LineSearch(wanted: lines)
      if let only {
        end[only] = try backwards(only, from: 0, to: end[only], &search, &state) ?? 0
        return end
      }
      var index = lastPair(&state).count
      while true {
        openOrder(&state)
        var start = LogPosition()
        if index > 0, let order = state.order, let pair = try pair(index - 1, in: order) {
          start = LogPosition(out: min(pair.out, end.out), err: min(pair.err, end.err))
        }
        // Positions name the pair that follows them, so that reading passes over none that is still due.
        for stream in [LogStream.err, .out] {
          let found = try backwards(stream, from: start[stream], to: end[stream], &search, &state)
          end[stream] = found ?? start[stream]
          end.checkpoint = index
          if found != nil { return end }
        }
        guard index > 0 else { return LogPosition() }
        index -= 1
      }
    }
  }

  private struct LineSearch {
    let wanted: Int
    var seen = 0
    /// The line end that closes the whole log begins no further line.
    var atEnd = true
  }

  /// Where, within the range, the last lines begin; nil when they begin before it.
  private func backwards(
    _ stream: LogStream, from start: Int64, to end: Int64, _ search: inout LineSearch, _ state: inout State
  ) throws -> Int64? {
    var place = end
    while place > start {
      var bytes: [UInt8] = []
      var from = max(start, place - 64 * 1024)
      if case .compressed(let log) = state[stream].backing {
        guard let member = log.member(at: place - 1) else { throw SystemError(number: 5) }
        from = max(start, member.range.lowerBound)
        if !member.isGap {
          let contents = try inflate(member, of: stream, &state)
          let base = member.range.lowerBound
          bytes = Array(contents[Int(from - base)..<min(contents.count, Int(place - base))])
        }
      } else if let gap = state[stream].gaps.containing(place - 1) {
        from = max(start, gap.range.lowerBound)
      } else {
        if let gap = state[stream].gaps.gaps.last(where: { $0.range.upperBound < place }) {
          from = max(from, gap.range.upperBound)
        }
        bytes = try open(stream, &state, creating: false).read(Int(place - from), at: from)
      }
      for index in bytes.indices.reversed() {
        if bytes[index] == UInt8(ascii: "\n"), !search.atEnd {
          search.seen += 1
          if search.seen == search.wanted { return from + Int64(index) + 1 }
        }
        search.atEnd = false
      }
      place = from
    }
    return nil
  }

  // MARK: Compression

  /// Compresses what is long enough, one stream after the other, each replaced in one step. A log that is deleted
  /// meanwhile stays deleted; one that cannot be compressed stays as it is.
  func compress() throws {
    for stream in LogStream.allCases {
      let length = try state.withLock { state throws(SystemError) -> Int64? in
        try load(stream, &state)
        guard !state.deleted, state.finished, case .raw = state[stream].backing,
          state[stream].length >= Self.compressedFrom
        else { return nil }
        return state[stream].length
      }
      guard let length else { continue }
      let temporary = path("\(stream.suffix).gz.tmp")
      do {
        try write(stream, length: length, to: temporary)
      } catch {
        LogFile.remove(temporary)
        throw error
      }
      try state.withLock { state in
        guard !state.deleted else { return LogFile.remove(temporary) }
        try LogFile.move(temporary, to: path("\(stream.suffix).gz"))
        try LogFile.synchronizeFolder(folder)
        LogFile.remove(path(stream.suffix))
        if let file = state[stream].file {
          file.close()
          openFiles.subtract(1, ordering: .relaxed)
        }
        state[stream].file = nil
        state[stream].backing = .unknown
        try load(stream, &state)
      }
    }
  }

  /// Reads the stream piece by piece, without holding the log for longer than one piece takes.
  private func write(_ stream: LogStream, length: Int64, to path: String) throws {
    let file = try LogFile(path, .truncate)
    defer { file.close() }
    var position = LogPosition()
    var end: Int64 = 0
    while position[stream] < length {
      let (piece, next) = try piece(at: position, of: stream, max: CompressedLog.memberBytes)
      guard let piece else { throw SystemError(number: 5) }
      let member = CompressedLog.encode(
        piece.bytes, range: piece.offset..<piece.next,
        isGap: piece.next - piece.offset != Int64(piece.bytes.count) || isGap(stream, at: piece.offset))
      try file.writeAll(member, at: end)
      end += Int64(member.count)
      position = next
    }
    try file.synchronize()
  }

  private func isGap(_ stream: LogStream, at offset: Int64) -> Bool {
    state.withLock { $0[stream].gaps.containing(offset) != nil }
  }
}
