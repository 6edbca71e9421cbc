import ScitqProtocol
import Transfer

/// What can be said of a task before it is stored: each refusal names the field, and what would be right.
struct SubmissionCheck {
  let configuration: Configuration
  let user: User

  private static let longestText = 8 << 20

  func check(_ tasks: [WireNewTask]) throws(CallError) {
    guard !tasks.isEmpty else { throw CallError(.invalid, "no task was given; give at least one") }
    let remotes = configuration.rclone.filter { $0.value.mayBeUsed(by: user) }
    for (index, task) in tasks.enumerated() {
      do throws(CallError) { try check(task, remotes) } catch {
        guard tasks.count > 1 else { throw error }
        throw CallError(error.code, "task \(index + 1): \(error.message)", field: error.field)
      }
    }
  }

  // MARK: Jobs

  func check(
    _ job: WireNewJob, _ rows: [WireJobRow], beside tasks: [WireNewTask]
  ) throws(CallError) -> Submission.Job {
    guard tasks.isEmpty else {
      throw CallError(.invalid, "a job and single tasks are submitted in two calls")
    }
    let hasRows = job.split || !job.columns.isEmpty
    let size = hasRows ? Int64(rows.count) : job.size
    guard size > 0 else {
      throw CallError(.invalid, "the array has no task; give at least one", field: "array")
    }
    guard size <= configuration.limits.maxTasksPerCall else {
      throw CallError(
        .exhausted, "an array has at most \(configuration.limits.maxTasksPerCall) tasks", field: "array")
    }
    guard job.stride >= 0, job.firstIndex >= 0, job.firstIndex <= Int64(Int32.max),
      job.stride <= Int64(Int32.max)
    else {
      throw CallError(.invalid, "indexes of an array are not negative and go up", field: "array")
    }
    for name in job.columns where !Self.isVariableName(name) {
      throw CallError(
        .invalid, "\"\(name.prefix(40))\" is no name of a column: letters, digits and _", field: "array-file")
    }
    guard Set(job.columns).count == job.columns.count else {
      throw CallError(.invalid, "two columns have one name", field: "array-file")
    }
    let remotes = configuration.rclone.filter { $0.value.mayBeUsed(by: user) }
    // N_TO_N is for arrays only, and this is one. What its own values make of it is looked at below.
    var common = job.task
    common.eachOf = []
    if !hasRows { try check(common, remotes) }
    for (index, row) in rows.enumerated() {
      guard row.values.count == job.columns.count else {
        throw CallError(
          .invalid,
          "row \(index + 1) has \(row.values.count) fields, and there are \(job.columns.count) columns",
          field: "array-file")
      }
      var parameters = TaskParameters()
      if !job.columns.isEmpty {
        parameters.values = Dictionary(uniqueKeysWithValues: zip(job.columns, row.values))
      }
      if job.split { parameters.inputs = row.inputs }
      var own = common
      parameters.apply(to: &own.spec)
      do throws(CallError) { try check(own, remotes) } catch {
        throw CallError(error.code, "row \(index + 1): \(error.message)", field: error.field)
      }
    }
    return Submission.Job(header: job, rows: rows, size: size)
  }

  /// A change of a task that is there.
  static func check(_ request: WireEditTask) throws(CallError) {
    if request.hasCommand, request.command.allSatisfy(\.isWhitespace) {
      throw CallError(.invalid, "the command is empty; say what is to be run", field: "command")
    }
    if request.hasCommand, request.command.utf8.count > longestText || request.command.utf8.contains(0) {
      throw CallError(
        .invalid, "a command has at most \(longestText) bytes and no NUL byte", field: "command")
    }
    if request.hasRetry, request.retry > 1000 {
      throw CallError(.invalid, "retry is \(request.retry); it is at most 1000", field: "retry")
    }
  }

  // MARK: Tasks

  private func check(_ task: WireNewTask, _ remotes: [String: Remote]) throws(CallError) {
    let spec = task.spec
    if spec.command.allSatisfy(\.isWhitespace) {
      throw CallError(.invalid, "the command is empty; say what is to be run", field: "command")
    }
    if spec.command.utf8.count > Self.longestText {
      throw CallError(
        .invalid, "the command has \(spec.command.utf8.count) bytes; at most \(Self.longestText) are taken",
        field: "command")
    }
    if spec.command.utf8.contains(0) {
      throw CallError(
        .invalid, "the command holds a NUL byte, which no program can be given", field: "command")
    }
    if spec.container.contains(where: \.isWhitespace) || spec.container.hasPrefix("-") {
      throw CallError(.invalid, "\"\(spec.container)\" is no name of an image", field: "container")
    }
    for input in spec.inputs { try check(input, "input", remotes) }
    for resource in spec.resources { try check(resource, "resource", remotes) }
    if !spec.output.isEmpty { try checkDestination(spec.output, "output", remotes) }
    if !spec.publish.isEmpty { try checkDestination(spec.publish, "publish", remotes) }
    let looked = spec.publish.isEmpty ? spec.output : spec.publish
    if spec.skipIfExists, (try? TransferURI(parsing: looked))?.isLocal != false {
      throw CallError(
        .invalid, "skip-if-exists looks at what is in the publish or output folder; give one on a remote",
        field: "skip-if-exists")
    }
    for name in spec.env.keys where !Self.isVariableName(name) {
      throw CallError(.invalid, "\"\(name)\" is no name of an environment variable", field: "env")
    }
    for option in spec.containerOptions {
      let name = String(option.prefix { $0 != "=" })
      if name.hasPrefix("-"), !configuration.workers.allowedContainerOptions.contains(name) {
        throw CallError(
          .forbidden,
          "the container option \(name) is not allowed here; \(Self.allowed(configuration))",
          field: "container-option")
      }
    }
    try check(spec.needs)
    for (name, value) in [
      ("download-timeout", spec.downloadTimeoutMs), ("run-timeout", spec.runTimeoutMs),
      ("upload-timeout", spec.uploadTimeoutMs), ("queue-timeout", spec.queueTimeoutMs),
      ("retry-delay", spec.retryDelayMs),
    ] where value < 0 {
      throw CallError(.invalid, "\(name) is \(value) ms; it cannot be negative", field: name)
    }
    guard task.weight >= 0, task.weight <= 1000, task.weight == 0 || task.weight >= 0.001 else {
      throw CallError(.invalid, "the weight is \(task.weight); it is from 0.001 to 1000", field: "weight")
    }
    guard task.retry <= 1000 else {
      throw CallError(.invalid, "retry is \(task.retry); it is at most 1000", field: "retry")
    }
    guard task.eachOf.isEmpty else {
      throw CallError(
        .invalid, "N_TO_N is between arrays: index by index; submit an array", field: "dependency")
    }
    try check(spec.retryRules, budget: task.retry)
  }

  private static func allowed(_ configuration: Configuration) -> String {
    let options = configuration.workers.allowedContainerOptions
    return options.isEmpty ? "no option is" : "those that are: \(options.joined(separator: " "))"
  }

  private func check(_ text: String, _ field: String, _ remotes: [String: Remote]) throws(CallError) {
    do throws(TransferFailure) {
      let uri = try TransferURI(parsing: text)
      try check(uri, field, remotes)
    } catch {
      throw CallError(.invalid, "\(field): \(error.message)", field: field)
    }
  }

  private func checkDestination(
    _ text: String, _ field: String, _ remotes: [String: Remote]
  ) throws(CallError) {
    do throws(TransferFailure) {
      let uri = try TransferURI.parseOutput(text)
      try check(uri, field, remotes)
      if remotes[uri.scheme]?.isReadOnly == true, !uri.isLocal {
        throw TransferFailure(.denied, "\(uri): the remote \(uri.scheme) is read-only; name another")
      }
    } catch {
      throw CallError(
        error.reason == .denied ? .forbidden : .invalid, "\(field): \(error.message)", field: field)
    }
  }

  private func check(
    _ uri: TransferURI, _ field: String, _ remotes: [String: Remote]
  ) throws(TransferFailure) {
    try uri.checkRemote(known: Array(remotes.keys))
  }

  private func check(_ needs: WireNeeds) throws(CallError) {
    guard needs.cpu >= 0, needs.cpu <= 100_000 else {
      throw CallError(.invalid, "cpu is \(needs.cpu); it is from 0 to 100000", field: "cpu")
    }
    guard needs.memoryBytes >= 0, needs.diskBytes >= 0 else {
      throw CallError(.invalid, "memory and disk cannot be negative", field: "mem")
    }
  }

  private func check(_ rules: [WireRetryRule], budget: UInt32) throws(CallError) {
    for rule in rules {
      switch rule.match {
      case .exit(let codes)?
      where !(0...255).contains(codes.first) || !(codes.first...255).contains(codes.last):
        throw CallError(
          .invalid,
          "retry-on: exit \(codes.first)-\(codes.last) is no range of exit codes, which are 0 to 255",
          field: "retry-on")
      case .reason(let reason)? where FailureReason(rawValue: reason) == nil:
        throw CallError(
          .invalid,
          "retry-on: \"\(reason.prefix(40))\" is no reason; they are \(FailureReason.allCases.map(\.rawValue).joined(separator: ", "))",
          field: "retry-on")
      default: break
      }
      guard rule.memoryFactor == 0 || (1...16).contains(rule.memoryFactor) else {
        throw CallError(
          .invalid, "retry-on: mem×\(rule.memoryFactor) is out of bounds; it is from 1 to 16",
          field: "retry-on")
      }
      guard rule.delayMs >= 0 else {
        throw CallError(.invalid, "retry-on: a delay cannot be negative", field: "retry-on")
      }
      if !rule.stop, budget == 0, rule.match != .reason(FailureReason.workerLost.rawValue) {
        throw CallError(
          .invalid, "retry-on says retry and the budget is 0: give --retry N as well", field: "retry-on")
      }
    }
  }

  private static func isVariableName(_ name: String) -> Bool {
    guard let first = name.utf8.first, !(48...57).contains(first) else { return false }
    return name.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0 & 0xDF) || $0 == 95 }
  }
}
