package import ScitqProtocol

/// Who asks for a task to move.
///
/// A person's standing wish is carried out as `.person`, also when the server does it later: a cancellation
/// whose worker was lost, or `--on-dependency-failure cancel`. What runs is canceled, suspended and resumed by its
/// worker: that it has happened is the worker's to say, and that it may happen a person's.
package enum Actor: String, CaseIterable, Sendable {
  case server, worker, person
}

/// The life of a task: the one function that decides whether a move is legal.
package enum Lifecycle {
  /// Whether `actor` may move a task from one status to another; `from` is nil for a task that is being made.
  ///
  /// Says nothing about the task's own circumstances (unmet prerequisites, a worker, a wish to cancel):
  /// `Cluster.move` looks at those. A report that skips a letter is not legal; each is reported.
  package static func allows(_ from: TaskStatus?, _ to: TaskStatus, by actor: Actor) -> Bool {
    guard let from else {
      return actor == .server && (to == .inactive || to == .waiting || to == .pending)
    }
    if from.isFinal { return false }
    switch actor {
    case .server: return serverMay(from, to)
    case .worker: return workerMay(from, to)
    case .person: return personMay(from, to)
    }
  }

  private static func serverMay(_ from: TaskStatus, _ to: TaskStatus) -> Bool {
    switch (from, to) {
    case (.inactive, .waiting), (.inactive, .pending): true
    // It need not run: its output is there already.
    case (.waiting, .pending), (.waiting, .succeeded): true
    case (.pending, .assigned): true
    // The worker was lost, drained or deleted before the command started: nothing has happened yet.
    case (.assigned, .pending), (.accepted, .pending), (.downloading, .pending), (.onHold, .pending): true
    // It was lost while the command ran or stood still, or its outputs were on their way.
    case (.running, .failed), (.suspended, .failed), (.uploading, .failed), (.uploadingFailed, .failed): true
    // It was ready for longer than it may be.
    case (.pending, .failed): true
    default: false
    }
  }

  private static func workerMay(_ from: TaskStatus, _ to: TaskStatus) -> Bool {
    switch (from, to) {
    case (.assigned, .accepted): true
    // On hold is passed over when a slot is free, downloading when there is nothing to stage.
    case (.accepted, .downloading), (.accepted, .onHold), (.accepted, .running): true
    case (.downloading, .onHold), (.downloading, .running): true
    case (.onHold, .running): true
    case (.accepted, .failed), (.downloading, .failed), (.onHold, .failed): true
    case (.running, .uploading), (.running, .uploadingFailed): true
    case (.uploading, .succeeded), (.uploading, .failed), (.uploadingFailed, .failed): true
    // The pause that a person asked for is confirmed, and its end.
    case (.running, .suspended), (.suspended, .running): true
    // The kill that a person asked for is confirmed.
    case (_, .canceled): from.isOnWorker || from == .suspended
    default: false
    }
  }

  private static func personMay(_ from: TaskStatus, _ to: TaskStatus) -> Bool {
    switch (from, to) {
    case (.waiting, .suspended), (.pending, .suspended): true
    case (.suspended, .waiting), (.suspended, .pending): true
    case (_, .canceled): true
    default: false
    }
  }
}

/// A move that the lifecycle, or the task's own circumstances, do not allow. Nothing was changed.
package struct IllegalMove: Error, Hashable, Sendable, CustomStringConvertible {
  package var task: TaskID
  /// Nil where the task is not in the cluster: it has ended, or never was.
  package var from: TaskStatus?
  package var to: TaskStatus
  package var actor: Actor
  /// What stands against it.
  package var cause: Cause

  package enum Cause: Hashable, Sendable {
    /// The cluster holds no such task: it has ended, or never was.
    case unknownTask
    /// The lifecycle has no such move for this actor.
    case lifecycle
    /// Only `assign` gives tasks to workers.
    case onlyByAssignment
    /// It has unmet prerequisites, so it cannot become pending.
    case unmetPrerequisites
    /// All its prerequisites are met, so it cannot wait.
    case nothingUnmet
    /// It is paused on a worker and can only go on there.
    case heldByWorker
    /// No worker holds it.
    case noWorker
    /// A worker says that it was canceled, and nobody asked for that.
    case noCancelWish
    /// A worker says that it has paused it, and nobody asked for that.
    case noSuspendWish
  }

  package init(task: TaskID, from: TaskStatus?, to: TaskStatus, actor: Actor, cause: Cause) {
    self.task = task
    self.from = from
    self.to = to
    self.actor = actor
    self.cause = cause
  }

  package var description: String {
    let start = from.map { "\($0.word) (\($0.rawValue))" } ?? "nothing"
    let move = "task \(task) cannot go from \(start) to \(to.word) (\(to.rawValue))"
    switch cause {
    case .unknownTask: return "task \(task) cannot become \(to.word): it has ended or does not exist"
    case .lifecycle: return "\(move) at the word of a \(actor.rawValue)"
    case .onlyByAssignment: return "\(move): only the scheduler assigns tasks"
    case .unmetPrerequisites: return "\(move): it has prerequisites that are not met"
    case .nothingUnmet: return "\(move): all its prerequisites are met"
    case .heldByWorker: return "\(move): it is paused on a worker and can only go on there"
    case .noWorker: return "\(move): no worker holds it"
    case .noCancelWish: return "\(move): nobody asked for it to be canceled"
    case .noSuspendWish: return "\(move): nobody asked for it to be suspended"
    }
  }
}
