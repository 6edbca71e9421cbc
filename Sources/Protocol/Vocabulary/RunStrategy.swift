/// How the tasks of a workflow are given to workers. The raw value is its letter.
public enum RunStrategy: String, CaseIterable, Sendable, Codable {
  /// A step is finished before the next is started.
  case batch = "B"
  /// Each thread, a chain of dependent tasks, is driven as deep as it goes before another is opened, and stays on
  /// the worker that holds its data.
  case thread = "T"
  /// Nothing starts by itself: one task at a time, on the operator's word.
  case debug = "D"
  /// Made, and not yet launched.
  case suspended = "Z"

  /// The word for this strategy, as people read it.
  public var word: String {
    switch self {
    case .batch: "batch-wise"
    case .thread: "thread-wise"
    case .debug: "debug"
    case .suspended: "suspended"
    }
  }
}

/// How far a worker may be used beyond the step that it serves. The raw value is its letter.
public enum WorkerScope: String, CaseIterable, Sendable, Codable {
  /// Its own step and nothing else.
  case none = "N"
  /// The same; it was rented for a task that cannot share its host.
  case task = "T"
  /// All steps of its step's workflow.
  case workflow = "W"
  /// Every step of every workflow, and tasks without a step.
  case everything = "G"
}
