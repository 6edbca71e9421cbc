import Foundation
import Testing

/// A scitq of its own: a server, its workers, and an object store where one is wanted. Real programs, in a temporary
/// folder, on ports that the system gives out; all of it is gone when `run` returns.
///
///     try await World.server().worker(slots: 2).run { world in
///       let id = try await world.create("--command", "echo hello")
///       try await world.succeeded(id)
///     }
actor World {
  nonisolated let folder: URL
  /// Where the buckets of the object store are, as plain folders and files.
  nonisolated var buckets: URL { folder.appending(path: "s3") }

  private let plan: Plan
  private var server: Program?
  private var objectStore: Program?
  private var workers: [String: Program] = [:]
  private var address = ""
  private var clientAddress = ""
  private var token = ""
  private var calls = 0

  /// What a world is to have.
  struct Plan {
    var workers: [Worker] = []
    var hasObjectStore = false
    /// More lines for the remote `s3` of the configuration.
    var objectStoreSettings = ""
    /// How long the store believes what it has seen of a folder: not long, so that tests may lay files there from
    /// outside; but not 0, with which rclone runs in circles where two write to one folder at once.
    var objectStoreCache = "100ms"
    var configuration = ""
    /// What the server finds in its environment: credentials of providers, where their clients look.
    var serverEnvironment: [String: String] = [:]
    /// The server listens to hosts in other namespaces as well.
    var hasRemoteHosts = false

    struct Worker {
      var name: String
      var slots: Int
      var prefetch: Int
      var engine: Engine
      /// The size of a disk of its own for the store; nil: it lies on the host's.
      var megabytes: Int?
      /// It is in a network namespace of its own, behind a cable that can be cut.
      var isRemote = false
      /// It is started by the test.
      var isLate = false
    }
  }

  enum Engine: String {
    case docker, bare
  }

  static func server() -> Plan { Plan() }

  private init(_ plan: Plan) throws {
    self.plan = plan
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    var template = Array("\(parent)/w.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Trouble("no folder can be made in \(parent)") }
    let path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    folder = URL(filePath: path, directoryHint: .isDirectory)
  }

  fileprivate static func run(_ plan: Plan, _ body: (World) async throws -> Void) async throws {
    let world = try World(plan)
    do {
      try await world.start()
      try await body(world)
    } catch {
      await world.showLogs()
      await world.showEvents()
      await world.end()
      throw error
    }
    await world.end()
  }

  // MARK: - The server

  private static let adminPassword = "correct horse battery staple"

  private func start() async throws {
    if plan.hasObjectStore { try await startObjectStore() }
    try await startServer()
    for worker in plan.workers where !worker.isLate { try await startWorker(worker.name) }
  }

  /// Starts the server, for the first time or again on the same folder and port.
  func startServer() async throws {
    var yaml = "admin:\n  password: ${SCITQ_ADMIN_PASSWORD}\n" + plan.configuration
    if plan.hasObjectStore { yaml += objectStoreConfiguration }
    let file = folder.appending(path: "scitq.yaml")
    try yaml.write(to: file, atomically: true, encoding: .utf8)
    let data = folder.appending(path: "server")
    let addressFile = data.appending(path: "address")
    try? FileManager.default.removeItem(at: addressFile)
    let program = try launch(
      "server", "scitq-server",
      [
        "--config", file.path, "--data-dir", data.path, "--listen", address.isEmpty ? "\(host):0" : address,
      ],
      plan.serverEnvironment.merging(["SCITQ_ADMIN_PASSWORD": Self.adminPassword]) { _, new in new })
    server = program
    try await until("the server listens") {
      guard program.isRunning else {
        throw Trouble("the server ended at its start: \(self.said("server").suffix(2_000))")
      }
      return FileManager.default.fileExists(atPath: addressFile.path)
        && !((try? String(contentsOf: addressFile, encoding: .utf8)) ?? "").isEmpty
    }
    address = try String(contentsOf: addressFile, encoding: .utf8).trimmingCharacters(
      in: .whitespacesAndNewlines)
    // The way in for those on this host.
    clientAddress = address.replacingOccurrences(of: "0.0.0.0", with: "127.0.0.1")
    if token.isEmpty {
      let login = try await call(
        ["login", "--user", "admin", "--password-stdin"], input: Data((Self.adminPassword + "\n").utf8))
      try #require(login.status == 0, "login: \(login)")
      token = login.text
    }
  }

  func killServer() async throws {
    let program = try #require(server)
    #expect(program.isRunning, "the server had ended before it was killed")
    await program.killNow()
  }

  /// The process of the server, and whether it is still the one that was started.
  var serverIsRunning: Bool { server?.isRunning ?? false }
  var serverAddress: String { address }
  nonisolated var authority: URL { folder.appending(path: "server/tls/authority.pem") }
  nonisolated var database: URL { folder.appending(path: "server/scitq.db") }

  // MARK: - Workers

  /// Starts the agent of this name, for the first time or again on its store.
  func startWorker(_ name: String) async throws {
    if let size = plan.workers.first(where: { $0.name == name })?.megabytes, !disks.contains(name) {
      try await mountDisk(of: name, megabytes: size)
    }
    if plan.workers.first(where: { $0.name == name })?.isRemote == true, cables[name] == nil {
      cables[name] = try await Cable.lay()
    }
    _ = try launchWorker(name)
    try await until("worker \(name) is connected") {
      // Connected, whatever a person wants of it.
      try await !["lost", "offline", nil].contains(self.worker(name)?.status)
    }
  }

  /// Starts the agent and does not wait for it to connect. With `token`, it comes with that one to join with.
  func launchWorker(_ name: String, token: String? = nil) throws -> Program {
    let worker = try #require(plan.workers.first { $0.name == name })
    var tokenFile = folder.appending(path: "server/join-token")
    if let token {
      tokenFile = scratch("token")
      try token.write(to: tokenFile, atomically: true, encoding: .utf8)
    }
    let cable = cables[name]
    let program = try launch(
      name, "scitq-worker",
      [
        "--server",
        cable.map { "\($0.serverAddress):\(address.split(separator: ":").last ?? "")" } ?? address,
        "--token-file", tokenFile.path,
        "--store", store(of: name).path, "--name", name, "--concurrency", String(worker.slots),
        "--prefetch", String(worker.prefetch), "--engine", worker.engine.rawValue,
      ], inside: cable?.namespace)
    workers[name] = program
    return program
  }

  /// `kill -9` of the agent; what it runs goes on.
  func killWorker(_ name: String) async throws {
    let program = try #require(workers[name])
    #expect(program.isRunning, "worker \(name) had ended before it was killed")
    await program.killNow()
  }

  nonisolated func store(of worker: String) -> URL { folder.appending(path: worker) }

  private var disks: Set<String> = []
  private var cables: [String: Cable] = [:]

  /// The cable between a worker and everything else.
  func cable(of worker: String) throws -> Cable { try #require(cables[worker]) }

  /// Where the server listens: to workers in other namespaces as well, where there are any.
  private var host: String {
    plan.hasRemoteHosts || plan.workers.contains(where: \.isRemote) ? "0.0.0.0" : "127.0.0.1"
  }

  /// A small disk of the worker's own, where its store will be. Takes root.
  private func mountDisk(of worker: String, megabytes: Int) async throws {
    let image = folder.appending(path: "\(worker).img")
    try Data().write(to: image)
    try #require(truncate(image.path, megabytes << 20) == 0)
    try FileManager.default.createDirectory(at: store(of: worker), withIntermediateDirectories: true)
    try await run("mkfs.ext4", "-q", "-F", "-m", "0", image.path)
    try await run("mount", "-o", "loop", image.path, store(of: worker).path)
    disks.insert(worker)
  }

  private func run(_ arguments: String...) async throws {
    try await Program.run(arguments, environment: baseEnvironment)
  }

  struct WorkerRow: Decodable {
    var id: Int64
    var name: String
    var status: String
  }

  func worker(_ name: String) async throws -> WorkerRow? {
    try await rows([WorkerRow].self, "worker", "list", "--json").first { $0.name == name }
  }

  // MARK: - The object store

  private var objectStoreConfiguration = ""
  private var objectStoreAddress = "127.0.0.1:0"

  func killObjectStore() async { await objectStore?.killNow() }

  /// How often the object store was asked for the bytes of a file of the bucket `data`.
  func downloads(of path: String) throws -> Int {
    let log = try String(contentsOf: folder.appending(path: "s3.log"), encoding: .utf8)
    return log.components(separatedBy: "GET OBJECT Bucket: data Object: \(path)\n").count - 1
  }

  /// Starts the object store, for the first time or again on the same port.
  func startObjectStore() async throws {
    try FileManager.default.createDirectory(
      at: buckets.appending(path: "data"), withIntermediateDirectories: true)
    let log = folder.appending(path: "s3.log")
    var environment = baseEnvironment
    environment["RCLONE_CONFIG"] = "/dev/null"
    environment["RCLONE_AUTH_KEY"] = "\"tester,tester-secret\""
    let program = try Program(
      "s3", Tools.rclone,
      [
        "serve", "s3", buckets.path, "--addr", objectStoreAddress, "--dir-cache-time",
        plan.objectStoreCache, "--vfs-cache-mode", "off", "-vv",
      ],
      environment: environment, out: log, err: log)
    objectStore = program
    var endpoint = ""
    try await until("the object store listens") {
      guard program.isRunning else { throw Trouble("rclone serve s3 ended at its start") }
      let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
      guard let found = text.firstMatch(of: /http:\/\/[0-9.]+:[0-9]+/) else { return false }
      endpoint = String(found.output)
      return true
    }
    objectStoreAddress = String(endpoint.dropFirst("http://".count))
    objectStoreConfiguration = """

      rclone:
        s3:
          type: s3
          provider: Rclone
          endpoint: \(endpoint)
          access_key_id: tester
          secret_access_key: tester-secret

      """ + plan.objectStoreSettings.split(separator: "\n").map { "    \($0)\n" }.joined()
  }

  /// Puts a file into the bucket `data`, behind the object store's back.
  nonisolated func put(_ path: String, _ bytes: some DataProtocol) throws {
    let file = buckets.appending(path: "data").appending(path: path)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(bytes).write(to: file)
  }

  /// A file of the bucket `data`; nil where there is none.
  nonisolated func stored(_ path: String) -> String? {
    try? String(contentsOf: buckets.appending(path: "data").appending(path: path), encoding: .utf8)
  }

  // MARK: - The command line

  /// What a call of `scitq` came to.
  struct Output: CustomStringConvertible {
    var arguments: [String]
    var status: Int32
    var out: Data
    var err: String
    /// stdout, without the line end at its end.
    var text: String {
      var text = String(decoding: out, as: UTF8.self)
      if text.hasSuffix("\n") { text.removeLast() }
      return text
    }
    var description: String {
      "scitq \(arguments.joined(separator: " ")) → \(status)\n\(text.prefix(2_000))\n\(err.prefix(2_000))"
    }
  }

  /// Runs `scitq`, whatever it comes to.
  func call(
    _ arguments: [String], input: Data? = nil, environment: [String: String] = [:],
    within deadline: Duration = .seconds(120)
  ) async throws -> Output {
    let files = scratch("call")
    try FileManager.default.createDirectory(at: files, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: files) }
    let inputFile = files.appending(path: "in")
    if let input { try input.write(to: inputFile) }
    let program = try Program(
      "scitq", Tools.built("scitq"), arguments,
      environment: userEnvironment.merging(environment) { _, new in new },
      input: input.map { _ in inputFile },
      out: files.appending(path: "out"), err: files.appending(path: "err"))
    let status = await program.ended(within: deadline)
    return Output(
      arguments: arguments, status: status, out: try Data(contentsOf: program.out),
      err: String(decoding: try Data(contentsOf: program.err), as: UTF8.self))
  }

  /// Runs `scitq`, which must succeed.
  @discardableResult
  func scitq(_ arguments: String...) async throws -> Output { try await scitq(arguments) }

  @discardableResult
  func scitq(_ arguments: [String]) async throws -> Output {
    let output = try await call(arguments)
    try #require(output.status == 0, "\(output)")
    return output
  }

  /// `task create` with these arguments; its id.
  func create(_ arguments: String...) async throws -> Int64 { try await create(arguments) }

  func create(_ arguments: [String]) async throws -> Int64 {
    let output = try await scitq(["task", "create", "--quiet"] + arguments)
    return try #require(Int64(output.text), "\(output)")
  }

  /// `task create --from-file -` with these commands; their ids.
  func create(commands: [String], _ arguments: String...) async throws -> ClosedRange<Int64> {
    let output = try await call(
      ["task", "create", "--quiet", "--from-file", "-"] + arguments,
      input: Data(commands.map { $0 + "\n" }.joined().utf8))
    try #require(output.status == 0, "\(output)")
    let ids = output.text.split(separator: "\n").compactMap { Int64($0) }
    try #require(ids.count == commands.count, "\(output)")
    return ids[0]...ids[ids.count - 1]
  }

  func rows<Rows: Decodable>(_ type: Rows.Type, _ arguments: String...) async throws -> Rows {
    let output = try await scitq(arguments)
    do {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      return try decoder.decode(type, from: output.out)
    } catch {
      throw Trouble("the JSON of \(output) is not as expected: \(error)")
    }
  }

  // MARK: - Programs

  /// A path that nothing has yet.
  func scratch(_ name: String) -> URL {
    calls += 1
    return folder.appending(path: "\(name)-\(calls)")
  }

  nonisolated var baseEnvironment: [String: String] {
    var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("SCITQ_") }
    // What is started here, and what that starts, is known by this folder.
    environment["TMPDIR"] = folder.appending(path: "tmp").path
    environment["HOME"] = folder.appending(path: "home").path
    environment["SCITQ_RCLONE"] = Tools.rclone.path
    return environment
  }

  private var userEnvironment: [String: String] {
    var environment = baseEnvironment
    environment["SCITQ_SERVER"] = clientAddress
    environment["SCITQ_SSL_CERTIFICATE"] = authority.path
    environment["NO_COLOR"] = "1"
    if !token.isEmpty { environment["SCITQ_TOKEN"] = token }
    return environment
  }

  private func launch(
    _ name: String, _ executable: String, _ arguments: [String], _ environment: [String: String] = [:],
    inside namespace: String? = nil
  ) throws -> Program {
    for folder in ["tmp", "home"] {
      try FileManager.default.createDirectory(
        at: self.folder.appending(path: folder), withIntermediateDirectories: true)
    }
    let log = folder.appending(path: "\(name).log")
    let program = try Tools.built(executable)
    return try Program(
      name, try namespace == nil ? program : Tools.onPath("ip"),
      namespace.map { ["netns", "exec", $0, program.path] + arguments } ?? arguments,
      environment: baseEnvironment.merging(environment) { _, new in new },
      out: log, err: log)
  }

  /// What a program of this world has said so far.
  nonisolated func said(_ name: String) -> String {
    (try? String(contentsOf: folder.appending(path: "\(name).log"), encoding: .utf8)) ?? ""
  }

  private func showLogs() {
    for name in ["server"] + plan.workers.map(\.name) {
      print("── \(name) ──\n\(said(name).suffix(6_000))")
    }
  }

  private func showEvents() async {
    guard FileManager.default.fileExists(atPath: database.path) else { return }
    let events = try? await sql(
      """
      SELECT time(at / 1000000, 'unixepoch'), object, first_id, from_status, to_status, worker_id, reason
      FROM event ORDER BY sequence DESC LIMIT 100
      """)
    if let events { print("── the last events, the newest first ──\n\(events)") }
  }

  // MARK: - The end

  private func end() async {
    for worker in workers.values { await worker.killNow() }
    await server?.stop()
    await objectStore?.stop()
    await Leftovers.remove(folder)
    for cable in cables.values { await cable.remove() }
    for worker in disks { try? await run("umount", "--lazy", store(of: worker).path) }
    try? FileManager.default.removeItem(at: folder)
  }
}

extension World.Plan {
  /// A worker that runs processes of the host, which is quick.
  func worker(_ name: String = "worker", slots: Int = 2, prefetch: Int = 0) -> Self {
    with { $0.workers.append(.init(name: name, slots: slots, prefetch: prefetch, engine: .bare)) }
  }

  /// The last worker is in a network namespace of its own. Takes root.
  func behindCable() -> Self { with { $0.workers[$0.workers.count - 1].isRemote = true } }

  /// The last worker is started by the test.
  func later() -> Self { with { $0.workers[$0.workers.count - 1].isLate = true } }

  /// The last worker's store lies on a disk of this size.
  func onDisk(megabytes: Int) -> Self { with { $0.workers[$0.workers.count - 1].megabytes = megabytes } }

  /// A worker that runs containers.
  func dockerWorker(_ name: String = "worker", slots: Int = 2, prefetch: Int = 0) -> Self {
    with { $0.workers.append(.init(name: name, slots: slots, prefetch: prefetch, engine: .docker)) }
  }

  /// An object store, the remote `s3`, with a bucket `data`.
  func objectStore(_ settings: String = "", cache: String = "100ms") -> Self {
    with {
      $0.hasObjectStore = true
      $0.objectStoreSettings = settings
      $0.objectStoreCache = cache
    }
  }

  /// Variables of the server's environment.
  func environment(_ variables: [String: String]) -> Self {
    with { $0.serverEnvironment.merge(variables) { _, new in new } }
  }

  /// The server listens on all addresses of this machine.
  func reachable() -> Self { with { $0.hasRemoteHosts = true } }

  /// Lines of `scitq.yaml`.
  func configured(_ yaml: String) -> Self { with { $0.configuration += yaml + "\n" } }

  func run(_ body: (World) async throws -> Void) async throws { try await World.run(self, body) }

  private func with(_ change: (inout Self) -> Void) -> Self {
    var copy = self
    change(&copy)
    return copy
  }
}
