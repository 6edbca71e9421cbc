import Foundation
import ScitqProtocol

/// What keeps a benchmark from being run, as a sentence.
struct Trouble: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A server of its own, the programs that were built beside this one, in a temporary folder.
actor Installation {
  nonisolated let folder: URL
  private var programs: [Process] = []
  private var address: ServerAddress?
  private var authority = ""
  private var token = ""

  private let configuration: String

  private init(configuration: String) throws {
    self.configuration = configuration
    folder = FileManager.default.temporaryDirectory.appending(path: "scitq-benchmark-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  /// `configuration`: more lines for `scitq.yaml`.
  static func run(configuration: String = "", _ body: (Installation) async throws -> Void) async throws {
    let installation = try Installation(configuration: configuration)
    let result: Result<Void, any Error>
    do {
      try await installation.startServer()
      result = .success(try await body(installation))
    } catch {
      result = .failure(error)
    }
    await installation.end()
    try result.get()
  }

  private func start(_ name: String, _ arguments: [String]) throws {
    let program = Process()
    let own = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
    program.executableURL = own.deletingLastPathComponent().appending(path: name)
    program.arguments = arguments
    let log = folder.appending(path: "\(name).log")
    try Data().write(to: log)
    program.standardInput = FileHandle.nullDevice
    program.standardOutput = FileHandle.nullDevice
    program.standardError = try FileHandle(forWritingTo: log)
    try program.run()
    programs.append(program)
  }

  private func startServer() async throws {
    let password = UUID().uuidString
    let file = folder.appending(path: "scitq.yaml")
    try "admin:\n  password: \(password)\n\(configuration)".write(to: file, atomically: true, encoding: .utf8)
    let data = folder.appending(path: "server")
    try start(
      "scitq-server", ["--config", file.path, "--data-dir", data.path, "--listen", "127.0.0.1:0"])
    let text = try await until("the server listens") {
      let text = try? String(contentsOf: data.appending(path: "address"), encoding: .utf8)
      return text.flatMap { ServerAddress($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
    address = text
    authority = try String(contentsOf: data.appending(path: "tls/authority.pem"), encoding: .utf8)
    var login = WireLogin()
    login.username = "admin"
    login.password = password
    let anonymous = try await connect()
    token = try await anonymous.call(.login, login).token
    await anonymous.close()
  }

  /// A connection of the admin's; before the login, of nobody's.
  func connect() async throws -> Connection {
    guard let address else { throw Trouble("the server has no address") }
    var hello = WireHello()
    hello.role = .user
    if !token.isEmpty { hello.token = token }
    return try await Connection.open(to: address, trust: .authority(pem: authority), hello: hello)
  }

  /// One worker for processes, connected when this returns.
  func startWorker(slots: Int, prefetch: Int) async throws {
    guard let address else { throw Trouble("the server has no address") }
    try start(
      "scitq-worker",
      [
        "--server", "\(address)", "--token-file", folder.appending(path: "server/join-token").path,
        "--store", folder.appending(path: "worker").path, "--engine", "bare", "--concurrency", "\(slots)",
        "--prefetch", "\(prefetch)", "--log-level", "error",
      ])
    let connection = try await connect()
    _ = try await until("the worker is connected") {
      try await connection.call(.serverStatus, WireEmpty()).workersConnected > 0 ? true : nil
    }
    await connection.close()
  }

  private func until<T>(_ what: String, _ found: () async throws -> T?) async throws -> T {
    let deadline = ContinuousClock.now + .seconds(30)
    while ContinuousClock.now < deadline {
      if let value = try await found() { return value }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw Trouble("\(what): not within 30 s; \(folder.path) has the logs")
  }

  private func end() {
    for program in programs.reversed() {
      program.terminate()
      program.waitUntilExit()
    }
    try? FileManager.default.removeItem(at: folder)
  }
}

/// `count` bare tasks; each has a command of its own where `distinct`.
func newTasks(_ count: Int, command: String, distinct: Bool = false) -> WireCreateTasks {
  var request = WireCreateTasks()
  request.idempotencyKey = UUID().uuidString
  request.tasks = (0..<count).map { number in
    var task = WireNewTask()
    task.spec.command = distinct ? "\(command) \(number)" : command
    task.spec.container = "bare"
    return task
  }
  return request
}

extension Connection {
  func create(_ tasks: WireCreateTasks) async throws -> WireTasksCreated {
    try await upload(.createTasks, tasks, items: [WireTaskBatch]())
  }
}
