import Scheduling
import ScitqProtocol

/// What can only be told from memory.
extension Engine {
  /// Nil when the task has ended, or never was.
  func explain(_ id: TaskID) -> String? {
    cluster.explain(task: id)?.description
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
