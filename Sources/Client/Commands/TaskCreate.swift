import ArgumentParser
import Foundation
import ScitqProtocol

/// `scitq task create`.
struct TaskCreate: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "create", "Create a task, or many from a file.",
    example: """
      scitq task create --container alpine --shell sh --command 'echo "hello world"|tr "h" "H"'
      scitq task create --container alpine --input s3://bucket/a.dat --output s3://bucket/out/ --command 'wc /input/a.dat'
      scitq task create --container alpine --from-file commands.txt --wait
      """)

  @OptionGroup var globals: Globals
  @OptionGroup(title: "The task") var flags: TaskFlags
  @Option(
    name: .customLong("from-file"),
    help:
      "Create one task a line of this file, or of stdin with '-': commands, or JSON objects with the flags as keys."
  )
  var fromFile: String?
  @OptionGroup(title: "An array of tasks") var array: ArrayFlags
  @Flag(help: "Wait until every task has ended; status 1 unless all succeeded.") var wait = false
  @Flag(help: "Print what the task prints until it has ended; status 1 unless it succeeded.") var follow =
    false

  /// Refused here and now, before a server is looked for; and only after the parser has had its say about misspelled
  /// flags, so that `--comand` is not answered with "the command is missing".
  func check() throws {
    if follow, fromFile != nil {
      throw ValidationError("--follow follows one task; with --from-file use --wait")
    }
    if fromFile != nil, array.isGiven {
      throw ValidationError("--from-file and an array exclude each other; give one of them")
    }
    if follow, array.isGiven { throw ValidationError("--follow follows one task; with an array use --wait") }
    if !array.isGiven, flags.dependency.joined().contains(where: \.isEach) {
      throw ValidationError("N_TO_N is between arrays: index by index; give --array as well")
    }
    if fromFile == nil {
      do { _ = try flags.draft.withoutDependencies.newTask() } catch { throw ValidationError("\(error)") }
    } else if let command = flags.command, !command.contains(where: { !$0.isWhitespace }) {
      throw ValidationError(
        "the command is empty; leave --command out, or give a command for lines without one")
    }
  }

  func run(_ client: Client) async throws {
    try check()
    guard client.token != nil else { throw Failure(Client.reminder) }
    let created = try await create(client)
    let message =
      created.jobID > 0
      ? "job \(created.jobID) created: \(Self.range(created))"
      : created.count == 1 && fromFile == nil ? "task \(created.firstID) created" : Self.sentence(created)
    switch client.format {
    // What follows on stdout is the task's own output, and nothing but that.
    case _ where follow: try client.note(client.format == .quiet ? "\(created.firstID)" : message)
    case .text: try client.put(message + "\n")
    case .quiet where created.jobID > 0: try client.put("\(created.jobID)\n")
    case .quiet:
      // A hundred thousand ids in one string would be no quieter.
      var ids = created.ids.makeIterator()
      while true {
        var text = ""
        while text.utf8.count < 1 << 16, let id = ids.next() { text += "\(id)\n" }
        if text.isEmpty { break }
        try client.put(text)
      }
    case .json:
      let json: JSON =
        created.jobID > 0
        ? .object([
          .init("job_id", .integer(created.jobID)), .init("first_id", .integer(created.firstID)),
          .init("count", .integer(created.count)),
        ])
        : fromFile == nil
          ? .object([.init("id", .integer(created.firstID))])
          : .object([.init("first_id", .integer(created.firstID)), .init("count", .integer(created.count))])
      try client.put(json.compact + "\n")
    }
    if follow {
      try await TaskFollowing(client).run(created.firstID)
    } else if wait {
      try await TaskWaiting(client).run(Array(created.ids))
    }
  }

  /// What is asked for by names and places is looked up first.
  private func create(_ client: Client) async throws -> WireTasksCreated {
    var draft = flags.draft
    if flags.needsLookup {
      draft = try await client.connected { try await flags.resolved($0) }
    }
    if array.isGiven { return try await array.submit(draft, client) }
    return try await TaskSubmission(client).send(try batches(draft))
  }

  private static func range(_ created: WireTasksCreated) -> String {
    created.count == 1
      ? "task \(created.firstID)" : "tasks \(created.firstID)–\(created.firstID + created.count - 1)"
  }

  private static func sentence(_ created: WireTasksCreated) -> String {
    created.count == 1
      ? "task \(created.firstID) created"
      : "tasks \(created.firstID)–\(created.firstID + created.count - 1) created"
  }

  private func batches(_ draft: TaskDraft) throws -> TaskBatches {
    guard let fromFile else {
      var batches = TaskBatches()
      try batches.append(draft.newTask())
      return batches
    }
    if fromFile == "-" {
      var reader = LineReader(descriptor: STDIN_FILENO)
      return try TaskFile.read(&reader, defaults: draft, name: "stdin")
    }
    let descriptor = Foundation.open(fromFile, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure("\(Escaping.printable(fromFile)) cannot be read: \(Descriptor.reason(errno))")
    }
    defer { close(descriptor) }
    var reader = LineReader(descriptor: descriptor)
    return try TaskFile.read(&reader, defaults: draft, name: Escaping.printable(fromFile))
  }
}

extension WireTasksCreated {
  fileprivate var ids: Range<Int64> { firstID..<(firstID + count) }
}

/// The flags that describe a task.
struct TaskFlags: ParsableArguments {
  @Option(help: "The container image; left out or 'bare', the command runs on the worker's host.")
  var container: String?
  @Option(help: "What to run.") var command: String?
  @Option(help: "Run the command in this shell, such as sh, bash or python.") var shell: String?
  @Option(help: "A file, folder or pattern for /input; may be repeated.") var input: [String] = []
  @Option(help: "A file, folder or pattern for /resource, shared and read-only; may be repeated.")
  var resource: [String] = []
  @Option(help: "The folder that /output is copied to.") var output: String?
  @Option(help: "A folder that /output is copied to when the command succeeds.") var publish: String?
  @Option(
    name: .customLong("publish-mode"),
    help: "copy: to --output as well (the default); move: to --publish only.",
    transform: TaskDraft.publishing)
  var publishMode: TaskDraft.Publishing?
  @Flag(
    name: .customLong("skip-if-exists"),
    help: "Count as succeeded, without running, when there are files at --publish, or else --output.")
  var skipIfExists = false
  @Option(
    help:
      "Wait for this task or job to succeed, as 12, 101:3 (one of a job) or 101:N_TO_N (index by index); may be repeated.",
    transform: Prerequisite.list)
  var dependency: [[Prerequisite]] = []
  @Option(name: .customLong("step-id"), help: "The step that it is part of.", transform: Values.id)
  var stepID: Int64?
  @Option(name: .customLong("workflow-name"), help: "The workflow of --step-name.") var workflowName: String?
  @Option(name: .customLong("step-name"), help: "The step that it is part of, by its name.") var stepName:
    String?
  @Option(help: "A name for people.") var name: String?
  @Option(help: "How often the task is retried by itself when it fails.", transform: Values.count) var retry:
    UInt32?
  @Option(parsing: .unconditional, help: "Tasks with a higher number go first.", transform: Values.priority)
  var priority: Int32?
  @Option(help: "CPUs that the task needs and is limited to.", transform: Values.processors) var cpu: Double?
  @Option(
    name: .customLong("mem"), help: "Memory in GB that it needs and is limited to.",
    transform: Values.gigabytes)
  var memory: Int64?
  @Option(help: "Disk in GB that it needs.", transform: Values.gigabytes) var disk: Int64?
  @Option(help: "GPUs that it needs.", transform: Values.count) var gpu: UInt32?
  @Option(help: "How much of a worker's slot it takes (default: 1).", transform: Values.weight) var weight:
    Double?
  @Flag(name: .customLong("accept-failure"), help: "Run also when a task it depends on has failed for good.")
  var acceptFailure = false
  @Option(
    name: .customLong("on-dependency-failure"),
    help: "When a task it depends on has failed for good: wait or cancel.",
    transform: TaskFlags.dependencyFailure)
  var onDependencyFailure: TaskDraft.DependencyFailure?
  @Option(
    name: .customLong("download-timeout"),
    help: "The longest that downloading may take, as 90, 15m, 2h or 1d.",
    transform: Values.duration)
  var downloadTimeout: Duration?
  @Option(
    name: .customLong("run-timeout"), help: "The longest that the command may run.",
    transform: Values.duration)
  var runTimeout: Duration?
  @Option(
    name: .customLong("upload-timeout"), help: "The longest that uploading may take.",
    transform: Values.duration)
  var uploadTimeout: Duration?
  @Option(
    name: .customLong("queue-timeout"), help: "The longest that it may be ready without being run.",
    transform: Values.duration)
  var queueTimeout: Duration?
  @Option(
    name: .customLong("time-estimate"),
    help: "How long the command takes at most, by your own word; it is no limit.",
    transform: Values.duration)
  var timeEstimate: Duration?
  @Option(
    name: .customLong("retry-on"),
    help:
      "What is done about a failure while --retry lasts, as exit=137:retry,mem×2 or reason=timeout:stop; may be repeated, the first that matches decides.",
    transform: RetryRuleText.parse)
  var retryOn: [WireRetryRule] = []
  @Option(
    name: .customLong("retry-delay"),
    help: "The pause before the first retry; twice as long before each further one.",
    transform: Values.duration)
  var retryDelay: Duration?
  @Option(help: "NAME=VALUE for the command's environment; may be repeated.", transform: Values.environment)
  var env: [EnvironmentEntry] = []
  @Option(
    name: .customLong("container-option"), parsing: .unconditionalSingleValue,
    help: "An option for the container engine, such as --shm-size=2g; may be repeated.")
  var containerOption: [String] = []

  private static func dependencyFailure(_ text: String) throws(TextProblem) -> TaskDraft.DependencyFailure {
    guard let choice = TaskDraft.DependencyFailure(rawValue: text) else {
      throw TextProblem("'\(Escaping.printable(text))' is neither 'wait' nor 'cancel'")
    }
    return choice
  }

  mutating func validate() throws {
    guard (workflowName == nil) == (stepName == nil) else {
      throw ValidationError("--workflow-name and --step-name belong together; give both, or --step-id")
    }
    if stepID != nil, stepName != nil {
      throw ValidationError("--step-id and --step-name exclude each other; give one of them")
    }
  }

  /// Whether the server has to be asked what a name or a place in a job stands for.
  var needsLookup: Bool { stepName != nil || dependency.joined().contains(where: \.hasIndex) }

  func resolved(_ session: Session) async throws -> TaskDraft {
    var draft = draft
    if let stepName, let workflowName {
      let workflow = try await session.workflow(named: workflowName)
      draft.stepID = try await session.step(named: stepName, of: workflow)
    }
    var dependencies: [Prerequisite] = []
    for one in draft.dependencies {
      guard case .all(let reference) = one, reference.index != nil else {
        dependencies.append(one)
        continue
      }
      dependencies.append(.all(TaskReference(id: try await session.resolve(reference))))
    }
    draft.dependencies = dependencies
    return draft
  }

  var draft: TaskDraft {
    var draft = TaskDraft()
    draft.command = command
    draft.container = container
    draft.shell = shell
    draft.inputs = input
    draft.resources = resource
    draft.output = output
    draft.publish = publish
    draft.publishMode = publishMode
    draft.skipIfExists = skipIfExists ? true : nil
    draft.dependencies = dependency.flatMap(\.self)
    draft.stepID = stepID
    draft.queueTimeout = queueTimeout
    draft.timeEstimate = timeEstimate
    draft.retryRules = retryOn
    draft.retryDelay = retryDelay
    draft.name = name
    draft.retry = retry
    draft.priority = priority
    draft.cpu = cpu
    draft.memoryBytes = memory
    draft.diskBytes = disk
    draft.gpu = gpu
    draft.acceptFailure = acceptFailure ? true : nil
    draft.onDependencyFailure = onDependencyFailure
    draft.downloadTimeout = downloadTimeout
    draft.runTimeout = runTimeout
    draft.uploadTimeout = uploadTimeout
    draft.env = env
    draft.containerOptions = containerOption
    draft.weight = weight
    return draft
  }
}
