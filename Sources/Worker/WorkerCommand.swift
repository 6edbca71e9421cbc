import ArgumentParser
import Dispatch
import FoundationEssentials
import Logging
import ScitqProtocol
import SystemPackage
import Transfer

/// The program `scitq-worker`.
public enum WorkerProgram {
  /// Does what the process's arguments ask for, and ends the process.
  ///
  /// It is not `async`, so that the supervisor, which is to stay small, is one thread: an asynchronous `main` has
  /// made others before its first line.
  public static func main() -> Never {
    let arguments = Swift.CommandLine.arguments.dropFirst()
    // The agent's own way of starting what looks after its processes; nobody else has a use for it.
    if arguments.first == "supervise" { SuperviseCommand.main(Array(arguments.dropFirst())) }
    Task {
      await WorkerCommand.main(Array(arguments))
      WorkerCommand.exit()
    }
    dispatchMain()
  }
}

/// `scitq-worker supervise`: looks after processes for the agent, and outlives it.
struct SuperviseCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "scitq-worker supervise")

  @Option var store: String

  func run() throws { Supervisor.main(store: FilePath(store)) }
}

/// `scitq-worker`: the agent on a compute host.
struct WorkerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scitq-worker",
    abstract: "Runs the tasks that a scitq server gives to this host.",
    discussion: """
      Joins the server, or comes back to it, and works until told to stop. SIGTERM drains: nothing new is taken, what \
      runs is finished and uploaded, the rest is given back. A second SIGTERM leaves at once; what runs goes on, and \
      the next agent on the same store takes it up.
      """,
    version: Connection.software)

  /// Which metadata service is asked.
  enum Metadata: String, ExpressibleByArgument, CaseIterable {
    case aws, azure, gcp
    case nobody = "none"

    var cloud: EvictionWatch.Cloud? { EvictionWatch.Cloud(rawValue: rawValue) }
  }

  enum Engine: String, ExpressibleByArgument, CaseIterable { case docker, podman, bare }

  @Option(help: "Where the server listens: HOST or HOST:PORT. [SCITQ_SERVER]")
  var server: String?
  @Option(help: "The join token, needed once for each store; others see it in ps. [SCITQ_WORKER_TOKEN]")
  var token: String?
  @Option(help: "A file that holds the join token.")
  var tokenFile: String?
  @Option(help: "The folder for everything this worker keeps; one agent each.")
  var store = "./scitq-worker-data"
  @Option(help: "How many tasks of weight 1 run side by side.")
  var concurrency: UInt32 = 1
  @Option(help: "How many more tasks are made ready while those run.")
  var prefetch: UInt32 = 0
  @Option(help: "Offer at most so many cpus to tasks.")
  var maxCpu: Double?
  @Option(help: "Offer at most so much memory to tasks, in GiB.")
  var maxMem: Double?
  @Flag(help: "This worker is never returned by a recruiter.")
  var permanent = false
  @Option(help: "What runs containers; bare: nothing does. Without it, docker where there is one.")
  var engine: Engine?
  @Option(
    help: "Whose metadata service tells that this host is taken back; none without it. [SCITQ_METADATA]")
  var metadata: Metadata?
  @Option(help: "The name to register under; without it, the host's name.")
  var name: String?
  @Option(help: "trace, debug, info, notice, warning or error.")
  var logLevel: String = "info"

  func validate() throws {
    if let maxCpu, !(maxCpu > 0) { throw ValidationError("--max-cpu \(maxCpu) must be above 0") }
    if let maxMem, !(maxMem > 0) { throw ValidationError("--max-mem \(maxMem) must be above 0") }
    if Logger.Level(rawValue: logLevel) == nil {
      throw ValidationError(
        "--log-level \(logLevel) is not one of \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", "))"
      )
    }
    if token != nil, tokenFile != nil { throw ValidationError("give --token or --token-file, not both") }
  }

  func run() async throws {
    do {
      let ending = try await work()
      if case .refused(let why) = ending { throw Sentence(why) }
    } catch {
      _ = try? SystemPackage.FileDescriptor.standardError.writeAll(Array("scitq-worker: \(error)\n".utf8))
      Self.exit(withError: ExitCode(1))
    }
    // What the agent started on purpose outlives it; what is left of its own threads need not be waited for.
    Self.exit(withError: nil)
  }

  private struct Sentence: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  private func work() async throws -> Agent.Ending {
    let signals = SignalTrap.signals()
    let environment = ProcessInfo.processInfo.environment
    let address = try serverAddress(environment)
    var logger = Logger(label: "scitq-worker", factory: { StreamLogHandler.standardError(label: $0) })
    logger.logLevel = Logger.Level(rawValue: logLevel) ?? .info

    let paths = try StorePaths(absolute(store))
    try paths.make()
    let lock = try takeLock(paths)
    defer { try? lock.close() }
    let enrolment = try Enrolment(store: paths, token: joinToken(environment))
    if enrolment.credential == nil, enrolment.joinToken == nil {
      throw Sentence(
        "this worker has not joined \(address) yet: give its join token with SCITQ_WORKER_TOKEN, --token-file or --token"
      )
    }

    let eviction = try evictionWatch(environment, logger)
    let job = BatchJob(environment: environment)
    let engines = await makeEngines(paths, enrolment.storeID, logger)
    var identity = WireWorkerIdentity()
    identity.hostname = HostProbe.hostname()
    identity.name = name ?? identity.hostname
    identity.storeID = enrolment.storeID
    identity.concurrency = concurrency
    identity.prefetch = prefetch
    identity.permanent = permanent
    identity.endsAt = job.endsAt ?? 0
    identity.host = await HostProbe.describe(
      store: paths.root, maxCPU: maxCpu, maxMemory: maxMem.map { Int64($0 * Double(1 << 30)) },
      job: job, engines: engines.names)

    let journal = try Journal(at: paths.journal, logger: logger)
    let transfer = Transfer(remotes: Remotes([:]), directory: paths.transfer, logger: logger)
    let certificateFile = environment["SCITQ_SSL_CERTIFICATE"]
    let agent = Agent(
      Agent.Setup(
        store: paths, identity: identity, engines: engines, transfer: transfer, journal: journal,
        enrolment: enrolment, logger: logger, eviction: eviction, isBatchJob: job.isPresent
      ) { hello, onPush async throws(CallError) in
        let trust = try await enrolment.trust(address, certificateFile: certificateFile)
        return try await Connection.open(to: address, trust: trust, hello: hello, onPush: onPush)
      })

    let working = Task { await agent.run() }
    let listening = Task {
      var count = 0
      for await _ in signals {
        count += 1
        if count == 1 { await agent.drain() } else { await agent.abandon() }
      }
    }
    let ending = await agent.waitForEnding()
    listening.cancel()
    working.cancel()
    await transfer.stop()
    switch ending {
    case .left: logger.notice("drained and gone")
    case .abandoned: logger.notice("gone at once; what runs goes on without the agent")
    case .refused: break
    }
    return ending
  }

  private func serverAddress(_ environment: [String: String]) throws -> ServerAddress {
    let text = server ?? environment["SCITQ_SERVER"] ?? "localhost"
    guard let address = ServerAddress(text) else {
      throw Sentence("\(text) is not an address of a server; HOST or HOST:PORT would be")
    }
    return address
  }

  /// Nil where nobody is asked, which is so unless it is said: on a host that is in no cloud, whoever answers
  /// at that address is not to be believed.
  func evictionWatch(_ environment: [String: String], _ logger: Logger) throws -> EvictionWatch? {
    var metadata = metadata
    if metadata == nil, let text = environment["SCITQ_METADATA"], !text.isEmpty {
      metadata = Metadata(rawValue: text)
      if metadata == nil {
        let known = Metadata.allCases.map(\.rawValue).joined(separator: ", ")
        throw Sentence("SCITQ_METADATA is \(text), which is not one of \(known)")
      }
    }
    guard let cloud = metadata?.cloud else { return nil }
    guard let text = environment["SCITQ_METADATA_ADDRESS"], !text.isEmpty else {
      return EvictionWatch(cloud, logger: logger)
    }
    guard let service = MetadataService(text) else {
      throw Sentence("SCITQ_METADATA_ADDRESS is \(text), which is not HOST or HOST:PORT")
    }
    return EvictionWatch(cloud, service, logger: logger)
  }

  private func joinToken(_ environment: [String: String]) throws -> String? {
    if let tokenFile {
      guard let text = Files.text(FilePath(tokenFile)), !text.isEmpty else {
        throw Sentence("the file \(tokenFile) cannot be read or is empty; it must hold the join token")
      }
      return text
    }
    return token ?? environment["SCITQ_WORKER_TOKEN"]
  }

  private func absolute(_ path: String) throws -> FilePath {
    let path = FilePath(path)
    if path.isAbsolute { return path.lexicallyNormalized() }
    return FilePath(FileManager.default.currentDirectoryPath).pushing(path).lexicallyNormalized()
  }

  /// One agent to a store. The lock is the process's own and ends with it, however it ends.
  private func takeLock(_ paths: StorePaths) throws -> FileDescriptor {
    let file = try FileDescriptor.open(
      paths.lock, .readWrite, options: [.create], permissions: [.ownerReadWrite])
    Files.closeOnExec(file)
    guard Files.lock(file) else {
      throw Sentence("another agent works on the store \(paths.root); give each its own --store")
    }
    return file
  }

  private func makeEngines(_ paths: StorePaths, _ storeID: String, _ logger: Logger) async -> Engines {
    let process = ProcessEngine(store: paths.root)
    switch engine {
    case .bare: return Engines(container: nil, process: process, names: ["bare"])
    case .podman:
      return Engines(
        container: DockerEngine(storeID: storeID, program: "podman"), process: process,
        names: ["podman", "bare"])
    case .docker, nil:
      let docker = DockerEngine(storeID: storeID)
      // Where nobody asked for it and it does not answer, this host runs processes only.
      if engine == nil, await !DockerEngine.available("docker") {
        logger.notice("docker does not answer here, so only bare tasks are run")
        return Engines(container: nil, process: process, names: ["bare"])
      }
      return Engines(container: docker, process: process, names: ["docker", "bare"])
    }
  }
}
