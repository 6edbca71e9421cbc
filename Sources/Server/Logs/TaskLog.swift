import Synchronization

/// The files of one task's log, and all that is done with them. Every call may wait for the disk: call on a thread that
/// may wait. Calls on one task follow one another; tasks do not wait for each other.
///
/// A byte's place in the file is its place in the stream, so that the length of a file is how far the stream is stored, also
/// after a restart. What is lost or dropped is a hole in the file and a line in `<id>.gap`. The order index `<id>.ord` holds
/// pairs of lengths (out, err; 16 bytes): between two pairs, stdout came first and stderr after it. So a pair is
/// written only when stdout goes on after stderr, and most tasks have none.
final class TaskLog: Sendable {
  struct Limits: Sendable {
    var maxBytes: Int64
    var compress: Bool

    /// The beginning of a long stream that always stays: half of the limit, on a block boundary.
    var head: Int64 { (maxBytes / 2 + 4095) / 4096 * 4096 }
    /// How much is dropped at once.
    var granule: Int64 { max(4096, maxBytes / 16 / 4096 * 4096) }
  }

  struct Appended: Sendable {
    var length: Int64
    /// Why bytes could not be written, if they could not.
    var failure: SystemError?
    /// Bytes were written: the disk works.
    var wrote = false
  }

  enum Backing {
    case unknown, absent, raw
    case compressed(CompressedLog)
  }

  struct Stream {
    var backing: Backing = .unknown
    var file: LogFile?
    var length: Int64 = 0
    /// Up to here the stream is on disk for certain.
    var synced: Int64 = 0
    var gaps = GapList()
    var gapsUnrecorded = false
    /// The folder does not list the file for certain yet.
    var isNew = false
    /// The last member that was inflated.
    var inflated: (member: CompressedLog.Member, bytes: [UInt8])?
  }

  struct State {
    var out = Stream()
    var err = Stream()
    var order: LogFile?
    /// The last pair of the order index, and how many it has; nil until it was looked at.
    var lastPair: (out: Int64, err: Int64, count: Int)?
    var finished = false
    var deleted = false

    subscript(stream: LogStream) -> Stream {
      get { stream == .out ? out : err }
      _modify {
        if stream == .out { yield &out } else { yield &err }
      }
    }
  }

  let task: Int64
  let folder: String
  let limits: Limits
  let budget: DescriptorBudget
  let state = Mutex(State())
  /// Users that are at work on it or wait for it: it must not be forgotten.
  let pins = Atomic<Int>(0)
  let openFiles = Atomic<Int>(0)
  /// It knows of something that the disk does not.
  let holdsUnrecorded = Atomic<Bool>(false)

  init(task: Int64, directory: String, limits: Limits, budget: DescriptorBudget) {
    self.task = task
    folder = "\(directory)/logs/\(task / 1000)"
    self.limits = limits
    self.budget = budget
  }

  deinit { closeFiles() }

  func path(_ suffix: String) -> String { "\(folder)/\(task).\(suffix)" }

  // MARK: Writing

  func append(_ bytes: UnsafeRawBufferPointer, to stream: LogStream, at offset: Int64) -> Appended {
    state.withLock { state in
      do throws(SystemError) {
        try load(.out, &state)
        try load(.err, &state)
      } catch {
        return Appended(length: state[stream].length, failure: error)
      }
      let length = state[stream].length
      guard !state.finished, !state.deleted, offset >= 0, offset <= length,
        offset + Int64(bytes.count) > length
      else { return Appended(length: length) }
      if case .compressed = state[stream].backing { return Appended(length: length) }
      if stream == .out, state.err.length > 0 { notePair(&state) }

      let new = UnsafeRawBufferPointer(rebasing: bytes[Int(length - offset)...])
      var written = 0
      var failure: SystemError?
      do throws(SystemError) {
        let file = try open(stream, &state, creating: true)
        (written, failure) = file.write(new, at: length)
      } catch {
        failure = error
      }
      state[stream].length += Int64(written)
      if let failure, !failure.isShortage {
        lose(
          length + Int64(written)..<length + Int64(new.count), of: stream, because: failure.description,
          &state)
      } else if state[stream].gapsUnrecorded {
        recordGaps(&state)
      }
      dropMiddle(of: stream, &state)
      return Appended(length: state[stream].length, failure: failure, wrote: failure == nil)
    }
  }

  /// The stream goes on at `end`, and what lies between is lost, for a reason that readers will see.
  func skip(_ stream: LogStream, to end: Int64, because reason: String) -> Int64 {
    state.withLock { state in
      guard (try? load(.out, &state)) != nil, (try? load(.err, &state)) != nil else { return 0 }
      guard !state.finished, !state.deleted, end > state[stream].length else { return state[stream].length }
      if stream == .out, state.err.length > 0 { notePair(&state) }
      _ = try? open(stream, &state, creating: true)
      lose(state[stream].length..<end, of: stream, because: reason, &state)
      recordGaps(&state)
      return state[stream].length
    }
  }

  /// Puts both streams on disk. Nothing is done for what is there already.
  func synchronize() -> SystemError? {
    state.withLock { state in
      recordGaps(&state)
      var failure: SystemError?
      var isNew = false
      for stream in LogStream.allCases {
        guard case .raw = state[stream].backing, state[stream].synced < state[stream].length else { continue }
        do throws(SystemError) {
          try open(stream, &state, creating: false).synchronize()
        } catch {
          // The length is not held back: a task goes on when the disk does not. The caller warns.
          failure = error
        }
        state[stream].synced = state[stream].length
        isNew = isNew || state[stream].isNew
        state[stream].isNew = false
      }
      if let order = state.order { try? order.synchronize() }
      if isNew {
        do throws(SystemError) { try LogFile.synchronizeFolder(folder) } catch { failure = error }
      }
      return failure
    }
  }

  /// For a call that puts the whole file system on disk: the lengths before it, to be given to `markSynced` after it.
  func beginGroupSync() -> (out: Int64, err: Int64) {
    state.withLock { state in
      recordGaps(&state)
      return (state.out.length, state.err.length)
    }
  }

  func markSynced(_ lengths: (out: Int64, err: Int64)) {
    state.withLock { state in
      state.out.synced = max(state.out.synced, lengths.out)
      state.err.synced = max(state.err.synced, lengths.err)
      state.out.isNew = false
      state.err.isNew = false
    }
  }

  /// Whether both streams have arrived, and whether they are on disk too.
  func reaches(out: Int64, err: Int64) -> (arrived: Bool, durable: Bool) {
    state.withLock { state in
      // A stream that printed nothing is not looked for on disk.
      if out > 0 { try? load(.out, &state) }
      if err > 0 { try? load(.err, &state) }
      return (
        state.out.length >= out && state.err.length >= err,
        state.out.synced >= out && state.err.synced >= err
      )
    }
  }

  func lengths() throws(SystemError) -> (out: Int64, err: Int64) {
    try state.withLock { state throws(SystemError) in
      try load(.out, &state)
      try load(.err, &state)
      return (state.out.length, state.err.length)
    }
  }

  func closeFiles() {
    state.withLock { state in close(&state) }
  }

  /// Nothing is appended from now on. Says whether the log is long enough to compress.
  func finish() -> Bool {
    state.withLock { state in
      recordGaps(&state)
      state.finished = true
      close(&state)
      return limits.compress && !state.deleted
        && LogStream.allCases.contains { state[$0].length >= Self.compressedFrom }
    }
  }

  func delete() {
    state.withLock { state in
      close(&state)
      for suffix in ["out", "err", "ord", "gap", "out.gz", "err.gz"] { LogFile.remove(path(suffix)) }
      state = State()
      state.deleted = true
      state.out.backing = .absent
      state.err.backing = .absent
      state.lastPair = (0, 0, 0)
    }
    holdsUnrecorded.store(false, ordering: .relaxed)
  }

  // MARK: Files

  /// Learns what the disk has of a stream.
  func load(_ stream: LogStream, _ state: inout State) throws(SystemError) {
    guard case .unknown = state[stream].backing else { return }
    do throws(SystemError) {
      let file = try openCounted(path(stream.suffix), .write)
      state[stream].file = file
      state[stream].length = try file.size()
      state[stream].backing = .raw
      if let gaps = try? LogFile(path("gap"), .read) {
        defer { gaps.close() }
        let text = String(decoding: try gaps.read(Int(gaps.size()), at: 0), as: UTF8.self)
        state[stream].gaps = GapList(lines: text, for: stream)
        state[stream].length = max(state[stream].length, state[stream].gaps.end)
      }
      return
    } catch {
      guard error.isMissing else { throw error }
    }
    do throws(SystemError) {
      let file = try openCounted(path("\(stream.suffix).gz"), .read)
      state[stream].file = file
      guard let log = try? CompressedLog(file) else { throw SystemError(number: 5) }
      state[stream].backing = .compressed(log)
      state[stream].length = log.length
      state[stream].synced = log.length
      state.finished = true
    } catch {
      guard error.isMissing else { throw error }
      state[stream].backing = .absent
    }
  }

  /// The open file of a stream that is stored.
  func open(_ stream: LogStream, _ state: inout State, creating: Bool) throws(SystemError) -> LogFile {
    if let file = state[stream].file { return file }
    let file: LogFile
    switch state[stream].backing {
    case .compressed:
      file = try openCounted(path("\(stream.suffix).gz"), .read)
    case .raw:
      file = try openCounted(path(stream.suffix), state.finished ? .read : .write)
    case .absent, .unknown:
      guard creating else { throw SystemError(number: 2) }
      do throws(SystemError) {
        file = try openCounted(path(stream.suffix), .create)
      } catch {
        guard error.isMissing else { throw error }
        try LogFile.makeFolder(folder)
        try? LogFile.synchronizeFolder(String(folder[..<folder.lastIndex(of: "/")!]))
        file = try openCounted(path(stream.suffix), .create)
      }
      state[stream].backing = .raw
      state[stream].isNew = true
    }
    state[stream].file = file
    return file
  }

  private func openCounted(_ path: String, _ mode: LogFile.Mode) throws(SystemError) -> LogFile {
    let file = try LogFile(path, mode, budget: budget)
    openFiles.add(1, ordering: .relaxed)
    return file
  }

  private func close(_ state: inout State) {
    for file in [state.out.file, state.err.file, state.order] {
      guard let file else { continue }
      file.close()
      openFiles.subtract(1, ordering: .relaxed)
    }
    state.out.file = nil
    state.err.file = nil
    state.order = nil
    state.out.inflated = nil
    state.err.inflated = nil
  }

  // MARK: What is lost

  private func lose(_ range: Range<Int64>, of stream: LogStream, because reason: String, _ state: inout State)
  {
    guard !range.isEmpty else { return }
    state[stream].gaps.insert(LogGap(range: range, reason: reason))
    state[stream].gapsUnrecorded = true
    state[stream].length = range.upperBound
    // Needs no room: the file gets a hole, and its length is right after a restart.
    state[stream].file?.setSize(range.upperBound)
    holdsUnrecorded.store(true, ordering: .relaxed)
  }

  /// Writes down gaps that the disk does not know. On a full disk they wait in memory for the next try.
  private func recordGaps(_ state: inout State) {
    guard state.out.gapsUnrecorded || state.err.gapsUnrecorded else { return }
    let text = Array((state.out.gaps.lines(for: .out) + state.err.gaps.lines(for: .err)).utf8)
    try? LogFile.makeFolder(folder)
    guard let file = try? LogFile(path("gap"), .appending) else { return }
    defer { file.close() }
    guard (try? file.writeAll(text, at: 0)) != nil, (try? file.synchronize()) != nil else { return }
    state.out.gapsUnrecorded = false
    state.err.gapsUnrecorded = false
    holdsUnrecorded.store(false, ordering: .relaxed)
  }

  /// Over the limit, what lies between the head and the newest part is dropped.
  private func dropMiddle(of stream: LogStream, _ state: inout State) {
    let length = state[stream].length
    guard length > limits.maxBytes, case .raw = state[stream].backing, let file = state[stream].file else {
      return
    }
    let tail = max(limits.granule, limits.maxBytes - limits.head - limits.granule)
    let cut = (length - tail) / limits.granule * limits.granule
    let known = state[stream].gaps.containing(limits.head)?.range.upperBound ?? limits.head
    guard cut > known else { return }
    // Written down first: a hole that nobody knows of would read as zeros.
    state[stream].gaps.insert(LogGap(range: limits.head..<cut, reason: "longer than max_log_bytes"))
    state[stream].gapsUnrecorded = true
    recordGaps(&state)
    guard !state[stream].gapsUnrecorded else { return }
    _ = file.discard(limits.head..<cut)
  }

  // MARK: The order of arrival

  /// Before stdout goes on: if stderr came after the last pair, the lengths of now become a pair.
  private func notePair(_ state: inout State) {
    let last = lastPair(&state)
    guard state.err.length > last.err else { return }
    let pair = (out: state.out.length, err: state.err.length, count: last.count + 1)
    if state.order == nil { state.order = try? openCounted(path("ord"), .create) }
    // An index that cannot be written costs the exact order, and nothing else.
    guard let order = state.order,
      (try? order.writeAll(Self.bytes(pair.out) + Self.bytes(pair.err), at: Int64(last.count) * 16)) != nil
    else { return }
    state.lastPair = pair
  }

  func lastPair(_ state: inout State) -> (out: Int64, err: Int64, count: Int) {
    if let pair = state.lastPair { return pair }
    var last: (out: Int64, err: Int64, count: Int) = (0, 0, 0)
    openOrder(&state)
    if let order = state.order, let size = try? order.size() {
      let count = Int(size / 16)
      if count > 0, let pair = try? pair(count - 1, in: order) { last = (pair.out, pair.err, count) }
    }
    state.lastPair = last
    return last
  }

  func openOrder(_ state: inout State) {
    if state.order == nil { state.order = try? openCounted(path("ord"), state.finished ? .read : .write) }
  }

  func pair(_ index: Int, in order: LogFile) throws(SystemError) -> (out: Int64, err: Int64)? {
    let bytes = try order.read(16, at: Int64(index) * 16)
    guard bytes.count == 16 else { return nil }
    return (Self.number(bytes[0..<8]), Self.number(bytes[8..<16]))
  }

  private static func bytes(_ value: Int64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> Int64(8 * $0)) }
  }

  private static func number(_ bytes: ArraySlice<UInt8>) -> Int64 {
    bytes.reversed().reduce(0) { $0 << 8 | Int64($1) }
  }

  static let compressedFrom: Int64 = 16 * 1024
}
