import ScitqProtocol

/// Recruiters as people and programs see them.
enum RecruiterRendering {
  /// What tells recruiters apart: the step and the rank.
  static func id(_ recruiter: WireRecruiter) -> String { "\(recruiter.stepID) \(recruiter.rank)" }

  /// The line of `recruiter list`, which is the contract's to the letter: programs read it.
  static func line(_ recruiter: WireRecruiter) -> String {
    "Step \(recruiter.stepID) | Rank \(recruiter.rank) | Filter \(filter(recruiter)) | "
      + "Concurrency=\(concurrency(recruiter)) Prefetch=\(prefetch(recruiter)) Rounds=\(recruiter.rounds) "
      + "Timeout=\(recruiter.timeout) Maximum Workers=\(maximum(recruiter))"
  }

  static func block(_ recruiter: WireRecruiter, _ style: OutputStyle) -> String {
    let step = recruiter.stepName.isEmpty ? "" : " (\(Escaping.printable(recruiter.stepName)))"
    var lines: [(String, String)] = [
      ("step", "\(recruiter.stepID)\(step)"), ("rank", "\(recruiter.rank)"),
    ]
    if recruiter.workflowID != 0 { lines.append(("workflow", "\(recruiter.workflowID)")) }
    lines += [
      ("filter", filter(recruiter)), ("concurrency", concurrency(recruiter)),
      ("prefetch", prefetch(recruiter)), ("rounds", "\(recruiter.rounds)"),
      ("timeout", "\(recruiter.timeout) s"),
      ("workers", "\(recruiter.workers) of at most \(maximum(recruiter))"),
    ]
    if recruiter.maximumWorkers == 0 { lines[lines.count - 1].1 = "\(recruiter.workers), without a maximum" }
    return FlowRendering.block(lines, style)
  }

  /// What is not stated is null.
  static func json(_ recruiter: WireRecruiter) -> JSON {
    .object([
      JSON.Member("step_id", .integer(recruiter.stepID)),
      JSON.Member("step_name", .text(recruiter.stepName)),
      JSON.Member("workflow_id", .id(recruiter.workflowID)),
      JSON.Member("rank", .integer(Int64(recruiter.rank))),
      JSON.Member("filter", .string(recruiter.filter)),
      JSON.Member("concurrency", .id(Int64(recruiter.concurrency))),
      JSON.Member("cpu_per_task", stated(recruiter.cpuPerTask)),
      JSON.Member("memory_per_task", stated(recruiter.memoryPerTask)),
      JSON.Member("disk_per_task", stated(recruiter.diskPerTask)),
      JSON.Member("concurrency_min", .id(Int64(recruiter.concurrencyMin))),
      JSON.Member("concurrency_max", .id(Int64(recruiter.concurrencyMax))),
      JSON.Member(
        "prefetch", recruiter.prefetchPercent == 0 ? .integer(Int64(recruiter.prefetch)) : .null),
      JSON.Member("prefetch_percent", .id(Int64(recruiter.prefetchPercent))),
      JSON.Member("maximum_workers", .id(Int64(recruiter.maximumWorkers))),
      JSON.Member("rounds", .integer(Int64(recruiter.rounds))),
      JSON.Member("timeout", .integer(Int64(recruiter.timeout))),
      JSON.Member("workers", .integer(Int64(recruiter.workers))),
    ])
  }

  /// `4`, or `adaptive(CPU=2 Memory=8GB Disk=50GB Min=1 Max=10)` with what is stated.
  private static func concurrency(_ recruiter: WireRecruiter) -> String {
    if recruiter.concurrency > 0 { return "\(recruiter.concurrency)" }
    var parts: [String] = []
    func part(_ name: String, _ value: Double, _ unit: String) {
      if value > 0 { parts.append("\(name)=\(Quantity.trimmed(value))\(unit)") }
    }
    part("CPU", recruiter.cpuPerTask, "")
    part("Memory", recruiter.memoryPerTask, "GB")
    part("Disk", recruiter.diskPerTask, "GB")
    part("Min", Double(recruiter.concurrencyMin), "")
    part("Max", Double(recruiter.concurrencyMax), "")
    return parts.isEmpty ? "adaptive" : "adaptive(\(parts.joined(separator: " ")))"
  }

  /// Where none was given, what holds all the same.
  private static func filter(_ recruiter: WireRecruiter) -> String {
    let isEmpty = recruiter.filter.allSatisfy(\.isWhitespace)
    return isEmpty ? "eviction<=5" : Escaping.printable(recruiter.filter)
  }

  private static func prefetch(_ recruiter: WireRecruiter) -> String {
    recruiter.prefetchPercent > 0 ? "\(recruiter.prefetchPercent)%" : "\(recruiter.prefetch)"
  }

  private static func maximum(_ recruiter: WireRecruiter) -> String {
    recruiter.maximumWorkers > 0 ? "\(recruiter.maximumWorkers)" : "unlimited"
  }

  private static func stated(_ value: Double) -> JSON { value > 0 ? .number(value) : .null }
}
