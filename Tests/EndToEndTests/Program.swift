import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A program that was started: in a process group of its own, so that no Ctrl-C meant for the tests reaches it, and with
/// its output in files, so that nothing it says can block it.
final class Program: Sendable {
  /// How a program ended: its exit code, or 128 + n for a signal n.
  typealias Status = Int32

  let name: String
  let pid: pid_t
  let out: URL
  let err: URL
  private let end = Mutex<End>(.running(waiters: []))

  private enum End {
    case running(waiters: [CheckedContinuation<Status, Never>])
    case ended(Status)
  }

  /// Starts `executable`, a path. stdout and stderr are appended to the two files; they may be the same.
  init(
    _ name: String, _ executable: URL, _ arguments: [String], environment: [String: String],
    input: URL? = nil, out: URL, err: URL
  ) throws {
    self.name = name
    self.out = out
    self.err = err
    self.pid = try Self.spawn(
      executable.path, arguments, environment: environment, input: input?.path ?? "/dev/null", out: out.path,
      err: err.path)
    let pid = self.pid
    // A thread, because waitpid blocks; it ends with the program.
    Thread.detachNewThread { [self] in
      var status: Int32 = 0
      while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
      let signal = status & 0x7f
      finish(signal == 0 ? (status >> 8) & 0xff : 128 + signal)
    }
  }

  private func finish(_ status: Status) {
    let waiters = end.withLock { end -> [CheckedContinuation<Status, Never>] in
      guard case .running(let waiters) = end else { return [] }
      end = .ended(status)
      return waiters
    }
    for waiter in waiters { waiter.resume(returning: status) }
  }

  var isRunning: Bool {
    end.withLock { if case .running = $0 { true } else { false } }
  }

  func signal(_ signal: Int32) {
    // Under the lock: once it has ended, its number may be another's.
    end.withLock { if case .running = $0 { _ = kill(pid, signal) } }
  }

  /// Waits for the end; a program that is still there after `deadline` is killed.
  @discardableResult
  func ended(within deadline: Duration = .seconds(60)) async -> Status {
    await withTaskGroup(of: Void.self) { group in
      group.addTask {
        try? await Task.sleep(for: deadline)
        if !Task.isCancelled { self.signal(SIGKILL) }
      }
      let status = await withCheckedContinuation { continuation in
        let already = end.withLock { end -> Status? in
          switch end {
          case .ended(let status): return status
          case .running(let waiters):
            end = .running(waiters: waiters + [continuation])
            return nil
          }
        }
        if let already { continuation.resume(returning: already) }
      }
      group.cancelAll()
      return status
    }
  }

  /// SIGTERM, and SIGKILL where that is not enough.
  func stop(grace: Duration = .seconds(10)) async {
    signal(SIGTERM)
    await ended(within: grace)
  }

  /// `kill -9`, and gone when this returns.
  func killNow() async {
    signal(SIGKILL)
    await ended()
  }

  /// Runs a program of PATH to its end, which must be a success. What it said.
  @discardableResult
  static func run(
    _ arguments: [String], environment: [String: String] = [:], within deadline: Duration = .seconds(60)
  ) async throws -> String {
    let log = FileManager.default.temporaryDirectory.appending(path: "program-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: log) }
    let program = try Program(
      arguments[0], try Tools.onPath(arguments[0]), Array(arguments.dropFirst()),
      environment: ProcessInfo.processInfo.environment.merging(environment) { _, new in new }, out: log,
      err: log)
    let status = await program.ended(within: deadline)
    let said = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
    guard status == 0 else { throw Trouble("\(arguments.joined(separator: " ")) → \(status): \(said)") }
    return said
  }

  private static func spawn(
    _ path: String, _ arguments: [String], environment: [String: String], input: String, out: String,
    err: String
  ) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The threads of the tests hold signals back, which daemons that are started here are not to do.
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK))
    var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    var pid: pid_t = 0
    let code = posix_spawn(&pid, path, &actions, &attributes, &argv, &envp)
    guard code == 0 else { throw Trouble("\(path) does not start: \(String(cString: strerror(code)))") }
    return pid
  }
}

/// What went wrong in a test's surroundings, as one sentence.
struct Trouble: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// Waits for a state, looking again and again until the deadline.
nonisolated(nonsending) func until(
  _ what: String, within deadline: Duration = .seconds(30),
  _ holds: nonisolated(nonsending) () async throws -> Bool
) async throws {
  let end = ContinuousClock.now + deadline
  while try await !holds() {
    guard ContinuousClock.now < end else { throw Trouble("after \(deadline), still not so: \(what)") }
    try await Task.sleep(for: .milliseconds(30))
  }
}
