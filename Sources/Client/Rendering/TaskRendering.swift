import ScitqProtocol

/// Tasks as people and programs see them.
enum TaskRendering {
  // MARK: Lists

  static func table(_ tasks: [WireTask], showHidden: Bool, now: Int64, _ style: OutputStyle) -> Table {
    var columns: [Table.Column] = [
      .init(title: "ID", alignment: .right), .init(title: "NAME", shrinksTo: 8), .init(title: "STATUS"),
      .init(title: "WORKER", shrinksTo: 8), .init(title: "STEP", alignment: .right),
      .init(title: "CONTAINER", shrinksTo: 10), .init(title: "COMMAND", shrinksTo: 12),
      .init(title: "CREATED"),
      .init(title: "DURATION", alignment: .right),
    ]
    if showHidden { columns.append(.init(title: "HIDDEN")) }
    var table = Table(columns: columns)
    table.rows = tasks.map { task in
      var row: [Table.Cell] = [
        .init("\(task.id)"), .init(orDash(task.name)), .init(task.status, paint: paint(task.status)),
        .init(worker(task)), .init(task.stepID == 0 ? "-" : "\(task.stepID)"), .init(container(task)),
        .init(task.spec.command), .init(Moment.local(task.createdAt, style.zone) ?? "-"),
        .init(ran(task, now: now).map(Quantity.duration) ?? "-"),
      ]
      if showHidden { row.append(.init(task.hidden ? "yes" : "no")) }
      return row
    }
    return table
  }

  /// How a task ended, or where it stands: `task 12 failed: …`.
  static func ending(_ task: WireTask) -> String {
    let again = task.previousTaskID == 0 ? "" : " (a retry of task \(task.previousTaskID))"
    let message =
      task.message.isEmpty || task.status == TaskStatus.succeeded.rawValue
      ? "" : ": \(Escaping.printable(task.message))"
    return "task \(task.id)\(again) \(word(task))\(message)"
  }

  /// What came of the wish to end a task.
  static func canceling(_ id: Int64, _ done: WireActedOnTasks) -> String {
    done.task.status == TaskStatus.canceled.rawValue ? "task \(id) canceled" : "task \(id) is being canceled"
  }

  static func word(_ task: WireTask) -> String {
    TaskStatus(rawValue: task.status)?.word ?? Escaping.printable(task.status)
  }

  static func paint(_ status: String) -> Paint? {
    switch TaskStatus(rawValue: status) {
    case .succeeded: .green
    case .failed, .uploadingFailed: .red
    case .running, .uploading, .downloading: .cyan
    case .canceled, .suspended, .inactive: .dim
    case .waiting, .onHold: .yellow
    case .pending, .assigned, .accepted, nil: nil
    }
  }

  // MARK: One task

  /// Every field that is set, one a line.
  static func block(_ task: WireTask, now: Int64, _ style: OutputStyle) -> String {
    var lines: [(String, String)] = []
    func line(_ name: String, _ value: String?) {
      if let value, !value.isEmpty { lines.append((name, value)) }
    }
    func text(_ name: String, _ value: String) { line(name, Escaping.printable(value)) }
    let spec = task.spec

    line("task", "\(task.id)")
    text("name", task.name)
    line("status", style.painted("\(Escaping.printable(task.status)) (\(word(task)))", paint(task.status)))
    if task.hasExitCode_p { line("exit code", "\(task.exitCode)") }
    text("reason", task.reason)
    text("message", task.message)
    if task.suspendRequested { line("suspending", "asked for, not yet confirmed by the worker") }
    if let held = Moment.local(task.notBefore, style.zone), task.notBefore > now {
      line("held back until", held)
    }
    if task.cancelRequested { line("canceling", "asked for, not yet confirmed by the worker") }
    text("owner", task.owner)
    if task.workerID != 0 { line("worker", worker(task)) }
    if task.jobID != 0 { line("job", "\(task.jobID), index \(task.arrayIndex) of \(task.arraySize) tasks") }
    if task.stepID != 0 { line("step", "\(task.stepID) (\(Escaping.printable(task.stepName)))") }
    if task.workflowID != 0 {
      line("workflow", "\(task.workflowID) (\(Escaping.printable(task.workflowName)))")
    }
    text("container", container(task))
    text("shell", spec.shell)
    line("command", indented(Escaping.printableLines(spec.command)))
    for input in spec.inputs { text("input", input) }
    for resource in spec.resources { text("resource", resource) }
    text("output", spec.output)
    for (name, value) in spec.env.sorted(by: { $0.key < $1.key }) { text("env", "\(name)=\(value)") }
    for option in spec.containerOptions { text("container option", option) }
    line("needs", needs(spec.needs))
    line("download timeout", limit(spec.downloadTimeoutMs))
    line("run timeout", limit(spec.runTimeoutMs))
    line("upload timeout", limit(spec.uploadTimeoutMs))
    line("queue timeout", limit(spec.queueTimeoutMs))
    line("time estimate", limit(spec.timeEstimateMs))
    line("retry delay", limit(spec.retryDelayMs))
    if task.memoryFactor > 0 {
      line("memory", "\(Quantity.trimmed(task.memoryFactor)) times what was asked for first")
    }
    for rule in spec.retryRules { text("retry on", rule.words) }
    if task.weight != 0, task.weight != 1 { line("weight", Quantity.trimmed(task.weight)) }
    if task.priority != 0 { line("priority", "\(task.priority)") }
    if task.attempt > 1 { line("attempt", "\(task.attempt)") }
    if task.retry > 0 { line("retries left", "\(task.retry)") }
    if task.losses > 0 { line("lost", "\(task.losses) in a row") }
    if task.previousTaskID != 0 { line("retry of", "task \(task.previousTaskID)") }
    if task.nextTaskID != 0 { line("retried as", "task \(task.nextTaskID)") }
    if task.hidden { line("hidden", "yes") }
    if !task.dependencies.isEmpty {
      let unmet = task.unmet > 0 ? " (\(task.unmet) not met)" : ""
      line("depends on", task.dependencies.map { "\($0)" }.joined(separator: ", ") + unmet)
    }
    if task.acceptFailure { line("accept failure", "yes") }
    if task.onDependencyFailure == .cancel { line("on failure", "cancel when a dependency has failed") }
    line("created", Moment.local(task.createdAt, style.zone))
    line("assigned", Moment.local(task.assignedAt, style.zone))
    line("run started", Moment.local(task.runStartedAt, style.zone))
    line("run ended", Moment.local(task.runEndedAt, style.zone))
    line("ended", Moment.local(task.endedAt, style.zone))
    line("download took", took(task.downloadStartedAt, phaseEnd(task, task.runStartedAt), now))
    line("run took", took(task.runStartedAt, phaseEnd(task, task.runEndedAt), now))
    line("upload took", took(task.runEndedAt, task.endedAt, now))
    if task.outBytes > 0 { line("stdout", Quantity.bytes(task.outBytes)) }
    if task.errBytes > 0 { line("stderr", Quantity.bytes(task.errBytes)) }
    for file in task.outputs { text("uploaded", "\(file.uri)  \(Quantity.bytes(file.bytes))") }

    let width = lines.map(\.0.count).max() ?? 0
    return lines.map { name, value in
      style.painted(name + ":", .bold) + String(repeating: " ", count: width - name.count + 1) + value + "\n"
    }.joined()
  }

  /// Every field, under the name that it has on the wire; what is not set is null.
  static func json(_ task: WireTask) -> JSON {
    let spec = task.spec
    return .object([
      JSON.Member("id", .integer(task.id)),
      JSON.Member("name", .text(task.name)),
      JSON.Member("status", .string(task.status)),
      JSON.Member("status_word", .string(TaskStatus(rawValue: task.status)?.word ?? task.status)),
      JSON.Member("command", .string(spec.command)),
      JSON.Member("container", .text(spec.container)),
      JSON.Member("shell", .text(spec.shell)),
      JSON.Member("inputs", .strings(spec.inputs)),
      JSON.Member("resources", .strings(spec.resources)),
      JSON.Member("output", .text(spec.output)),
      JSON.Member(
        "env", .object(spec.env.sorted { $0.key < $1.key }.map { JSON.Member($0.key, .string($0.value)) })),
      JSON.Member("container_options", .strings(spec.containerOptions)),
      JSON.Member("cpu", orNull(spec.needs.cpu)),
      JSON.Member("memory_bytes", .id(spec.needs.memoryBytes)),
      JSON.Member("disk_bytes", .id(spec.needs.diskBytes)),
      JSON.Member("gpu", .id(Int64(spec.needs.gpu))),
      JSON.Member("download_timeout_seconds", seconds(spec.downloadTimeoutMs)),
      JSON.Member("run_timeout_seconds", seconds(spec.runTimeoutMs)),
      JSON.Member("upload_timeout_seconds", seconds(spec.uploadTimeoutMs)),
      JSON.Member("queue_timeout_seconds", seconds(spec.queueTimeoutMs)),
      JSON.Member("time_estimate_seconds", seconds(spec.timeEstimateMs)),
      JSON.Member("retry_delay_seconds", seconds(spec.retryDelayMs)),
      JSON.Member("job_id", .id(task.jobID)),
      JSON.Member("array_index", task.jobID == 0 ? .null : .integer(task.arrayIndex)),
      JSON.Member("array_size", .id(task.arraySize)),
      JSON.Member("retry_on", .strings(spec.retryRules.map(\.words))),
      JSON.Member("memory_factor", orNull(task.memoryFactor)),
      JSON.Member("step_id", .id(task.stepID)),
      JSON.Member("step_name", .text(task.stepName)),
      JSON.Member("workflow_id", .id(task.workflowID)),
      JSON.Member("workflow_name", .text(task.workflowName)),
      JSON.Member("worker_id", .id(task.workerID)),
      JSON.Member("worker_name", .text(task.workerName)),
      JSON.Member("weight", .number(task.weight == 0 ? 1 : task.weight)),
      JSON.Member("priority", .integer(Int64(task.priority))),
      JSON.Member("retry", .integer(Int64(task.retry))),
      JSON.Member("attempt", .integer(Int64(task.attempt))),
      JSON.Member("losses", .integer(Int64(task.losses))),
      JSON.Member("previous_task_id", .id(task.previousTaskID)),
      JSON.Member("next_task_id", .id(task.nextTaskID)),
      JSON.Member("hidden", .bool(task.hidden)),
      JSON.Member("owner", .text(task.owner)),
      JSON.Member("cancel_requested", .bool(task.cancelRequested)),
      JSON.Member("suspend_requested", .bool(task.suspendRequested)),
      JSON.Member("not_before", Moment.json(task.notBefore)),
      JSON.Member("exit_code", task.hasExitCode_p ? .integer(Int64(task.exitCode)) : .null),
      JSON.Member("reason", .text(task.reason)),
      JSON.Member("message", .text(task.message)),
      JSON.Member("dependencies", .array(task.dependencies.map(JSON.integer))),
      JSON.Member("unmet", .integer(Int64(task.unmet))),
      JSON.Member("accept_failure", .bool(task.acceptFailure)),
      JSON.Member("on_dependency_failure", .string(task.onDependencyFailure == .cancel ? "cancel" : "wait")),
      JSON.Member("created_at", Moment.json(task.createdAt)),
      JSON.Member("ready_at", Moment.json(task.readyAt)),
      JSON.Member("assigned_at", Moment.json(task.assignedAt)),
      JSON.Member("download_started_at", Moment.json(task.downloadStartedAt)),
      JSON.Member("run_started_at", Moment.json(task.runStartedAt)),
      JSON.Member("run_ended_at", Moment.json(task.runEndedAt)),
      JSON.Member("ended_at", Moment.json(task.endedAt)),
      JSON.Member("stdout_bytes", .integer(task.outBytes)),
      JSON.Member("stderr_bytes", .integer(task.errBytes)),
      JSON.Member(
        "outputs",
        .array(
          task.outputs.map { file in
            JSON.object([
              JSON.Member("uri", .string(file.uri)), JSON.Member("bytes", .integer(file.bytes)),
              JSON.Member("hash", .text(file.hash)),
            ])
          })),
    ])
  }

  // MARK: Parts

  private static func worker(_ task: WireTask) -> String {
    guard task.workerID != 0 else { return "-" }
    return task.workerName.isEmpty ? "\(task.workerID)" : task.workerName
  }

  private static func container(_ task: WireTask) -> String {
    task.spec.container.isEmpty ? "bare" : task.spec.container
  }

  private static func orDash(_ text: String) -> String { text.isEmpty ? "-" : text }

  /// How long the command has run, or ran; nil before it started.
  private static func ran(_ task: WireTask, now: Int64) -> Int64? {
    guard task.runStartedAt != 0 else { return nil }
    let end = phaseEnd(task, task.runEndedAt)
    return (end == 0 ? now : end) - task.runStartedAt
  }

  /// A phase that the task's end cut off ended with it.
  private static func phaseEnd(_ task: WireTask, _ end: Int64) -> Int64 { end != 0 ? end : task.endedAt }

  private static func took(_ start: Int64, _ end: Int64, _ now: Int64) -> String? {
    guard start != 0 else { return nil }
    return end == 0 ? "\(Quantity.duration(now - start)) so far" : Quantity.duration(end - start)
  }

  private static func needs(_ needs: WireNeeds) -> String {
    var parts: [String] = []
    if needs.cpu > 0 { parts.append("\(Quantity.trimmed(needs.cpu)) CPU") }
    if needs.memoryBytes > 0 { parts.append("\(Quantity.gigabytes(needs.memoryBytes)) memory") }
    if needs.diskBytes > 0 { parts.append("\(Quantity.gigabytes(needs.diskBytes)) disk") }
    if needs.gpu > 0 { parts.append("\(needs.gpu) GPU") }
    return parts.joined(separator: ", ")
  }

  private static func limit(_ milliseconds: Int64) -> String? {
    milliseconds == 0 ? nil : Quantity.duration(milliseconds * 1000)
  }

  private static func seconds(_ milliseconds: Int64) -> JSON {
    milliseconds == 0 ? .null : .number(Double(milliseconds) / 1000)
  }

  private static func orNull(_ value: Double) -> JSON { value == 0 ? .null : .number(value) }

  private static func indented(_ text: String) -> String {
    text.contains("\n")
      ? "\n"
        + text.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)" }.joined(
          separator: "\n") : text
  }
}

extension WireRetryRule {
  /// As it is given with `--retry-on`.
  var words: String {
    let match =
      switch match {
      case .exit(let codes)?: "exit=\(codes.first)" + (codes.last == codes.first ? "" : "-\(codes.last)")
      case .reason(let reason)?: "reason=\(reason)"
      case .any?, nil: "any"
      }
    var text = "\(match):\(stop ? "stop" : "retry")"
    if memoryFactor > 0 { text += ",mem×\(Quantity.trimmed(memoryFactor))" }
    if delayMs > 0 { text += ",delay=\(delayMs / 1000)s" }
    return text
  }
}
