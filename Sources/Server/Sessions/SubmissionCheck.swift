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
      ("upload-timeout", spec.uploadTimeoutMs),
    ] where value < 0 {
      throw CallError(.invalid, "\(name) is \(value) ms; it cannot be negative", field: name)
    }
    guard task.weight >= 0, task.weight <= 1000, task.weight == 0 || task.weight >= 0.001 else {
      throw CallError(.invalid, "the weight is \(task.weight); it is from 0.001 to 1000", field: "weight")
    }
    guard task.retry <= 1000 else {
      throw CallError(.invalid, "retry is \(task.retry); it is at most 1000", field: "retry")
    }
    if task.stepID != 0 {
      throw CallError(.notFound, "step \(task.stepID) does not exist", field: "step-id")
    }
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

  private static func isVariableName(_ name: String) -> Bool {
    guard let first = name.utf8.first, !(48...57).contains(first) else { return false }
    return name.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0 & 0xDF) || $0 == 95 }
  }
}
