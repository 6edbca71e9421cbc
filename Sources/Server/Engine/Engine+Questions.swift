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
    switch explanation {
    // What is done about it, where somebody is to do something.
    case .noWorkerConnected, .noWorkerServes, .doesNotFit, .full:
      let step = cluster.task(id)?.step
      let recruiters = fleet.recruiters.keys.filter { $0.step == step }.sorted()
      let sentences = recruiters.compactMap { key in
        (try? explain(recruiter: key.step.rawValue, UInt32(clamping: key.rank))).map {
          "; recruiter of rank \(key.rank): \($0)"
        }
      }
      return explanation.description + sentences.joined()
    default: return explanation.description
    }
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
