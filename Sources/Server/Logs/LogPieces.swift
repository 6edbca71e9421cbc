/// One of the two streams a task prints to.
package enum LogStream: UInt8, CaseIterable, Sendable, Hashable {
  case out = 1
  case err = 2

  /// The ending of its file.
  var suffix: String { self == .out ? "out" : "err" }
}

/// Some bytes of one stream, at most 256 KiB.
package struct LogPiece: Sendable, Equatable {
  package var stream: LogStream
  /// Where the piece begins, in the numbering of the task's own output.
  package var offset: Int64
  package var bytes: [UInt8]
  /// Where reading goes on. `offset + bytes.count`, except where bytes were lost or dropped: there `bytes` is a line
  /// that says so, and `next` lies behind the gap.
  package var next: Int64
}

/// A place in both streams of a task, in the order in which their bytes arrived.
package struct LogPosition: Sendable, Equatable {
  package var out: Int64
  package var err: Int64
  /// Checkpoints of the order index before this one lie behind the position.
  var checkpoint: Int

  package init(out: Int64 = 0, err: Int64 = 0) {
    self.out = out
    self.err = err
    self.checkpoint = 0
  }

  subscript(stream: LogStream) -> Int64 {
    get { stream == .out ? out : err }
    set {
      if stream == .out { out = newValue } else { err = newValue }
    }
  }
}

/// A stretch of a stream whose bytes are not there.
struct LogGap: Equatable, Sendable {
  var range: Range<Int64>
  var reason: String

  /// What a reader sees in its place.
  var line: [UInt8] {
    Array("\n[scitq: \(range.upperBound - range.lowerBound) bytes of log lost: \(reason)]\n".utf8)
  }
}

/// The gaps of one stream, sorted, none touching another of the same reason.
struct GapList: Equatable, Sendable {
  private(set) var gaps: [LogGap] = []

  /// Takes in a gap. What it overlaps becomes part of it and takes over its reason.
  mutating func insert(_ gap: LogGap) {
    guard !gap.range.isEmpty else { return }
    var merged = gap
    gaps.removeAll { other in
      let touches =
        other.range.overlaps(merged.range)
        || (other.reason == merged.reason
          && (other.range.upperBound == merged.range.lowerBound
            || other.range.lowerBound == merged.range.upperBound))
      if touches {
        merged.range =
          min(
            other.range.lowerBound, merged.range.lowerBound)..<max(
            other.range.upperBound, merged.range.upperBound)
      }
      return touches
    }
    let place = gaps.firstIndex { $0.range.lowerBound > merged.range.lowerBound } ?? gaps.count
    gaps.insert(merged, at: place)
  }

  /// The gap that holds the offset, else nil.
  func containing(_ offset: Int64) -> LogGap? { gaps.first { $0.range.contains(offset) } }

  /// Where the first gap behind the offset begins.
  func nextStart(after offset: Int64) -> Int64? {
    gaps.first { $0.range.lowerBound > offset }?.range.lowerBound
  }

  var end: Int64 { gaps.last?.range.upperBound ?? 0 }
  var isEmpty: Bool { gaps.isEmpty }

  /// One line a gap: stream, first byte, first byte behind it, reason. A blank line comes first, so that a line torn
  /// by a full disk does not spoil the next one.
  func lines(for stream: LogStream) -> String {
    gaps.reduce(into: "\n") {
      $0 += "\(stream.suffix) \($1.range.lowerBound) \($1.range.upperBound) \($1.reason)\n"
    }
  }

  /// Reads what `lines(for:)` wrote, perhaps several times; passes over what is torn.
  init(lines text: String, for stream: LogStream) {
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 3)
      guard words.count == 4, words[0] == stream.suffix, let from = Int64(words[1]), let to = Int64(words[2]),
        from >= 0, from < to
      else { continue }
      insert(LogGap(range: from..<to, reason: String(words[3])))
    }
  }

  init() {}
}
