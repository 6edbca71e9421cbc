import GRDB
import ScitqProtocol

/// How long the phases took that ended in one batch, by step.
struct PhaseSums: Sendable {
  enum Phase: String, Sendable { case download, run_succeeded, run_failed, upload }

  private struct Key: Hashable {
    var step: StepID
    var phase: Phase
  }

  /// In microseconds.
  private struct Sum {
    var count: Int64 = 0
    var total: Int64 = 0
    var least = Int64.max
    var most: Int64 = 0
    var startedAt = Int64.max
    var endedAt: Int64 = 0
  }

  private var sums: [Key: Sum] = [:]

  var isEmpty: Bool { sums.isEmpty }

  /// A phase of an attempt has ended.
  ///
  /// - Parameter pause: for how long it stood still meanwhile.
  mutating func add(_ phase: Phase, of step: StepID, from start: Int64, to end: Int64, pause: Int64 = 0) {
    let span = max(0, end - start - pause)
    var sum = sums[Key(step: step, phase: phase)] ?? Sum()
    sum.count += 1
    sum.total += span
    sum.least = min(sum.least, span)
    sum.most = max(sum.most, span)
    sum.startedAt = min(sum.startedAt, start)
    sum.endedAt = max(sum.endedAt, end)
    sums[Key(step: step, phase: phase)] = sum
  }

  func write(_ db: Database) throws {
    if sums.isEmpty { return }
    let statement = try HotStatement(
      db,
      """
      INSERT INTO phase_count (step_id, phase, count, total, least, most, started_at, ended_at)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET count = count + excluded.count, total = total + excluded.total,
        least = min(least, excluded.least), most = max(most, excluded.most),
        started_at = min(started_at, excluded.started_at), ended_at = max(ended_at, excluded.ended_at)
      """)
    for (key, sum) in sums {
      statement.bind(key.step.rawValue)
      statement.bind(key.phase.rawValue)
      statement.bind(sum.count)
      statement.bind(sum.total)
      statement.bind(sum.least)
      statement.bind(sum.most)
      statement.bind(sum.startedAt)
      statement.bind(sum.endedAt)
      try statement.run()
    }
  }
}

extension TaskRow {
  /// Adds the phase that a change of status has ended. Attempts that are replaced count as well: their time was spent.
  func measure(leaving old: TaskStatus, at now: Int64, in sums: inout PhaseSums) {
    guard let step else { return }
    switch (old, status) {
    case (.downloading, .onHold), (.downloading, .running), (.downloading, .failed):
      if let start = downloadStartedAt { sums.add(.download, of: step, from: start, to: now) }
    case (.running, .uploading):
      if let start = runStartedAt {
        sums.add(.run_succeeded, of: step, from: start, to: runEndedAt ?? now, pause: suspendedFor)
      }
    case (.running, .uploadingFailed), (.running, .failed), (.running, .canceled), (.suspended, .canceled),
      (.suspended, .failed):
      if let start = runStartedAt {
        sums.add(.run_failed, of: step, from: start, to: runEndedAt ?? now, pause: suspendedFor)
      }
    case (.uploading, .succeeded), (.uploading, .failed), (.uploadingFailed, .failed):
      if let start = runEndedAt { sums.add(.upload, of: step, from: start, to: now) }
    default: break
    }
  }
}
