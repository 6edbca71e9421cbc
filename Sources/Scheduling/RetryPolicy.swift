import ScitqProtocol

/// What is done about the failures of a task.
///
/// The first rule that matches a failure decides. Without one that does, a failure is tried again while the budget
/// lasts. What the task did not do, being lost with its worker or refused by it, spends nothing, and so many of them
/// in a row end it: the task may be what kills the workers.
package struct RetryPolicy: Hashable, Sendable {
  package struct Rule: Hashable, Sendable {
    package enum Match: Hashable, Sendable {
      case exit(ClosedRange<Int32>)
      /// A stable word, as of `FailureReason`.
      case reason(String)
      case any
    }
    package var match: Match
    /// No retry.
    package var stops: Bool
    /// Of the memory that the attempt had, in thousandths.
    package var memoryMilli: Int64
    /// Before the next attempt, in microseconds; nil: the policy's own.
    package var delay: Int64?

    package init(match: Match, stops: Bool = false, memoryMilli: Int64 = 1000, delay: Int64? = nil) {
      self.match = match
      self.stops = stops
      self.memoryMilli = memoryMilli
      self.delay = delay
    }
  }

  package var rules: [Rule]
  /// Before the first retry, in microseconds. Twice as long before each further one, up to an hour.
  package var delay: Int64

  package init(rules: [Rule] = [], delay: Int64 = 0) {
    self.rules = rules
    self.delay = delay
  }

  /// An attempt that has failed.
  package struct Failure: Hashable, Sendable {
    package var reason: String
    package var exitCode: Int32?
    /// Retries that are left.
    package var budget: Int32
    /// Failures before this one, for the delay.
    package var earlier: Int32
    /// How often in a row it was lost before.
    package var losses: Int32

    package init(reason: String, exitCode: Int32?, budget: Int32, earlier: Int32, losses: Int32) {
      self.reason = reason
      self.exitCode = exitCode
      self.budget = budget
      self.earlier = earlier
      self.losses = losses
    }

    /// It is nothing the task did.
    package var isBlameless: Bool {
      reason == FailureReason.workerLost.rawValue || reason == FailureReason.refused.rawValue
    }
  }

  package enum Decision: Hashable, Sendable {
    /// It has failed for good; with what is to be added to its message.
    case end(String?)
    case retry(spendsBudget: Bool, memoryMilli: Int64, delay: Int64)
  }

  package func decide(_ failure: Failure, mostLosses: Int32) -> Decision {
    let rule = rules.first { $0.matches(failure) }
    if rule?.stops == true { return .end(failure.budget > 0 ? "a rule of --retry-on says stop" : nil) }
    if failure.isBlameless, failure.losses + 1 >= mostLosses {
      return .end("given up after \(failure.losses + 1) losses in a row")
    }
    guard failure.isBlameless || failure.budget > 0 else { return .end(nil) }
    let first = rule?.delay ?? (failure.isBlameless ? 0 : delay)
    let factor = Int64(1) << min(max(0, failure.earlier), 20)
    return .retry(
      spendsBudget: !failure.isBlameless, memoryMilli: rule?.memoryMilli ?? 1000,
      delay: first == 0 ? 0 : max(first, min(first * factor, Self.longestDelay)))
  }

  /// Microseconds.
  private static let longestDelay: Int64 = 3_600_000_000
}

extension RetryPolicy.Rule {
  func matches(_ failure: RetryPolicy.Failure) -> Bool {
    switch match {
    case .exit(let codes): failure.exitCode.map(codes.contains) ?? false
    case .reason(let reason): failure.reason == reason
    case .any: true
    }
  }
}
