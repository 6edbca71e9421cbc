import Foundation
import Scheduling
import ScitqProtocol

/// The decisions alone: a million pending tasks, ten thousand workers.
struct ClusterBenchmark {
  let rounds: Int
  private let tasks = 1_000_000
  private let workers = 10_000
  private let cycles = 300_000

  init(rounds: Int) { self.rounds = rounds }

  func run() throws {
    let report = Report("cluster: \(tasks) pending tasks, \(workers) workers of three kinds")
    var rates: [Double] = []
    var lives: [Double] = []
    var bytes: [Double] = []
    for round in 0..<rounds {
      var cluster = Cluster()
      for number in 1...workers {
        cluster.set(
          WorkerEntry(
            id: WorkerID(Int64(number)), concurrency: 8, prefetch: 2,
            capacity: Needs(cpuMilli: Int32(8000 << (number % 3)), memoryMiB: 1 << 20, engines: .processes)))
      }
      let before = residentBytes()
      for number in 1...tasks {
        cluster.add(
          TaskEntry(
            id: TaskID(Int64(number)), priority: Int32(number % 3),
            needs: Needs(cpuMilli: Int32(1000 * (number % 16)), engines: .processes),
            order: Int64(number)))
      }
      // What was freed in an earlier round is used again: only the first one's growth says anything.
      if round == 0 { bytes.append(Double(residentBytes() - before) / Double(tasks)) }
      var made = 0
      var assigning = Duration.zero
      let start = ContinuousClock.now
      // What is assigned ends at once, so that the workers have room again.
      while made < cycles {
        let began = ContinuousClock.now
        let assignments = cluster.assign(limit: 1000)
        assigning += ContinuousClock.now - began
        guard !assignments.isEmpty else { throw Trouble("nothing is assigned any more after \(made) tasks") }
        made += assignments.count
        for one in assignments { try finish(one.task, in: &cluster) }
      }
      rates.append(Double(made) / assigning.seconds)
      lives.append(Double(made) / (ContinuousClock.now - start).seconds)
    }
    report.figure("assignments", rates, unit: "/s", goal: "100,000/s")
    report.figure("whole lives, every status by a move", lives, unit: "/s")
    report.figure("resident memory", bytes, unit: "bytes a pending task", goal: "256")
  }

  private func finish(_ task: TaskID, in cluster: inout Cluster) throws {
    for status in [TaskStatus.accepted, .downloading, .onHold, .running, .uploading, .succeeded] {
      try cluster.move(task, to: status, by: .worker)
    }
  }

  private func residentBytes() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
  }
}
