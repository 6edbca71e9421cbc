/// What a cluster's queue has given the job this process runs in, as Slurm tells its jobs.
///
/// A job has a part of its node: to offer the whole of it would have tasks killed that the node had room for.
package struct BatchJob: Sendable, Hashable {
  /// Whether this process is in one.
  package var isPresent = false
  /// Nil: not told; also outside a job.
  package var cpu: Double?
  package var memoryBytes: Int64?
  /// When the job will be ended, microseconds UTC.
  package var endsAt: Int64?

  /// What is missing or no number above zero is as if it were not there.
  package init(environment: [String: String]) {
    func number(_ name: String) -> Int64? {
      environment[name].flatMap { Int64($0) }.flatMap { $0 > 0 ? $0 : nil }
    }
    endsAt = number("SLURM_JOB_END_TIME").flatMap { seconds in
      let (microseconds, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
      return overflow ? nil : microseconds
    }
    guard environment["SLURM_JOB_ID"].map({ !$0.isEmpty }) == true else { return }
    isPresent = true
    let cpus = number("SLURM_CPUS_ON_NODE") ?? number("SLURM_CPUS_PER_TASK")
    cpu = cpus.map(Double.init)
    // Slurm's MB are 2^20 bytes; 0, as the number of a node, is all of its memory.
    func bytes(_ megabytes: Int64, _ count: Int64) -> Int64? {
      let (all, overflow) = megabytes.multipliedReportingOverflow(by: count)
      return overflow || all > .max >> 20 ? nil : all << 20
    }
    if let whole = number("SLURM_MEM_PER_NODE") {
      memoryBytes = bytes(whole, 1)
    } else if let each = number("SLURM_MEM_PER_CPU"), let cpus {
      memoryBytes = bytes(each, cpus)
    }
  }
}
