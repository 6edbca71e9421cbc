import ScitqProtocol

/// How an attempt waits for what it needs, and is woken when it is no longer wanted.
extension Agent {
  func check(_ attempt: Attempt) throws(Stop) {
    if attempt.revocation != nil { throw .revoked }
    if ending != nil { throw .closing }
  }

  /// Waits for something that wakes the attempt.
  func wait(
    _ attempt: Attempt, revokedBy level: Attempt.Revocation, until isSo: () -> Bool
  ) async throws(Stop) {
    while !isSo() {
      if let revocation = attempt.revocation, revocation >= level { throw .revoked }
      if ending != nil || Task.isCancelled { throw .closing }
      let wakeup = Wakeup()
      attempt.interrupt = wakeup
      await wakeup.wait()
    }
  }

  private enum Race<Value: Sendable>: Sendable {
    case done(Value)
    case failed(any Error)
    case interrupted, late
  }

  /// Does something that ends early when the attempt is revoked or the limit passes (milliseconds; 0: none).
  func interruptible<Value: Sendable>(
    _ attempt: Attempt, limit: Int64, phase: String, _ work: @escaping @Sendable () async throws -> Value
  ) async throws(Stop) -> Value {
    try check(attempt)
    let id = attempt.id
    let race = await withTaskGroup(of: Race<Value>.self, returning: Race<Value>.self) { group in
      group.addTask {
        do { return .done(try await work()) } catch { return .failed(error) }
      }
      group.addTask {
        await self.untilStopped(id)
        return .interrupted
      }
      if limit > 0 {
        group.addTask {
          try? await Task.sleep(for: .milliseconds(limit))
          return .late
        }
      }
      // What the work had done when it was stopped is not lost: the first event decides unless the work is done.
      var first: Race<Value>?
      for await next in group {
        group.cancelAll()
        if case .done = next { return next }
        if first == nil { first = next }
      }
      return first ?? .interrupted
    }
    attempt.interrupt = nil
    switch race {
    case .done(let value): return value
    case .failed(let error):
      try check(attempt)
      throw Stop(error)
    case .interrupted:
      try check(attempt)
      throw .closing
    case .late: throw .failed(.timeout, "the \(phase) took longer than its limit of \(Self.span(limit))")
    }
  }

  /// Until the attempt is revoked or the agent ends. It is woken for other things too, such as logs that have arrived,
  /// and those are no reason to stop what it does.
  private func untilStopped(_ id: AttemptID) async {
    while let attempt = attempts[id], attempt.revocation == nil, ending == nil, !Task.isCancelled {
      let wakeup = Wakeup()
      attempt.interrupt = wakeup
      await wakeup.wait()
    }
  }

  func leaveGate(_ id: AttemptID) {
    gate.leave(id)
    admitWaiting()
  }

  func admitWaiting() {
    for id in gate.admit() { attempts[id]?.interrupt?.wake() }
  }

  static func span(_ milliseconds: Int64) -> String {
    milliseconds % 1000 == 0 ? "\(milliseconds / 1000) s" : "\(milliseconds) ms"
  }
}
