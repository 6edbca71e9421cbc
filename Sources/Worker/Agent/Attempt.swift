import NIOCore
import ScitqProtocol
import Transfer

/// One giving of a task to this worker, and where it stands. Owned by the agent.
final class Attempt {
  /// How the server, or this agent's end, cut an attempt short. A stronger one replaces a weaker one.
  enum Revocation: Int, Comparable {
    /// A person's wish: kill it and report X.
    case cancel
    /// It is another's, or nobody's, now: kill it, upload nothing, report nothing.
    case kill
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  }

  enum Resume: Equatable {
    /// Its command has not been started.
    case fresh
    /// Its command runs, or ended while nobody looked.
    case running
    /// Its command ran, and there is no trace of it.
    case gone
    /// Its end was reported; outputs and logs may still be here.
    case concluding(isHeld: Bool)
  }

  let id: AttemptID
  let order: WireTaskOrder
  let folders: TaskFolders
  let engine: (any ExecutionEngine)?
  /// As last reported, or `assigned`.
  var status: TaskStatus = .assigned
  var lastReport: WireReport?
  var revocation: Revocation?
  /// Woken when it is revoked, or what it waits for has come.
  var interrupt: Wakeup?
  /// What a cancel leaves it between SIGTERM and SIGKILL is nothing.
  var isAtOnce = false
  var suspension = Suspension()
  /// Somebody drives it from state to state; nobody does once its final report waits for the server.
  var isDriven = false
  /// The server knows that the command has ended and wants its outputs from this attempt.
  var isGranted = false
  /// The server has the final report.
  var isDone = false
  /// Its command has run for longer than it may, and is killed for it.
  var isOverdue = false
  /// Its command ended while there was no agent: nobody knows when.
  var hadEnded = false
  /// Its command has ended, and nothing that it started is left.
  var isQuiet = false
  /// It came from the journal of an agent that ended, and is taken up again.
  var isRestored = false
  /// From where on it is driven; nil for a restored one until its engine was asked.
  var resume: Resume?
  var leases: [ResourceCache.Lease] = []
  /// What was downloaded for it, until that is reported.
  var inputs: [MovedFile] = []
  var logs = LogProgress()

  init(_ id: AttemptID, _ order: WireTaskOrder, store: StorePaths, engines: Engines) {
    self.id = id
    self.order = order
    folders = TaskFolders(id, spec: order.spec, in: store)
    engine = engines.engine(for: order.spec)
  }

  var spec: WireTaskSpec { order.spec }

  /// There is something to bring here before the command can start.
  var wantsStaging: Bool {
    !spec.inputs.isEmpty || !spec.resources.isEmpty || !Engines.isBare(spec.container)
  }

  /// Where its outputs go: to `output` whatever came of the command, to `publish` when it succeeded.
  func destinations(succeeded: Bool) -> [String] {
    let output = spec.output.isEmpty ? [] : [spec.output]
    if !succeeded || spec.publish.isEmpty { return output }
    return spec.publishMode == .move ? [spec.publish] : output + [spec.publish]
  }

  var load: SlotGate.Load {
    SlotGate.Load(
      weight: order.weight, cpu: spec.needs.cpu, memory: spec.needs.memoryBytes, gpu: spec.needs.gpu)
  }

  var reference: WireAttemptRef {
    var reference = WireAttemptRef()
    reference.taskID = id.task.rawValue
    reference.assignment = id.assignment
    return reference
  }
}

/// Whether an attempt's command goes on or stands still, and how long it has gone on.
struct Suspension {
  /// A person's standing wish; it outlives connections, since the server tells it again after each reconcile.
  var isWanted = false
  /// As far as this agent has told the engine, or heard from it.
  var isPaused = false
  /// Somebody is telling the engine.
  var isSettling = false
  /// The command is there to be paused: it has been started, and its end is not known.
  var isPossible = false
  /// For how long the command had run when it last stood still, in microseconds. Pauses do not count.
  var ran: Int64 = 0
  /// Woken when it goes on.
  var resumed: Wakeup?
}

/// How much of an attempt's streams was handed over, in the server's offsets.
struct LogProgress {
  /// The next byte to be queued.
  var queued = LogOffsets()
  /// The server has everything before it.
  var stored = LogOffsets()
  /// The server lacks bytes that are gone here, so that nothing more of this attempt's logs can follow.
  var isBroken = false
  /// The server was asked how far it is, and has answered.
  var isPositionKnown = true
  /// Already told to the engine.
  var told = LogOffsets()

  var isDelivered: Bool { isBroken || stored.out >= queued.out && stored.err >= queued.err }
  var isEmpty: Bool { queued.out == 0 && queued.err == 0 }
}

extension LogOffsets {
  subscript(stream: OutputChunk.Stream) -> Int64 {
    get { stream == .out ? out : err }
    set { if stream == .out { out = newValue } else { err = newValue } }
  }
}

extension AttemptID {
  init(_ reference: WireAttemptRef) {
    self.init(task: TaskID(reference.taskID), assignment: reference.assignment)
  }
  init(_ order: WireTaskOrder) {
    self.init(task: TaskID(order.taskID), assignment: order.assignment)
  }
  init(_ report: WireReport) {
    self.init(task: TaskID(report.taskID), assignment: report.assignment)
  }
}
