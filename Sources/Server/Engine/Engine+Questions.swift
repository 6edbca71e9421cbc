import Scheduling
import ScitqProtocol

/// What can only be told from memory.
extension Engine {
  /// Nil when the task has ended, or never was.
  func explain(_ id: TaskID) -> String? {
    guard let explanation = cluster.explain(task: id) else { return nil }
    // What it waits for may be a job, of which the cluster knows no more than the number.
    if case .waiting(let prerequisite, _, let others) = explanation, let job = jobs[prerequisite] {
      let rest = others == 0 ? "" : "; and for \(others) other \(others == 1 ? "task" : "tasks")"
      return
        "waiting for job \(prerequisite), of which \(job.counts[.succeeded]) of \(job.size) tasks have succeeded\(rest)"
    }
    return explanation.description
  }

  func explain(worker id: WorkerID) -> String {
    let sentence = cluster.explain(worker: id)
    return workers[id]?.wishReason.map { "\(sentence) (\($0))" } ?? sentence
  }

  func activeCounts() -> [WorkerID: Int] {
    workers.keys.reduce(into: [:]) { counts, id in counts[id] = cluster.tasks(on: id).count }
  }

  /// Slots of the workers that are connected, and how much of them is in use.
  func room() -> (slots: Double, used: Double) {
    var slots = 0.0
    var used = 0.0
    for id in ready.keys {
      guard let worker = cluster.worker(id) else { continue }
      slots += Double(worker.concurrency)
      used += min(Double(worker.concurrency), Double(cluster.loadMilli(of: id)) / 1000)
    }
    return (slots, used)
  }
}
