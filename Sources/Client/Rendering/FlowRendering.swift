import ScitqProtocol

/// Workflows, steps and jobs as people and programs see them.
enum FlowRendering {
  // MARK: Workflows

  static func table(_ workflows: [WireWorkflow]) -> Table {
    var table = Table(columns: [
      .init(title: "ID", alignment: .right), .init(title: "Name", shrinksTo: 10), .init(title: "Strategy"),
      .init(title: "Maximum workers", alignment: .right), .init(title: "Status"),
      .init(title: "Tasks", shrinksTo: 10),
      .init(title: "Owner", shrinksTo: 6),
    ])
    table.rows = workflows.map { flow in
      [
        .init("\(flow.id)"), .init(flow.name), .init(flow.strategy),
        .init(flow.maximumWorkers == 0 ? "-" : "\(flow.maximumWorkers)"),
        .init(flow.status, paint: TaskRendering.paint(flow.status)), .init(counts(flow.tasks)),
        .init(flow.owner),
      ]
    }
    return table
  }

  static func block(_ flow: WireWorkflow, _ style: OutputStyle) -> String {
    let strategy = RunStrategy(rawValue: flow.strategy)?.word ?? ""
    var lines: [(String, String)] = [
      ("workflow", "\(flow.id)"), ("name", Escaping.printable(flow.name)),
      ("status", style.painted("\(flow.status) (\(word(flow.status)))", TaskRendering.paint(flow.status))),
    ]
    if !flow.blockedBy.isEmpty { lines.append(("", Escaping.printable(flow.blockedBy))) }
    lines += [
      ("strategy", "\(flow.strategy) (\(strategy))"), ("tasks", counts(flow.tasks)),
      ("steps", "\(flow.steps)"),
      ("workers", "\(flow.workers)" + (flow.maximumWorkers == 0 ? "" : " of at most \(flow.maximumWorkers)")),
      ("weight", Quantity.trimmed(flow.weight)), ("owner", Escaping.printable(flow.owner)),
    ]
    if flow.cost > 0 || flow.maximumCost > 0 {
      let most = flow.maximumCost > 0 ? " of at most \(FleetRendering.cost(flow.maximumCost))" : ""
      let isSpent = flow.maximumCost > 0 && flow.cost >= flow.maximumCost
      lines.append(
        ("cost", FleetRendering.cost(flow.cost) + most + (isSpent ? ": nothing more is bought" : "")))
    }
    for (name, time) in [("created", flow.createdAt), ("started", flow.startedAt), ("ended", flow.endedAt)] {
      if let text = Moment.local(time, style.zone) { lines.append((name, text)) }
    }
    return Self.block(lines, style)
  }

  static func json(_ flow: WireWorkflow) -> JSON {
    .object([
      JSON.Member("id", .integer(flow.id)), JSON.Member("name", .string(flow.name)),
      JSON.Member("status", .string(flow.status)), JSON.Member("blocked_by", .text(flow.blockedBy)),
      JSON.Member("run_strategy", .string(flow.strategy)),
      JSON.Member("maximum_workers", .id(Int64(flow.maximumWorkers))),
      JSON.Member("cost", .number(flow.cost)),
      JSON.Member("maximum_cost", flow.maximumCost > 0 ? .number(flow.maximumCost) : .null),
      JSON.Member("weight", .number(flow.weight)),
      JSON.Member("owner", .text(flow.owner)), JSON.Member("tasks", counted(flow.tasks)),
      JSON.Member("steps", .integer(Int64(flow.steps))),
      JSON.Member("workers", .integer(Int64(flow.workers))),
      JSON.Member("created_at", Moment.json(flow.createdAt)),
      JSON.Member("started_at", Moment.json(flow.startedAt)),
      JSON.Member("ended_at", Moment.json(flow.endedAt)),
    ])
  }

  /// How a workflow ended: `workflow 3 (name) succeeded`.
  static func ending(_ flow: WireWorkflow) -> String {
    let blocked = flow.blockedBy.isEmpty ? "" : ": \(Escaping.printable(flow.blockedBy))"
    return "workflow \(flow.id) (\(Escaping.printable(flow.name))) \(word(flow.status))\(blocked)"
  }

  // MARK: Steps

  static func table(_ steps: [WireStep]) -> Table {
    var table = Table(columns: [
      .init(title: "ID", alignment: .right), .init(title: "Name", shrinksTo: 10),
      .init(title: "Workflow", shrinksTo: 10), .init(title: "Status"), .init(title: "Tasks", shrinksTo: 10),
      .init(title: "Workers", alignment: .right),
    ])
    table.rows = steps.map { step in
      [
        .init("\(step.id)"), .init(step.name), .init(step.workflowName),
        .init(step.status, paint: TaskRendering.paint(step.status)), .init(counts(step.tasks)),
        .init("\(step.workers)"),
      ]
    }
    return table
  }

  static func block(_ step: WireStep, _ style: OutputStyle) -> String {
    var lines: [(String, String)] = [
      ("step", "\(step.id)"), ("name", Escaping.printable(step.name)),
      ("workflow", "\(step.workflowID) (\(Escaping.printable(step.workflowName)))"),
      ("position", "\(step.position)"),
      ("status", style.painted("\(step.status) (\(word(step.status)))", TaskRendering.paint(step.status))),
    ]
    if !step.blockedBy.isEmpty { lines.append(("", Escaping.printable(step.blockedBy))) }
    lines += [("tasks", counts(step.tasks)), ("workers", "\(step.workers)")]
    return block(lines, style)
  }

  static func json(_ step: WireStep) -> JSON {
    .object([
      JSON.Member("id", .integer(step.id)), JSON.Member("name", .string(step.name)),
      JSON.Member("workflow_id", .integer(step.workflowID)),
      JSON.Member("workflow_name", .string(step.workflowName)),
      JSON.Member("position", .integer(Int64(step.position))), JSON.Member("status", .string(step.status)),
      JSON.Member("blocked_by", .text(step.blockedBy)), JSON.Member("tasks", counted(step.tasks)),
      JSON.Member("workers", .integer(Int64(step.workers))),
    ])
  }

  // MARK: Jobs

  static func block(_ job: WireJob, _ style: OutputStyle) -> String {
    let last = job.firstIndex + (job.size - 1) * job.stride
    let indexes = "\(job.firstIndex)–\(last)" + (job.stride == 1 ? "" : ", every \(job.stride)th")
    var lines: [(String, String)] = [("job", "\(job.id)")]
    if !job.name.isEmpty { lines.append(("name", Escaping.printable(job.name))) }
    lines += [
      ("kind", Escaping.printable(job.kind)),
      ("status", style.painted("\(job.status) (\(word(job.status)))", TaskRendering.paint(job.status))),
      ("size", "\(job.size), indexes \(indexes)"), ("tasks", counts(job.tasks)),
    ]
    if job.stepID != 0 { lines.append(("step", "\(job.stepID)")) }
    lines.append(("owner", Escaping.printable(job.owner)))
    if let text = Moment.local(job.createdAt, style.zone) { lines.append(("created", text)) }
    return block(lines, style)
  }

  static func json(_ job: WireJob) -> JSON {
    .object([
      JSON.Member("id", .integer(job.id)), JSON.Member("kind", .string(job.kind)),
      JSON.Member("name", .text(job.name)), JSON.Member("status", .string(job.status)),
      JSON.Member("size", .integer(job.size)), JSON.Member("first_index", .integer(job.firstIndex)),
      JSON.Member("stride", .integer(job.stride)), JSON.Member("tasks", counted(job.tasks)),
      JSON.Member("step_id", .id(job.stepID)), JSON.Member("owner", .text(job.owner)),
      JSON.Member("created_at", Moment.json(job.createdAt)),
    ])
  }

  // MARK: Parts

  /// `3 running, 12 succeeded`.
  static func counts(_ counts: [WireStatusCount]) -> String {
    let parts = counts.map { "\($0.count) \(TaskStatus(rawValue: $0.status)?.word ?? $0.status)" }
    return parts.isEmpty ? "none" : parts.joined(separator: ", ")
  }

  static func counted(_ counts: [WireStatusCount]) -> JSON {
    .object(
      TaskStatus.allCases.map { status in
        JSON.Member(status.rawValue, .integer(counts.first { $0.status == status.rawValue }?.count ?? 0))
      })
  }

  private static func word(_ status: String) -> String {
    status == "I" ? "draft" : TaskStatus(rawValue: status)?.word ?? Escaping.printable(status)
  }

  /// Names and values, a pair a line; the values line up.
  static func block(_ lines: [(String, String)], _ style: OutputStyle) -> String {
    let width = lines.map(\.0.count).max() ?? 0
    return lines.map { name, value in
      let label = name.isEmpty ? "" : name + ":"
      return style.painted(label, .bold) + String(repeating: " ", count: width - label.count + 2) + value
        + "\n"
    }.joined()
  }
}
