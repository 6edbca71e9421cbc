import Logging
import ScitqProtocol

/// How a command is made to stand still and to go on, because a person wants it.
extension Agent {
  /// A standing wish. It may be told any number of times; before the command runs it is remembered.
  func wish(_ attempt: Attempt, suspended: Bool) {
    attempt.suspension.isWanted = suspended
    settle(attempt)
  }

  /// Sees to it that what is wished for comes about, where it has not.
  func settle(_ attempt: Attempt) {
    guard attempt.suspension.isPossible, !attempt.suspension.isSettling, !isSettled(attempt) else { return }
    attempt.suspension.isSettling = true
    spawn(.settle(attempt.id))
  }

  private func isSettled(_ attempt: Attempt) -> Bool {
    attempt.suspension.isPaused == attempt.suspension.isWanted
      && attempt.status == (attempt.suspension.isWanted ? .suspended : .running)
  }

  func settle(_ id: AttemptID) async {
    guard let attempt = attempts[id], let engine = attempt.engine else { return }
    defer { attempt.suspension.isSettling = false }
    while attempt.revocation == nil, ending == nil, !isSettled(attempt) {
      let wanted = attempt.suspension.isWanted
      do {
        if attempt.suspension.isPaused != wanted {
          // One that has ended meanwhile says so itself.
          guard try await wanted ? engine.pause(id) : engine.resume(id) else { return }
          attempt.suspension.isPaused = wanted
        }
      } catch {
        if ending == nil {
          logger.warning("task \(id.task) could not be \(wanted ? "suspended" : "resumed"): \(error)")
        }
        return
      }
      guard attempt.suspension.isPossible else { return }
      if attempt.revocation != nil {
        // The kill may have come before the pause: what stands still would not hear it.
        if wanted { _ = try? await engine.resume(id) }
        return
      }
      if attempt.suspension.isWanted == wanted { tell(attempt, suspended: wanted) }
    }
  }

  private func tell(_ attempt: Attempt, suspended: Bool) {
    if suspended, attempt.status == .running {
      attempt.suspension.ran = hasRun(attempt)
      report(attempt, .suspended)
      // After the report: a crash between the two forgets what has run, and never counts it twice.
      setup.journal.append(.ran(attempt.id, microseconds: attempt.suspension.ran))
    } else if !suspended, attempt.status == .suspended {
      report(attempt, .running)
      attempt.suspension.resumed?.wake()
    }
  }

  // MARK: The time that counts

  /// For how long the command has run, in microseconds, pauses left out, on the clock of the reports.
  func hasRun(_ attempt: Attempt) -> Int64 {
    guard attempt.status == .running, let last = attempt.lastReport else { return attempt.suspension.ran }
    return attempt.suspension.ran + max(0, Clock.microseconds() - last.at)
  }

  /// Returns when the command has run for so long, and puts that down. False: nobody waits for that any longer.
  func untilItHasRun(_ id: AttemptID, milliseconds limit: Int64) async -> Bool {
    while let attempt = attempts[id], !Task.isCancelled {
      if attempt.status == .suspended {
        let wakeup = Wakeup()
        attempt.suspension.resumed = wakeup
        await wakeup.wait()
        continue
      }
      let left = limit * 1000 - hasRun(attempt)
      if left <= 0 {
        attempt.isOverdue = true
        return true
      }
      try? await Task.sleep(for: .microseconds(left))
    }
    return false
  }
}
