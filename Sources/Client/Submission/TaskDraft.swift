import ScitqProtocol

/// A task as it is asked for by flags or by a line of a file. Nil and empty mean: nothing said.
struct TaskDraft: Hashable, Sendable {
  var command: String?
  var container: String?
  var shell: String?
  var inputs: [String] = []
  var resources: [String] = []
  var output: String?
  var publish: String?
  var publishMode: Publishing?
  var skipIfExists: Bool?
  var dependencies: [Prerequisite] = []
  var stepID: Int64?
  var name: String?
  var retry: UInt32?
  var priority: Int32?
  var cpu: Double?
  var memoryBytes: Int64?
  var diskBytes: Int64?
  var gpu: UInt32?
  var acceptFailure: Bool?
  var onDependencyFailure: DependencyFailure?
  var downloadTimeout: Duration?
  var runTimeout: Duration?
  var uploadTimeout: Duration?
  var queueTimeout: Duration?
  var timeEstimate: Duration?
  var retryRules: [WireRetryRule] = []
  var retryDelay: Duration?
  var env: [EnvironmentEntry] = []
  var containerOptions: [String] = []
  var weight: Double?

  /// What happens to a task whose prerequisite failed for good.
  enum DependencyFailure: String, CaseIterable, Sendable {
    case wait, cancel
  }

  /// Whether outputs that are published go to the output folder as well.
  enum Publishing: String, CaseIterable, Sendable {
    case copy, move
  }

  /// This draft, with the defaults where it says nothing. A list that it gives takes the place of the default's
  /// list; variables are filled in one by one.
  func filled(from defaults: TaskDraft) -> TaskDraft {
    var draft = self
    draft.command = command ?? defaults.command
    draft.container = container ?? defaults.container
    draft.shell = shell ?? defaults.shell
    draft.inputs = inputs.isEmpty ? defaults.inputs : inputs
    draft.resources = resources.isEmpty ? defaults.resources : resources
    draft.output = output ?? defaults.output
    draft.publish = publish ?? defaults.publish
    draft.publishMode = publishMode ?? defaults.publishMode
    draft.skipIfExists = skipIfExists ?? defaults.skipIfExists
    draft.dependencies = dependencies.isEmpty ? defaults.dependencies : dependencies
    draft.stepID = stepID ?? defaults.stepID
    draft.name = name ?? defaults.name
    draft.retry = retry ?? defaults.retry
    draft.priority = priority ?? defaults.priority
    draft.cpu = cpu ?? defaults.cpu
    draft.memoryBytes = memoryBytes ?? defaults.memoryBytes
    draft.diskBytes = diskBytes ?? defaults.diskBytes
    draft.gpu = gpu ?? defaults.gpu
    draft.acceptFailure = acceptFailure ?? defaults.acceptFailure
    draft.onDependencyFailure = onDependencyFailure ?? defaults.onDependencyFailure
    draft.downloadTimeout = downloadTimeout ?? defaults.downloadTimeout
    draft.runTimeout = runTimeout ?? defaults.runTimeout
    draft.uploadTimeout = uploadTimeout ?? defaults.uploadTimeout
    draft.queueTimeout = queueTimeout ?? defaults.queueTimeout
    draft.timeEstimate = timeEstimate ?? defaults.timeEstimate
    draft.retryRules = retryRules.isEmpty ? defaults.retryRules : retryRules
    draft.retryDelay = retryDelay ?? defaults.retryDelay
    draft.env = defaults.env + env
    draft.containerOptions = containerOptions.isEmpty ? defaults.containerOptions : containerOptions
    draft.weight = weight ?? defaults.weight
    return draft
  }

  /// This draft without what the server may have to be asked about.
  var withoutDependencies: TaskDraft {
    var draft = self
    draft.dependencies = []
    return draft
  }

  /// The task for the wire. Refuses what no server could run; what depends on the server's settings is its to refuse.
  func newTask() throws(TextProblem) -> WireNewTask {
    guard let command else { throw TextProblem("the command is missing; give it as --command '…'") }
    guard command.contains(where: { !$0.isWhitespace }) else {
      throw TextProblem("the command is empty; give a command to run as --command '…'")
    }
    guard !command.utf8.contains(0) else {
      throw TextProblem("the command has a NUL character, which cannot be run")
    }
    for (place, what) in [(output, "output"), (publish, "publish folder")] where place?.contains("|") == true
    {
      throw TextProblem(
        "the \(what) '\(Escaping.printable(place ?? ""))' has an action; actions are for inputs and resources"
      )
    }
    for uri in inputs + resources + [output, publish].compactMap(\.self) where uri.isEmpty {
      throw TextProblem("an input, resource, output or publish folder is empty; give a URI or a path")
    }
    if publishMode != nil, publish == nil {
      throw TextProblem("the publish mode is given without a folder to publish to; add --publish URI")
    }
    var task = WireNewTask()
    task.spec.command = command
    task.spec.container = container ?? ""
    task.spec.shell = shell ?? ""
    task.spec.inputs = inputs
    task.spec.resources = resources
    task.spec.output = output ?? ""
    task.spec.publish = publish ?? ""
    task.spec.publishMode = publishMode == .move ? .move : .copy
    task.spec.skipIfExists = skipIfExists ?? false
    for entry in env { task.spec.env[entry.name] = entry.value }
    task.spec.containerOptions = containerOptions
    if cpu != nil || memoryBytes != nil || diskBytes != nil || gpu != nil {
      task.spec.needs.cpu = cpu ?? 0
      task.spec.needs.memoryBytes = memoryBytes ?? 0
      task.spec.needs.diskBytes = diskBytes ?? 0
      task.spec.needs.gpu = gpu ?? 0
    }
    task.spec.downloadTimeoutMs = downloadTimeout.map(\.wholeMilliseconds) ?? 0
    task.spec.runTimeoutMs = runTimeout.map(\.wholeMilliseconds) ?? 0
    task.spec.uploadTimeoutMs = uploadTimeout.map(\.wholeMilliseconds) ?? 0
    task.spec.queueTimeoutMs = queueTimeout.map(\.wholeMilliseconds) ?? 0
    task.spec.timeEstimateMs = timeEstimate.map(\.wholeMilliseconds) ?? 0
    task.spec.retryRules = retryRules
    task.spec.retryDelayMs = retryDelay.map(\.wholeMilliseconds) ?? 0
    task.name = name ?? ""
    task.weight = weight ?? 0
    task.priority = priority ?? 0
    task.retry = retry ?? 0
    task.stepID = stepID ?? 0
    for dependency in dependencies {
      switch dependency {
      case .all(let reference):
        // One task of a job is looked up before: what is left are ids.
        guard reference.index == nil else {
          throw TextProblem(
            "a dependency on \(reference.id):\(reference.index ?? 0) cannot be given here; name the task's id"
          )
        }
        task.dependencies.append(reference.id)
      case .each(let job): task.eachOf.append(job)
      }
    }
    task.acceptFailure = acceptFailure ?? false
    task.onDependencyFailure = onDependencyFailure == .cancel ? .cancel : .wait
    return task
  }
}

extension Duration {
  var wholeMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + attoseconds / 1_000_000_000_000_000
  }
}
