package import ScitqProtocol

/// Why a task is where it is. Its description is one sentence without a full stop.
package enum Explanation: Hashable, Sendable, CustomStringConvertible {
  /// Its workflow is a draft.
  case inactive
  /// A person paused it; with the worker on which its command stands still.
  case suspended(on: WorkerID?)
  /// A person wants it paused, and the worker has not confirmed that.
  case suspendWished(on: WorkerID)
  case workflowSuspended
  case stepSuspended(StepID)
  /// A retry that is held back for a while, or a task that is being debugged.
  case heldBack
  /// Its user has as much of the workers as he may.
  case quotaReached(running: Int32, of: Int32?, cpuMilli: Int64, ofMilli: Int64?)
  /// The worker that holds what it reads is full.
  case waitsForWorker(WorkerID, place: Int)
  /// It waits for a task, whose status is nil where it is not known, and for so many others.
  case waiting(for: TaskID, status: TaskStatus?, others: Int)
  /// It is to be skipped when its output exists, and nobody has looked yet.
  case outputUnchecked
  /// A person wants it ended.
  case cancelWished(on: WorkerID?)
  /// A worker has it.
  case held(by: WorkerID, status: TaskStatus)
  case noWorkerConnected
  /// Workers are connected and serve other steps.
  case noWorkerServes(step: StepID?, connected: Int)
  /// Workers of the step are connected, and each of them is paused or draining.
  case workersTakeNothing(step: StepID?, workers: Int)
  /// Workers of the step would take tasks, and none has what this one needs.
  case doesNotFit(step: StepID?, workers: Int, missing: [Requirement])
  /// Workers could take it and all are full. `place` 1 is the first in the queue of its step.
  case full(workers: Int, place: Int)
  /// There is room for it: it is assigned in a moment.
  case aboutToBeAssigned(place: Int)

  /// One thing that a task asks of a worker.
  package enum Requirement: Hashable, Sendable, CustomStringConvertible {
    case cpuMilli(Int32)
    case memoryMiB(Int32)
    case diskMiB(Int32)
    case gpu(Int32)
    case seconds(Int32)
    case containers
    case processes
    /// Its weight is more than the worker runs at once.
    case slotsMilli(Int32)

    package var description: String {
      switch self {
      case .cpuMilli(let milli): "\(decimal(Int64(milli))) \(milli == 1000 ? "cpu" : "cpus")"
      case .memoryMiB(let mib): "\(size(mib)) of memory"
      case .diskMiB(let mib): "\(size(mib)) of disk"
      case .gpu(let count): counted(Int(count), "GPU")
      case .seconds(let seconds): "\(seconds) s until its host is taken away"
      case .containers: "a container engine"
      case .processes: "leave to run commands outside containers"
      case .slotsMilli(let milli): "a concurrency of \((Int64(milli) + 999) / 1000)"
      }
    }

    private func size(_ mib: Int32) -> String {
      mib < 1024 ? "\(mib) MB" : "\(decimal(Int64(mib) * 1000 / 1024)) GB"
    }

  }

  package var description: String {
    switch self {
    case .inactive: return "its workflow is a draft"
    case .suspended(nil): return "suspended"
    case .suspended(let worker?): return "suspended, paused on worker \(worker)"
    case .suspendWished(let worker):
      return "being suspended: worker \(worker) has not confirmed the pause yet"
    case .workflowSuspended: return "its workflow is suspended"
    case .stepSuspended(let step): return "its step \(step) is suspended"
    case .heldBack: return "held back: it is to be retried later, or waits for `scitq task run-now`"
    case .quotaReached(let running, let most?, _, _) where running >= most:
      return "its user has \(counted(Int(running), "task")) on workers, and may have \(most)"
    case .quotaReached(_, _, let cpu, let most):
      return "its user has \(decimal(cpu)) cpus on workers, and may have \(decimal(most ?? 0))"
    case .waitsForWorker(let worker, let place):
      return
        "waiting for room on worker \(worker), which holds what it reads; it is number \(place) in the queue"
    case .waiting(let task, let status, let others):
      let standing = status.map { ", which \(Self.clause($0))" } ?? ""
      let rest = others > 0 ? "; and for \(counted(others, "other task", "other tasks"))" : ""
      return "waiting for task \(task)\(standing)\(rest)"
    case .outputUnchecked: return "waiting for the look whether its output exists already"
    case .cancelWished(nil): return "being canceled"
    case .cancelWished(let worker?): return "being canceled: worker \(worker) has not confirmed the end yet"
    case .held(let worker, .assigned): return "assigned to worker \(worker), which has not acknowledged yet"
    case .held(let worker, .accepted): return "accepted by worker \(worker), which has not begun with it yet"
    case .held(let worker, .downloading): return "downloading what it needs on worker \(worker)"
    case .held(let worker, .onHold): return "ready on worker \(worker), where no slot is free"
    case .held(let worker, .running): return "running on worker \(worker)"
    case .held(let worker, .uploading): return "uploading its outputs from worker \(worker)"
    case .held(let worker, .uploadingFailed):
      return "its command failed; worker \(worker) is uploading its outputs and logs"
    case .held(let worker, let status): return "\(status.word) on worker \(worker)"
    case .noWorkerConnected: return "no worker is connected"
    case .noWorkerServes(let step?, let connected):
      return "no worker serves step \(step); \(Self.elsewhere(connected))"
    case .noWorkerServes(nil, let connected):
      return "no connected worker serves tasks without a step; \(Self.elsewhere(connected))"
    case .workersTakeNothing(let step, let workers):
      return "\(Self.workers(workers, of: step)) and \(workers == 1 ? "it" : "each") is paused or draining"
    case .doesNotFit(let step, let workers, let missing):
      let wanted = list(missing.map(\.description))
      return workers == 1
        ? "\(Self.workers(1, of: step)) and it does not have \(wanted)"
        : "\(Self.workers(workers, of: step)) and none has \(wanted)"
    case .full(1, let place):
      return "the one worker that could take it is full; it is number \(place) in the queue"
    case .full(let workers, let place):
      return "all \(workers) workers that could take it are full; it is number \(place) in the queue"
    case .aboutToBeAssigned(let place):
      return "a worker has room for it; it is number \(place) in the queue"
    }
  }

  private static func workers(_ count: Int, of step: StepID?) -> String {
    let are = count == 1 ? "is" : "are"
    let serve = count == 1 ? "serves" : "serve"
    return "\(counted(count, "worker")) " + (step.map { "\(serve) step \($0)" } ?? "\(are) connected")
  }

  private static func elsewhere(_ connected: Int) -> String {
    connected == 1
      ? "the one that is connected serves another step"
      : "the \(connected) that are connected serve other steps"
  }

  private static func clause(_ status: TaskStatus) -> String {
    switch status {
    case .failed: "failed"
    case .canceled: "was canceled"
    case .succeeded: "succeeded"
    default: "is \(status.word)"
    }
  }
}

/// Thousandths as a decimal number without needless zeros.
func decimal(_ milli: Int64) -> String {
  var fraction = String(milli % 1000 + 1000).dropFirst()
  while fraction.last == "0" { fraction.removeLast() }
  return fraction.isEmpty ? "\(milli / 1000)" : "\(milli / 1000).\(fraction)"
}

/// "1 worker", "3 workers".
func counted(_ count: Int, _ one: String, _ many: String? = nil) -> String {
  "\(count) \(count == 1 ? one : many ?? one + "s")"
}

/// "a", "a and b", "a, b and c".
func list(_ parts: [String]) -> String {
  guard let last = parts.last, parts.count > 1 else { return parts.first ?? "" }
  return parts.dropLast().joined(separator: ", ") + " and " + last
}
