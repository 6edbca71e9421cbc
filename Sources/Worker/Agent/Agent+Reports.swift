import Logging
import NIOCore
import ScitqProtocol
import SwiftProtobuf

/// What is told to the server, and kept until it has it.
extension Agent {
  /// So many reports go in one call at most, and about so many bytes.
  private static let batch = 4000
  private static let batchBytes = 4 << 20
  private static let pause = Duration.milliseconds(5)

  /// Puts down that an attempt has reached a state. It is told as soon as it is on the disk and the server can be
  /// reached, in the order in which things happened.
  func report(
    _ attempt: Attempt, _ status: TaskStatus, at: Int64 = Clock.microseconds(),
    _ fill: (inout WireReport) -> Void = { _ in }
  ) {
    var report = WireReport()
    report.sequence = nextSequence
    nextSequence += 1
    report.taskID = attempt.id.task.rawValue
    report.assignment = attempt.id.assignment
    report.status = status.rawValue
    report.at = at
    if status.isFinal {
      report.outBytes = attempt.logs.isBroken ? attempt.logs.stored.out : attempt.logs.queued.out
      report.errBytes = attempt.logs.isBroken ? attempt.logs.stored.err : attempt.logs.queued.err
    }
    if !attempt.inputs.isEmpty {
      report.inputs = Self.listed(attempt.inputs)
      attempt.inputs = []
    }
    fill(&report)
    attempt.status = status
    attempt.lastReport = report
    outgoing.append(report)
    let bytes: [UInt8] = (try? report.serializedBytes()) ?? []
    setup.journal.append(
      .report(attempt.id, sequence: report.sequence, isFinal: status.isFinal, bytes))
    reportsWanted?.wake()
    reportsWanted = nil
  }

  func report(_ attempt: Attempt, _ verdict: Verdict, at: Int64 = Clock.microseconds()) {
    // What ended while it stood still, killed from outside, is no longer suspended.
    if attempt.status == .suspended { report(attempt, .running, at: at) }
    report(attempt, verdict.status, at: at) { report in
      if let reason = verdict.reason {
        report.reason = reason.rawValue
        report.message = verdict.message
      }
      if let code = verdict.exitCode {
        report.hasExitCode_p = true
        report.exitCode = code
      }
    }
  }

  /// One call at a time; what gathers meanwhile goes with the next.
  func deliverReports(_ link: any ServerLink) async throws(CallError) {
    while !Task.isCancelled {
      if outgoing.isEmpty {
        let wakeup = Wakeup()
        reportsWanted = wakeup
        await wakeup.wait()
        continue
      }
      // While the next ones wait in line for a slot, the server's news is in no hurry: one call tells of several ends,
      // where each by itself would cost both hosts more than a short command does.
      if gate.waitingCount > 0, let last = lastDelivery {
        try? await Task.sleep(until: last + Self.pause)
      }
      lastDelivery = .now
      // Nothing is told that a crash could make this agent forget.
      await setup.journal.flushed()
      var reports = WireReports()
      var room = Self.batchBytes
      for report in outgoing.prefix(Self.batch) {
        if room < 0 { break }
        reports.reports.append(report)
        room -=
          64 + report.message.utf8.count
          + (report.outputs + report.inputs).reduce(0) { $0 + $1.uri.utf8.count + 40 }
      }
      guard let first = reports.reports.first else { continue }
      let answer = try await link.call(.report, reports)
      if answer.sequence < first.sequence, answer.superseded.isEmpty {
        // The server took none of them: not a reason to ask it without pause.
        try? await Task.sleep(for: .milliseconds(200))
      }
      accepted(answer)
    }
  }

  private func accepted(_ answer: WireReportsAccepted) {
    for reference in answer.superseded {
      if let attempt = attempts[AttemptID(reference)] { revoke(attempt, .kill) }
    }
    var over: [AttemptID] = []
    while let report = outgoing.first, report.sequence <= answer.sequence {
      outgoing.removeFirst()
      guard let attempt = attempts[AttemptID(report)], attempt.revocation != .kill else { continue }
      switch TaskStatus(rawValue: report.status) {
      case .uploading, .uploadingFailed:
        attempt.isGranted = true
        attempt.interrupt?.wake()
      case .succeeded, .failed, .canceled:
        attempt.isDone = true
        if !attempt.isDriven { over.append(attempt.id) }
      default: break
      }
    }
    setup.journal.append(.acknowledged(answer.sequence))
    if over.isEmpty { return }
    // Removing a process's traces is quick and is done for all in one go; containers take their time, each its own.
    let bare = over.filter { attempts[$0].map { Engines.isBare($0.spec.container) } ?? true }
    if !bare.isEmpty { spawn(.clean(bare)) }
    for id in over where !bare.contains(id) { spawn(.clean([id])) }
  }

  /// Nothing more is said of this attempt.
  func forgetWords(of id: AttemptID) {
    outgoing.removeAll { AttemptID($0) == id }
    dropLogs(of: id)
  }
}
