import FoundationEssentials
import Logging
import NIOCore
import ScitqProtocol

/// Log bytes of all attempts on their way to the server, in order.
struct LogQueue {
  struct Item {
    var id: AttemptID
    var stream: OutputChunk.Stream
    var offset: Int64
    /// None: only asks how far the server is.
    var bytes: ArraySlice<UInt8>
    var number: UInt64

    var end: Int64 { offset + Int64(bytes.count) }
  }

  var items = CircularBuffer<Item>()
  var bytes = 0
  var number: UInt64 = 0
  /// Set while the delivery waits for something to deliver.
  var wanted: Wakeup?
  /// Attempts that wait for room.
  var crowd: Set<AttemptID> = []

  static let room = 8 << 20
  static let frame = 1 << 20
  static let piece = 256 << 10

  mutating func append(
    _ id: AttemptID, _ stream: OutputChunk.Stream, _ offset: Int64, _ bytes: ArraySlice<UInt8>
  ) {
    number += 1
    items.append(Item(id: id, stream: stream, offset: offset, bytes: bytes, number: number))
    self.bytes += bytes.count
    wanted?.wake()
    wanted = nil
  }
}

/// What of a stream is kept when it is longer than allowed: its beginning, and its end once that is known.
struct LogTrim {
  /// Bytes; 0: no limit.
  let limit: Int64
  private(set) var total: Int64 = 0

  init(limit: Int64) { self.limit = max(0, limit) }

  var head: Int64 { limit == 0 ? .max : limit / 2 }

  /// The part of a piece that belongs to the head.
  mutating func take(_ offset: Int64, _ bytes: [UInt8]) -> ArraySlice<UInt8> {
    total = max(total, offset + Int64(bytes.count))
    return bytes.prefix(Int(min(Int64(bytes.count), max(0, head - offset))))
  }

  /// Where the end that is kept begins in the stream; nil when the head was all of it.
  var tail: Int64? { total > head ? max(head, total - (limit - limit / 2)) : nil }

  /// Stands in the place of what was left out.
  var notice: [UInt8] {
    guard let tail, tail > head else { return [] }
    return Array(
      "\n[scitq: \(tail - head) bytes are left out here: the log is longer than \(limit) bytes]\n".utf8)
  }
}

extension Agent {
  /// Hands over what an attempt prints, until it has ended and all of it is in the queue.
  func follow(_ id: AttemptID) async {
    guard let attempt = attempts[id], let engine = attempt.engine else { return }
    do {
      if !attempt.logs.isPositionKnown {
        logQueue.append(id, .out, 0, [])
        logQueue.append(id, .err, 0, [])
        try await wait(attempt, revokedBy: .kill) { attempt.logs.isPositionKnown }
        attempt.logs.queued = attempt.logs.stored
      }
      var out = LogTrim(limit: settings.maxLogBytes)
      var err = LogTrim(limit: settings.maxLogBytes)
      let start = attempt.logs.queued
      let from = LogOffsets(out: min(start.out, out.head), err: min(start.err, err.head))
      for try await chunk in engine.output(of: id, from: from) {
        let bytes =
          chunk.stream == .out ? out.take(chunk.offset, chunk.bytes) : err.take(chunk.offset, chunk.bytes)
        try await enqueue(attempt, chunk.stream, chunk.offset, bytes)
        await tell(engine, attempt, out, err)
      }
      try await handOverEnds(attempt, engine, out, err)
    } catch is Stop {
      return
    } catch {
      if !Task.isCancelled {
        logger.warning("the log of task \(id.task) could not be read to its end: \(error)")
      }
    }
  }

  private func handOverEnds(
    _ attempt: Attempt, _ engine: any ExecutionEngine, _ out: LogTrim, _ err: LogTrim
  ) async throws {
    guard out.tail != nil || err.tail != nil else { return }
    for (stream, trim) in [(OutputChunk.Stream.out, out), (.err, err)] where trim.tail != nil {
      try await enqueue(attempt, stream, trim.head, trim.notice[...])
    }
    let from = LogOffsets(out: out.tail ?? out.total, err: err.tail ?? err.total)
    for try await chunk in engine.output(of: attempt.id, from: from) {
      let trim = chunk.stream == .out ? out : err
      guard let tail = trim.tail else { continue }
      let offset = trim.head + Int64(trim.notice.count) + chunk.offset - tail
      try await enqueue(attempt, chunk.stream, offset, chunk.bytes[...])
    }
  }

  /// Puts bytes into the queue, those the server has already left out. Waits while the queue is full.
  private func enqueue(
    _ attempt: Attempt, _ stream: OutputChunk.Stream, _ offset: Int64, _ bytes: ArraySlice<UInt8>
  ) async throws(Stop) {
    let known = max(0, attempt.logs.queued[stream] - offset)
    var rest = bytes.dropFirst(Int(min(known, Int64(bytes.count))))
    var at = offset + known
    while !rest.isEmpty, !attempt.logs.isBroken {
      if attempt.revocation == .kill { throw .revoked }
      if logQueue.bytes >= LogQueue.room {
        let id = attempt.id
        try await wait(attempt, revokedBy: .kill) {
          if self.logQueue.bytes < LogQueue.room { return true }
          self.logQueue.crowd.insert(id)
          return false
        }
      }
      let piece = rest.prefix(LogQueue.piece)
      logQueue.append(attempt.id, stream, at, piece)
      at += Int64(piece.count)
      attempt.logs.queued[stream] = at
      rest = rest.dropFirst(piece.count)
    }
  }

  /// Lets the engine give up what the server has, now and then. Beyond the head the engine keeps what may be the end.
  private func tell(_ engine: any ExecutionEngine, _ attempt: Attempt, _ out: LogTrim, _ err: LogTrim) async {
    func safe(_ stored: Int64, _ trim: LogTrim) -> Int64 {
      stored < trim.head ? stored : max(trim.head, trim.tail ?? trim.head)
    }
    let upTo = LogOffsets(out: safe(attempt.logs.stored.out, out), err: safe(attempt.logs.stored.err, err))
    guard upTo.out + upTo.err - attempt.logs.told.out - attempt.logs.told.err >= 1 << 20 else { return }
    attempt.logs.told = upTo
    await engine.delivered(attempt.id, upTo: upTo)
  }

  /// One call at a time, with pieces of as many attempts as there are.
  func deliverLogs(_ link: any ServerLink) async throws(CallError) {
    while !Task.isCancelled {
      if logQueue.items.isEmpty {
        let wakeup = Wakeup()
        logQueue.wanted = wakeup
        await wakeup.wait()
        continue
      }
      var request = WireLogChunks()
      var size = 0
      var last: UInt64 = 0
      for item in logQueue.items {
        if size > 0, size + item.bytes.count > LogQueue.frame || request.chunks.count >= 4000 { break }
        var chunk = WireLogChunk()
        chunk.taskID = item.id.task.rawValue
        chunk.assignment = item.id.assignment
        chunk.stream = item.stream == .out ? .out : .err
        chunk.offset = item.offset
        chunk.data = .init(item.bytes)
        request.chunks.append(chunk)
        size += item.bytes.count
        last = item.number
      }
      let answer = try await link.call(.appendLog, request)
      if !stored(answer, upTo: last) { try? await Task.sleep(for: .milliseconds(200)) }
    }
  }

  /// False when the server has nothing more than before.
  private func stored(_ answer: WireLogsStored, upTo last: UInt64) -> Bool {
    for reference in answer.superseded {
      if let attempt = attempts[AttemptID(reference)] { revoke(attempt, .kill) }
    }
    var sent: [TaskID: AttemptID] = [:]
    var first: [AttemptID: LogOffsets] = [:]
    for item in logQueue.items {
      if item.number > last { break }
      sent[item.id.task] = item.id
      if item.bytes.isEmpty { continue }
      var least = first[item.id] ?? LogOffsets(out: .max, err: .max)
      least[item.stream] = min(least[item.stream], item.offset)
      first[item.id] = least
    }
    for position in answer.positions {
      guard let id = sent[TaskID(position.taskID)], let attempt = attempts[id] else { continue }
      let stream: OutputChunk.Stream = position.stream == .err ? .err : .out
      attempt.logs.stored[stream] = max(attempt.logs.stored[stream], position.offset)
      if let begin = first[id]?[stream], begin != .max, position.offset < begin {
        logger.error(
          "the server lacks bytes of the log of task \(id.task) that are no longer here; its log ends there")
        attempt.logs.isBroken = true
      }
    }
    var isFurther = !answer.superseded.isEmpty
    var again: [LogQueue.Item] = []
    while var item = logQueue.items.first, item.number <= last {
      logQueue.items.removeFirst()
      logQueue.bytes -= item.bytes.count
      guard let attempt = attempts[item.id], !attempt.logs.isBroken, attempt.revocation != .kill else {
        continue
      }
      let have = attempt.logs.stored[item.stream]
      if item.end <= have || item.bytes.isEmpty {
        isFurther = true
        continue
      }
      if have > item.offset {
        item.bytes = item.bytes.dropFirst(Int(have - item.offset))
        item.offset = have
        isFurther = true
      }
      again.append(item)
    }
    for item in again.reversed() {
      logQueue.items.prepend(item)
      logQueue.bytes += item.bytes.count
    }
    for id in sent.values {
      guard let attempt = attempts[id] else { continue }
      if attempt.logs.isBroken { dropLogs(of: id) }
      attempt.logs.isPositionKnown = true
      attempt.interrupt?.wake()
    }
    wakeCrowd()
    return isFurther
  }

  func dropLogs(of id: AttemptID) {
    guard logQueue.items.contains(where: { $0.id == id }) else { return }
    logQueue.items.removeAll { $0.id == id }
    logQueue.bytes = logQueue.items.reduce(0) { $0 + $1.bytes.count }
    wakeCrowd()
  }

  private func wakeCrowd() {
    guard logQueue.bytes < LogQueue.room, !logQueue.crowd.isEmpty else { return }
    for id in logQueue.crowd { attempts[id]?.interrupt?.wake() }
    logQueue.crowd = []
  }
}
