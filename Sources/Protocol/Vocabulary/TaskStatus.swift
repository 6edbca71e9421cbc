/// Where a task stands. The raw value is its letter on the wire, in the database and on screens.
public enum TaskStatus: String, CaseIterable, Sendable, Codable {
  /// Defined in a workflow that is still a draft.
  case inactive = "I"
  /// A prerequisite has not been met.
  case waiting = "W"
  /// Ready for any worker of its step.
  case pending = "P"
  /// Given to a worker, which has not yet acknowledged it.
  case assigned = "A"
  /// The worker has acknowledged it.
  case accepted = "C"
  /// Inputs, resources and image are being staged.
  case downloading = "D"
  /// Staged and ready; no slot is free.
  case onHold = "O"
  /// The command is running.
  case running = "R"
  /// The command succeeded; outputs are on their way.
  case uploading = "U"
  /// The command failed; outputs and logs are on their way.
  case uploadingFailed = "V"
  /// Done, and everything is uploaded.
  case succeeded = "S"
  /// Ended in failure; the reason is recorded.
  case failed = "F"
  /// Paused by a person; can resume.
  case suspended = "Z"
  /// Ended by a person.
  case canceled = "X"

  /// The word for this status, as people read it.
  public var word: String {
    switch self {
    case .inactive: "inactive"
    case .waiting: "waiting"
    case .pending: "pending"
    case .assigned: "assigned"
    case .accepted: "accepted"
    case .downloading: "downloading"
    case .onHold: "on hold"
    case .running: "running"
    case .uploading: "uploading"
    case .uploadingFailed: "uploading (failed)"
    case .succeeded: "succeeded"
    case .failed: "failed"
    case .suspended: "suspended"
    case .canceled: "canceled"
    }
  }

  /// A final task never changes again.
  public var isFinal: Bool { self == .succeeded || self == .failed || self == .canceled }

  /// A worker has the task and answers for it: it holds a lease on it.
  public var isOnWorker: Bool {
    switch self {
    case .assigned, .accepted, .downloading, .onHold, .running, .uploading, .uploadingFailed: true
    default: false
    }
  }

  /// The worker has it and its command has not started: nothing has happened yet, so it may be taken back.
  public var isBeforeStart: Bool {
    switch self {
    case .assigned, .accepted, .downloading, .onHold: true
    default: false
    }
  }
}
