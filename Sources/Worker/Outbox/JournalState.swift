package import ScitqProtocol

/// What the records of a journal add up to. The same value is what a restarted agent starts from, and what a
/// compacted journal is written from.
package struct JournalState: Sendable, Equatable {
  package struct Held: Sendable, Equatable {
    package var order: [UInt8]
    /// The newest report, acknowledged or not.
    package var lastReport: Report?
    /// For how long the command had run when it was last paused, in microseconds.
    package var ran: Int64 = 0
  }

  package struct Report: Sendable, Equatable {
    package var attempt: AttemptID
    package var sequence: Int64
    package var isFinal: Bool
    package var bytes: [UInt8]
  }

  /// Attempts of which something is left on this host.
  package private(set) var held: [AttemptID: Held] = [:]
  /// In the order of their acceptance; may name attempts that were forgotten since.
  private var accepted: [AttemptID] = []
  /// Reports the server has not acknowledged, in order; those before `firstUnsent` are done with.
  private var reports: [Report] = []
  private var firstUnsent = 0
  package private(set) var acknowledged: Int64 = 0
  /// The highest sequence number ever used.
  package private(set) var lastSequence: Int64 = 0
  /// About how many bytes of file the living records take.
  package private(set) var liveBytes = 0

  package init() {}

  package static func == (a: Self, b: Self) -> Bool {
    a.held == b.held && a.order == b.order && a.unacknowledged == b.unacknowledged
      && a.acknowledged == b.acknowledged && a.lastSequence == b.lastSequence
  }

  /// Held attempts, oldest acceptance first.
  package var order: [AttemptID] { accepted.filter { held[$0] != nil } }

  /// What the server has still to be told, in order.
  package var unacknowledged: [Report] { reports[firstUnsent...].filter { held[$0.attempt] != nil } }

  package mutating func apply(_ record: JournalRecord) {
    switch record {
    case .order(let id, let bytes):
      if held[id] == nil {
        held[id] = Held(order: bytes)
        liveBytes += Self.size(bytes)
        accepted.append(id)
        if accepted.count > 64, accepted.count > 4 * held.count {
          accepted.removeAll { held[$0] == nil }
        }
      }
    case .report(let id, let sequence, let isFinal, let bytes):
      lastSequence = max(lastSequence, sequence)
      guard let old = held[id] else { return }
      let report = Report(attempt: id, sequence: sequence, isFinal: isFinal, bytes: bytes)
      if let previous = old.lastReport, previous.sequence <= acknowledged {
        liveBytes -= Self.size(previous.bytes)
      }
      held[id]!.lastReport = report
      liveBytes += Self.size(bytes)
      reports.append(report)
    case .ran(let id, let microseconds): held[id]?.ran = microseconds
    case .acknowledged(let sequence):
      acknowledged = max(acknowledged, sequence)
      lastSequence = max(lastSequence, sequence)
      while firstUnsent < reports.count, reports[firstUnsent].sequence <= acknowledged {
        let report = reports[firstUnsent]
        // The newest one of each attempt stays alive with it.
        if let attempt = held[report.attempt], attempt.lastReport?.sequence != report.sequence {
          liveBytes -= Self.size(report.bytes)
        }
        firstUnsent += 1
      }
      if firstUnsent > 256, firstUnsent * 2 > reports.count {
        reports.removeFirst(firstUnsent)
        firstUnsent = 0
      }
    case .forgotten(let id):
      guard let old = held.removeValue(forKey: id) else { return }
      liveBytes -= Self.size(old.order)
      var counted = false
      for index in firstUnsent..<reports.count where reports[index].attempt == id {
        liveBytes -= Self.size(reports[index].bytes)
        if reports[index].sequence == old.lastReport?.sequence { counted = true }
      }
      if !counted, let last = old.lastReport { liveBytes -= Self.size(last.bytes) }
      if firstUnsent < reports.count, counted { removeReports(of: id) }
    }
  }

  private mutating func removeReports(of id: AttemptID) {
    reports.removeFirst(firstUnsent)
    firstUnsent = 0
    reports.removeAll { $0.attempt == id }
  }

  /// The fewest records that add up to this state.
  package var records: [JournalRecord] {
    var records: [JournalRecord] = []
    let order = order
    for id in order {
      records.append(.order(id, held[id]!.order))
      if held[id]!.ran > 0 { records.append(.ran(id, microseconds: held[id]!.ran)) }
    }
    func record(_ report: Report) -> JournalRecord {
      .report(report.attempt, sequence: report.sequence, isFinal: report.isFinal, report.bytes)
    }
    let done = order.compactMap { held[$0]!.lastReport }.filter { $0.sequence <= acknowledged }
    records += done.sorted { $0.sequence < $1.sequence }.map(record)
    records.append(.acknowledged(acknowledged))
    records += unacknowledged.map(record)
    // A report of a forgotten attempt may have had the highest number: it must not be used a second time.
    if let spent = unacknowledged.last?.sequence ?? Optional(acknowledged), spent < lastSequence {
      records.append(.report(AttemptID(task: 0, assignment: 0), sequence: lastSequence, isFinal: false, []))
    }
    return records
  }

  private static func size(_ payload: [UInt8]) -> Int { payload.count + 33 }
}
