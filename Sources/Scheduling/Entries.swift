package import ScitqProtocol

/// What runs commands on a host.
package struct EngineSet: OptionSet, Hashable, Sendable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  /// A container engine.
  package static let containers = EngineSet(rawValue: 1)
  /// Processes of the host itself.
  package static let processes = EngineSet(rawValue: 2)
}

/// What a task needs of its host, or what a host has.
///
/// In a task zero means that nothing was stated; in a host it means that it has none.
package struct Needs: Hashable, Sendable {
  /// Thousandths of a cpu.
  package var cpuMilli: Int32
  package var memoryMiB: Int32
  package var diskMiB: Int32
  /// Whole GPUs.
  package var gpu: Int32
  /// How long a task takes at most, or for how long a host will be there.
  package var seconds: Int32
  package var engines: EngineSet

  package init(
    cpuMilli: Int32 = 0, memoryMiB: Int32 = 0, diskMiB: Int32 = 0, gpu: Int32 = 0, seconds: Int32 = 0,
    engines: EngineSet = []
  ) {
    self.cpuMilli = cpuMilli
    self.memoryMiB = memoryMiB
    self.diskMiB = diskMiB
    self.gpu = gpu
    self.seconds = seconds
    self.engines = engines
  }

  /// Whether a host that has `host` can ever run a task with these needs.
  package func fit(_ host: Needs) -> Bool {
    cpuMilli <= host.cpuMilli && memoryMiB <= host.memoryMiB && diskMiB <= host.diskMiB && gpu <= host.gpu
      && seconds <= host.seconds && engines.isSubset(of: host.engines)
  }
}

/// Whose tasks a worker may be given.
package enum Serving: Hashable, Sendable {
  /// Those without a step.
  case loose
  /// Those of one step.
  case step(StepID)
  /// Those of all steps of a workflow.
  case workflow(WorkflowID)
  case everything
}

/// A workflow, as the engine hands it in.
package struct WorkflowEntry: Hashable, Sendable {
  package var id: WorkflowID
  /// Whose share its tasks are taken from, whoever submitted them.
  package var owner: UserID
  package var strategy: RunStrategy
  /// Of its owner's share, in thousandths: twice as much has twice as many starts.
  package var weightMilli: Int32
  /// Nothing of it is assigned.
  package var isHeld: Bool

  package init(
    id: WorkflowID, owner: UserID, strategy: RunStrategy = .batch, weightMilli: Int32 = 1000,
    isHeld: Bool = false
  ) {
    self.id = id
    self.owner = owner
    self.strategy = strategy
    self.weightMilli = weightMilli
    self.isHeld = isHeld
  }
}

/// A step of a workflow. Steps come in the order of their ids.
package struct StepEntry: Hashable, Sendable {
  package var id: StepID
  package var workflow: WorkflowID
  /// Nothing of it is assigned.
  package var isHeld: Bool

  package init(id: StepID, workflow: WorkflowID, isHeld: Bool = false) {
    self.id = id
    self.workflow = workflow
    self.isHeld = isHeld
  }
}

/// A user's share, and how much of the workers he may have at once.
package struct UserEntry: Hashable, Sendable {
  package var id: UserID
  package var weightMilli: Int32
  /// Tasks on workers that hold room; nil: no limit.
  package var maximumRunning: Int32?
  /// The sum of the cpu that those tasks state; nil: no limit.
  package var maximumCPUMilli: Int64?

  package init(
    id: UserID, weightMilli: Int32 = 1000, maximumRunning: Int32? = nil, maximumCPUMilli: Int64? = nil
  ) {
    self.id = id
    self.weightMilli = weightMilli
    self.maximumRunning = maximumRunning
    self.maximumCPUMilli = maximumCPUMilli
  }
}

/// A task that can still move, as the engine hands it in and reads it back.
package struct TaskEntry: Hashable, Sendable {
  package var id: TaskID
  /// Whose share it is taken from, where it has no step.
  package var owner: UserID
  /// The job that it is part of.
  package var job: TaskID?
  /// The step whose workers may take it; nil: workers without a step.
  package var step: StepID?
  package var status: TaskStatus
  /// Higher goes first.
  package var priority: Int32
  /// How much of a slot it takes: 1000 is one. Less than 1 counts as 1.
  package var weightMilli: Int32
  package var needs: Needs
  /// Its place in the queue among tasks of one priority: smaller goes first, equal ones by id. A clone keeps
  /// its predecessor's.
  package var order: Int64
  /// How many of its prerequisites are not met.
  package var unmet: Int32
  /// Who holds it, in `A C D O R U V`, and in `Z` where it was paused while running.
  package var worker: WorkerID?
  /// How often it was assigned; the number of its newest assignment.
  package var assignment: Int64
  /// The worker on which its predecessor failed: it goes there only when no other could ever take it.
  package var avoid: WorkerID?
  /// A prerequisite that failed for good counts as met.
  package var acceptFailure: Bool
  /// It asked to be canceled when a prerequisite fails for good.
  package var cancelsWithPrerequisite: Bool
  /// A person wants it ended. It is not assigned any more.
  package var cancelWished: Bool
  /// A person wants it paused where it runs.
  package var suspendWished: Bool
  /// It is not assigned for now: a retry that is held back, or a task that is being debugged.
  package var isHeld: Bool
  /// The worker that holds what it reads. Under thread-wise it waits for room there while that worker may be given
  /// anything, and goes to another that would otherwise stand idle.
  package var prefer: WorkerID?

  package init(
    id: TaskID, owner: UserID = 0, job: TaskID? = nil, step: StepID? = nil, status: TaskStatus = .pending,
    priority: Int32 = 0, weightMilli: Int32 = 1000, needs: Needs = Needs(), order: Int64, unmet: Int32 = 0,
    worker: WorkerID? = nil, assignment: Int64 = 0, avoid: WorkerID? = nil, acceptFailure: Bool = false,
    cancelsWithPrerequisite: Bool = false, cancelWished: Bool = false, suspendWished: Bool = false,
    isHeld: Bool = false, prefer: WorkerID? = nil
  ) {
    self.id = id
    self.owner = owner
    self.job = job
    self.suspendWished = suspendWished
    self.isHeld = isHeld
    self.prefer = prefer
    self.step = step
    self.status = status
    self.priority = priority
    self.weightMilli = weightMilli
    self.needs = needs
    self.order = order
    self.unmet = unmet
    self.worker = worker
    self.assignment = assignment
    self.avoid = avoid
    self.acceptFailure = acceptFailure
    self.cancelsWithPrerequisite = cancelsWithPrerequisite
    self.cancelWished = cancelWished
  }

  /// The newest assignment, for fencing.
  package var attempt: AttemptID { AttemptID(task: id, assignment: assignment) }
}

/// A worker, as the engine hands it in.
package struct WorkerEntry: Hashable, Sendable {
  package var id: WorkerID
  /// Whose tasks it may be given.
  package var serves: Serving
  /// How many slots run at once.
  package var concurrency: Int32
  /// How many more are staged meanwhile.
  package var prefetch: Int32
  /// What its host has.
  package var capacity: Needs
  /// It has a session and has reconciled: orders reach it.
  package var isConnected: Bool
  /// It finishes what it has and takes nothing more.
  package var isDraining: Bool
  /// A person paused it: it takes nothing for now.
  package var isPaused: Bool
  /// Slots it has less than `concurrency + prefetch`, for being short of disk or throttled.
  package var reducedRoom: Int32

  package init(
    id: WorkerID, serves: Serving = .loose, concurrency: Int32 = 1, prefetch: Int32 = 0, capacity: Needs,
    isConnected: Bool = true, isDraining: Bool = false, isPaused: Bool = false, reducedRoom: Int32 = 0
  ) {
    self.id = id
    self.serves = serves
    self.concurrency = concurrency
    self.prefetch = prefetch
    self.capacity = capacity
    self.isConnected = isConnected
    self.isDraining = isDraining
    self.isPaused = isPaused
    self.reducedRoom = reducedRoom
  }

  /// Whether it may be given anything.
  package var isAssignable: Bool { isConnected && !isDraining && !isPaused }

  /// All it may hold, in thousandths of a slot.
  package var roomMilli: Int64 { max(0, Int64(concurrency) + Int64(prefetch) - Int64(reducedRoom)) * 1000 }

  /// How much of what it may hold can run at once.
  package var runningMilli: Int64 { min(Int64(max(0, concurrency)) * 1000, roomMilli) }

  /// Whether it could ever take a task with these needs and this weight: what its host has suffices, and the
  /// weight is no more than its concurrency.
  package func couldTake(_ needs: Needs, weightMilli: Int64) -> Bool {
    needs.fit(capacity) && weightMilli <= Int64(concurrency) * 1000
  }
}

/// A task was given to a worker.
package struct Assignment: Hashable, Sendable {
  package var task: TaskID
  package var worker: WorkerID
  /// The task's assignment number, one more than before.
  package var number: Int64

  package init(task: TaskID, worker: WorkerID, number: Int64) {
    self.task = task
    self.worker = worker
    self.number = number
  }

  package var attempt: AttemptID { AttemptID(task: task, assignment: number) }
}

/// How many tasks stand at each status.
package struct StatusCounts: Hashable, Sendable {
  private var values = [Int](repeating: 0, count: TaskStatus.allCases.count)

  package init() {}

  package subscript(_ status: TaskStatus) -> Int {
    get { values[status.ordinal] }
    set { values[status.ordinal] = newValue }
  }

  /// All of them.
  package var total: Int { values.reduce(0, +) }
}

extension TaskStatus {
  /// Its place in the order of life; only for indexing.
  var ordinal: Int {
    switch self {
    case .inactive: 0
    case .waiting: 1
    case .pending: 2
    case .assigned: 3
    case .accepted: 4
    case .downloading: 5
    case .onHold: 6
    case .running: 7
    case .uploading: 8
    case .uploadingFailed: 9
    case .succeeded: 10
    case .failed: 11
    case .suspended: 12
    case .canceled: 13
    }
  }

  /// Takes room on the worker that has it. Uploads hold no slot.
  var holdsRoom: Bool {
    switch self {
    case .assigned, .accepted, .downloading, .onHold, .running, .suspended: true
    default: false
    }
  }
}
