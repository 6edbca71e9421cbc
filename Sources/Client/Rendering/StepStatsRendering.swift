import ScitqProtocol
import SwiftProtobuf

/// How long the phases of steps took.
enum StepStatsRendering {
  static func table(_ steps: [WireStepStats], totals: Bool, now: Int64, _ style: OutputStyle) -> Table {
    var table = Table(columns: [
      .init(title: "ID", alignment: .right), .init(title: "Step", shrinksTo: 10),
      .init(title: "Tasks", shrinksTo: 12),
      .init(title: "Download"), .init(title: "Run (succeeded)"), .init(title: "Run (failed)"),
      .init(title: "Run (current)"), .init(title: "Upload"), .init(title: "Start"), .init(title: "End"),
    ])
    table.rows = steps.map { row($0, "\($0.stepID)", $0.name, style) }
    if totals {
      let sum = total(steps)
      table.rows.append(row(sum, "", "TOTAL", style))
      let cumulated = phases(sum).reduce(0) { $0 + $1.total }
      let elapsed = self.elapsed(sum, now)
      var last = [Table.Cell](repeating: "", count: table.columns.count)
      last[1] = .init("elapsed \(Quantity.duration(elapsed))")
      last[2] = .init("cumulated \(Quantity.duration(cumulated))")
      table.rows.append(last)
    }
    return table
  }

  static func json(_ steps: [WireStepStats], totals: Bool, now: Int64) -> JSON {
    let all = JSON.array(steps.map { json($0) })
    guard totals else { return all }
    let sum = total(steps)
    return .object([
      JSON.Member("steps", all),
      JSON.Member(
        "totals",
        .object([
          JSON.Member("tasks", FlowRendering.counted(sum.tasks)), JSON.Member("download", json(sum.download)),
          JSON.Member("run_succeeded", json(sum.runSucceeded)),
          JSON.Member("run_failed", json(sum.runFailed)),
          JSON.Member("run_current", json(sum.runCurrent)), JSON.Member("upload", json(sum.upload)),
          JSON.Member("elapsed_seconds", seconds(elapsed(sum, now))),
          JSON.Member("cumulated_seconds", seconds(phases(sum).reduce(0) { $0 + $1.total })),
        ])),
    ])
  }

  /// All steps as if they were one.
  static func total(_ steps: [WireStepStats]) -> WireStepStats {
    var sum = WireStepStats()
    var counts: [String: Int64] = [:]
    for step in steps {
      for count in step.tasks { counts[count.status, default: 0] += count.count }
      for path: WritableKeyPath<WireStepStats, WirePhaseStats> in [
        \.download, \.runSucceeded, \.runFailed, \.runCurrent, \.upload,
      ] where step[keyPath: path].count > 0 {
        let (one, all) = (step[keyPath: path], sum[keyPath: path])
        sum[keyPath: path].least = all.count == 0 ? one.least : min(all.least, one.least)
        sum[keyPath: path].most = max(all.most, one.most)
        sum[keyPath: path].count += one.count
        sum[keyPath: path].total += one.total
      }
      if step.startedAt != 0 {
        sum.startedAt = sum.startedAt == 0 ? step.startedAt : min(sum.startedAt, step.startedAt)
      }
    }
    // What still runs has no end.
    let isOver = !steps.contains { $0.startedAt != 0 && $0.endedAt == 0 }
    sum.endedAt = isOver ? steps.map(\.endedAt).max() ?? 0 : 0
    sum.tasks = TaskStatus.allCases.compactMap { status in
      counts[status.rawValue].map { count in .with { ($0.status, $0.count) = (status.rawValue, count) } }
    }
    return sum
  }

  private static func phases(_ step: WireStepStats) -> [WirePhaseStats] {
    [step.download, step.runSucceeded, step.runFailed, step.runCurrent, step.upload]
  }

  private static func elapsed(_ step: WireStepStats, _ now: Int64) -> Int64 {
    step.startedAt == 0 ? 0 : (step.endedAt == 0 ? now : step.endedAt) - step.startedAt
  }

  private static func row(_ step: WireStepStats, _ id: String, _ name: String, _ style: OutputStyle) -> [Table
    .Cell]
  {
    [
      .init(id), .init(name), .init(FlowRendering.counts(step.tasks)), .init(text(step.download)),
      .init(text(step.runSucceeded)), .init(text(step.runFailed)), .init(text(step.runCurrent)),
      .init(text(step.upload)), .init(Moment.local(step.startedAt, style.zone) ?? "-"),
      .init(Moment.local(step.endedAt, style.zone) ?? "-"),
    ]
  }

  /// `12.4 s [850 ms–1m 05s] 2h 07m`: average, range, total.
  private static func text(_ phase: WirePhaseStats) -> String {
    guard phase.count > 0 else { return "-" }
    let average = Quantity.duration(phase.total / phase.count)
    return
      "\(average) [\(Quantity.duration(phase.least))–\(Quantity.duration(phase.most))] \(Quantity.duration(phase.total))"
  }

  private static func json(_ step: WireStepStats) -> JSON {
    .object([
      JSON.Member("step_id", .integer(step.stepID)), JSON.Member("name", .string(step.name)),
      JSON.Member("workflow_id", .integer(step.workflowID)),
      JSON.Member("workflow_name", .string(step.workflowName)),
      JSON.Member("tasks", FlowRendering.counted(step.tasks)), JSON.Member("download", json(step.download)),
      JSON.Member("run_succeeded", json(step.runSucceeded)), JSON.Member("run_failed", json(step.runFailed)),
      JSON.Member("run_current", json(step.runCurrent)), JSON.Member("upload", json(step.upload)),
      JSON.Member("started_at", Moment.json(step.startedAt)),
      JSON.Member("ended_at", Moment.json(step.endedAt)),
    ])
  }

  private static func json(_ phase: WirePhaseStats) -> JSON {
    guard phase.count > 0 else { return .null }
    return .object([
      JSON.Member("count", .integer(phase.count)),
      JSON.Member("average_seconds", seconds(phase.total / phase.count)),
      JSON.Member("least_seconds", seconds(phase.least)), JSON.Member("most_seconds", seconds(phase.most)),
      JSON.Member("total_seconds", seconds(phase.total)),
    ])
  }

  private static func seconds(_ microseconds: Int64) -> JSON { .number(Double(microseconds) / 1_000_000) }
}
