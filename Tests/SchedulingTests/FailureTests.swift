import Scheduling
import ScitqProtocol
import Testing

@Suite("What failures mean")
struct FailureTests {
  @Test("a worker on which alone a step fails is at fault; a step that fails everywhere is at fault itself")
  func ledger() {
    var ledger = FailureLedger()
    for _ in 1...2 { #expect(ledger.record(step: 1, worker: 1, succeeded: false) == nil) }
    #expect(ledger.record(step: 1, worker: 2, succeeded: true) == nil)
    // The same worker fails with another step: that is another row.
    #expect(ledger.record(step: 2, worker: 1, succeeded: false) == nil)
    let quarantine = ledger.record(step: 1, worker: 1, succeeded: false)
    #expect(quarantine?.worker == 1)
    #expect(
      quarantine?.description
        == "the last 3 tasks of step 1 failed on it, and 1 succeeded elsewhere meanwhile")
    #expect(ledger.record(step: 1, worker: 1, succeeded: false) == nil, "it is said once")

    for worker in [1, 2, 1, 2, 1, 2] as [WorkerID] {
      #expect(ledger.record(step: 3, worker: worker, succeeded: false) == nil)
    }
    #expect(ledger.record(step: 3, worker: 3, succeeded: true) == nil)
    #expect(ledger.record(step: 3, worker: 1, succeeded: false) == nil, "it fails on two")
    for _ in 1...9 {
      #expect(ledger.record(step: 4, worker: 1, succeeded: false) == nil, "nobody else has tried")
    }
    _ = ledger.record(step: 5, worker: 1, succeeded: false)
    _ = ledger.record(step: 5, worker: 1, succeeded: false)
    _ = ledger.record(step: 5, worker: 1, succeeded: true)
    _ = ledger.record(step: 5, worker: 2, succeeded: true)
    #expect(ledger.record(step: 5, worker: 1, succeeded: false) == nil, "not in a row")
  }

  private func failure(
    _ reason: String = "exit-code", code: Int32? = 1, budget: Int32 = 3, earlier: Int32 = 0, losses: Int32 = 0
  ) -> RetryPolicy.Failure {
    RetryPolicy.Failure(reason: reason, exitCode: code, budget: budget, earlier: earlier, losses: losses)
  }

  @Test("the first rule that matches decides")
  func rules() {
    let policy = RetryPolicy(
      rules: [
        .init(match: .exit(137...137), memoryMilli: 2000), .init(match: .exit(2...2), stops: true),
        .init(match: .reason("timeout"), delay: 7), .init(match: .exit(1...9), memoryMilli: 1500),
      ], delay: 1000)
    #expect(
      policy.decide(failure(code: 137), mostLosses: 5)
        == .retry(spendsBudget: true, memoryMilli: 2000, delay: 1000))
    guard case .end(let why) = policy.decide(failure(code: 2), mostLosses: 5) else {
      Issue.record("exit 2 was retried")
      return
    }
    #expect(why == "a rule of --retry-on says stop")
    #expect(
      policy.decide(failure(code: 3), mostLosses: 5)
        == .retry(spendsBudget: true, memoryMilli: 1500, delay: 1000))
    #expect(
      policy.decide(failure("timeout", code: nil), mostLosses: 5)
        == .retry(spendsBudget: true, memoryMilli: 1000, delay: 7))
    #expect(
      policy.decide(failure(code: 77), mostLosses: 5)
        == .retry(spendsBudget: true, memoryMilli: 1000, delay: 1000))
    #expect(policy.decide(failure(code: 137, budget: 0), mostLosses: 5) == .end(nil))
  }

  @Test("delays double up to an hour, and what the task did not do costs nothing until the fifth time")
  func delays() {
    let policy = RetryPolicy(delay: 60_000_000)
    let delays = (0...8).map { earlier -> Int64 in
      guard case .retry(_, _, let delay) = policy.decide(failure(earlier: Int32(earlier)), mostLosses: 5)
      else {
        return -1
      }
      return delay / 60_000_000
    }
    #expect(delays == [1, 2, 4, 8, 16, 32, 60, 60, 60])
    #expect(
      policy.decide(failure("worker-lost", code: nil, budget: 0, losses: 3), mostLosses: 5)
        == .retry(spendsBudget: false, memoryMilli: 1000, delay: 0))
    #expect(
      policy.decide(failure("worker-lost", code: nil, losses: 4), mostLosses: 5)
        == .end("given up after 5 losses in a row"))
  }
}
