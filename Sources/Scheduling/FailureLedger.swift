package import ScitqProtocol

/// Which steps fail on which workers, to tell a broken worker from a broken command.
///
/// A worker on which a step fails three times in a row, while none of its failures in a row stand on any other worker
/// and another has succeeded with it since the first of the three, is at fault itself. Memory: what has failed lately
/// on each step, until it succeeds there.
package struct FailureLedger: Sendable {
  private static let mostInARow = 3

  private struct Row: Sendable {
    var failures = 0
    /// Successes of other workers since the first of the failures.
    var successesElsewhere = 0
  }
  private var steps: [StepID?: [WorkerID: Row]] = [:]

  /// A worker that is to be given nothing more until somebody has looked at it.
  package struct Quarantine: Hashable, Sendable, CustomStringConvertible {
    package var worker: WorkerID
    package var step: StepID?
    package var failures: Int
    package var successesElsewhere: Int

    package var description: String {
      let tasks = step.map { "of step \($0)" } ?? "without a step"
      return
        "the last \(failures) tasks \(tasks) failed on it, and \(successesElsewhere) succeeded elsewhere meanwhile"
    }
  }

  package init() {}

  /// Notes how a task has ended on a worker; answers a quarantine once for each row of failures.
  package mutating func record(step: StepID?, worker: WorkerID, succeeded: Bool) -> Quarantine? {
    var rows = steps[step] ?? [:]
    defer { steps[step] = rows.isEmpty ? nil : rows }
    if succeeded {
      rows[worker] = nil
      for other in rows.keys { rows[other]?.successesElsewhere += 1 }
      return nil
    }
    rows[worker, default: Row()].failures += 1
    guard let row = rows[worker], row.failures >= Self.mostInARow, row.successesElsewhere > 0, rows.count == 1
    else { return nil }
    rows[worker] = nil
    return Quarantine(
      worker: worker, step: step, failures: row.failures, successesElsewhere: row.successesElsewhere)
  }

  package mutating func forget(step: StepID?) { steps[step] = nil }

  package mutating func forget(worker: WorkerID) {
    for step in steps.keys {
      steps[step]?[worker] = nil
      if steps[step]?.isEmpty == true { steps[step] = nil }
    }
  }
}
