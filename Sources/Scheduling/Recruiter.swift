package import ScitqProtocol

/// How workers are had for one step: of which flavors, how many, and how much each does at once.
package struct Recruiter: Hashable, Sendable {
  /// What tells recruiters apart.
  package struct Key: Hashable, Sendable, Comparable, CustomStringConvertible {
    package var step: StepID
    /// 1 or more; higher ones buy only what lower ones could not.
    package var rank: Int

    package init(step: StepID, rank: Int) {
      self.step = step
      self.rank = rank
    }

    package static func < (a: Key, b: Key) -> Bool { (a.step, a.rank) < (b.step, b.rank) }
    package var description: String { "recruiter \(rank) of step \(step)" }
  }

  /// How many tasks a worker runs at once.
  package enum Concurrency: Hashable, Sendable {
    case fixed(Int)
    /// The least of host ÷ need over what is stated, within the bounds, and at least 1. Memory and disk in GB.
    case adaptive(cpu: Double?, memory: Double?, disk: Double?, least: Int?, most: Int?)
  }

  package enum Prefetch: Hashable, Sendable {
    case tasks(Int)
    /// Of the concurrency.
    case percent(Int)
  }

  package var key: Key
  package var filter: FlavorFilter
  package var concurrency: Concurrency
  package var prefetch: Prefetch
  /// Nil: no bound but the workflow's and the region's.
  package var maximumWorkers: Int?
  /// How many batches of tasks each slot should serve, 1 or more.
  package var rounds: Int
  /// How many seconds a need must last before hosts are bought, and pass between purchases.
  package var timeout: Int
  /// Since when there is a need that is not met, in microseconds.
  package var needSince: Int64?
  package var boughtAt: Int64?

  package init(
    key: Key, filter: FlavorFilter, concurrency: Concurrency, prefetch: Prefetch = .tasks(0),
    maximumWorkers: Int? = nil, rounds: Int = 1, timeout: Int = 10, needSince: Int64? = nil,
    boughtAt: Int64? = nil
  ) {
    self.key = key
    self.filter = filter
    self.concurrency = concurrency
    self.prefetch = prefetch
    self.maximumWorkers = maximumWorkers
    self.rounds = rounds
    self.timeout = timeout
    self.needSince = needSince
    self.boughtAt = boughtAt
  }

  private static let mostSlots = 10_000.0

  /// How many tasks a host of that flavor runs at once.
  package func concurrency(on flavor: Flavor) -> Int {
    switch concurrency {
    case .fixed(let count): return max(1, count)
    case .adaptive(let cpu, let memory, let disk, let least, let most):
      var count = Double.infinity
      if let cpu, cpu > 0 { count = min(count, flavor.cpu / cpu) }
      if let memory, memory > 0 { count = min(count, flavor.memory / memory) }
      // A disk that its provider does not tell of bounds nothing.
      if let disk, disk > 0, flavor.disk > 0 { count = min(count, flavor.disk / disk) }
      // A hair more than a whole number is meant where 0.3 goes thrice into 0.9.
      let whole = count.isFinite ? Int(min((count + 1e-9).rounded(.down), Self.mostSlots)) : 1
      return max(1, max(least ?? 1, min(most ?? .max, whole)))
    }
  }

  package func prefetch(with concurrency: Int) -> Int {
    switch prefetch {
    case .tasks(let count): max(0, count)
    case .percent(let percent): (concurrency * max(0, percent) + 50) / 100
    }
  }
}
