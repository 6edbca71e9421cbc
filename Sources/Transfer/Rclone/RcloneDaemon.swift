import Crypto
import FoundationEssentials
import Logging
import ScitqProtocol
import Subprocess
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// One `rclone rcd` for this process, started when it is first needed and started again when it has died.
///
/// It listens on a unix socket within a private folder, asks for a password made for this one run, and reads its
/// configuration from a file that only this user can read. A small guard around it holds the other end of a pipe:
/// however this process ends, the pipe ends too, and rclone with it.
actor RcloneDaemon {
  private let directory: FilePath
  private let logger: Logger
  private var remotes: Remotes
  private var state = State.idle
  private var isStopped = false

  private enum State {
    case idle
    case starting(Task<Run, any Error>)
    case running(Run)
  }

  /// One life of rclone.
  struct Run: Sendable {
    let socket: RcloneSocket
    let program: RcloneProgram
    let folder: FilePath
    fileprivate let end: AsyncStream<Void>.Continuation
    fileprivate let host: Task<Void, Never>
    fileprivate let id: UInt64
  }

  init(remotes: Remotes, directory: FilePath, logger: Logger) {
    self.remotes = remotes
    self.directory = directory
    self.logger = logger
  }

  /// The running rclone, started if need be.
  func run() async throws(TransferFailure) -> Run {
    guard !isStopped else { throw .interrupted }
    switch state {
    case .running(let run): return run
    case .starting(let task): return try await Self.value(of: task)
    case .idle:
      let remotes = remotes
      let directory = directory
      let logger = logger
      // Owned by this actor: every way out of the starting state awaits it.
      let task = Task { try await Self.start(remotes: remotes, directory: directory, logger: logger) }
      state = .starting(task)
      do throws(TransferFailure) {
        let run = try await Self.value(of: task)
        if case .starting = state { state = .running(run) }
        if remotes != self.remotes { await reconfigure(run) }
        return run
      } catch {
        if case .starting = state { state = .idle }
        throw error
      }
    }
  }

  /// The run was found dead: the next one who asks starts another.
  func died(_ run: Run) async {
    guard case .running(let current) = state, current.id == run.id else { return }
    state = .idle
    if !isStopped { logger.warning("rclone ended unexpectedly; it is started again") }
    await Self.end(run)
  }

  func update(remotes: Remotes) async {
    guard remotes != self.remotes else { return }
    self.remotes = remotes
    if case .running(let run) = state { await reconfigure(run) }
  }

  func checksums(_ name: String) -> ChecksumPolicy { remotes.checksums(name) }

  func redact(_ text: String) -> String { remotes.redact(text) }

  /// Ends rclone and removes its files. Nothing can be started afterwards.
  func stop() async {
    isStopped = true
    switch state {
    case .idle: break
    case .running(let run): await Self.end(run)
    case .starting(let task): if let run = try? await task.value { await Self.end(run) }
    }
    state = .idle
  }

  private func reconfigure(_ run: Run) async {
    do {
      try Self.write(remotes.configuration, to: run.folder.appending("rclone.conf"))
      // rclone reads the file again by itself, but keeps what it has opened.
      _ = try await run.socket.post("fscache/clear", body: Array("{}".utf8), group: nil)
    } catch {
      logger.warning("rclone could not be given the new remotes and is started again")
      await died(run)
    }
  }

  // MARK: one life

  /// `$1` is where the pid goes, the rest is rclone. The reader at the end of the pipe ends rclone when the pipe
  /// does; when rclone ends first, so does the guard, with its exit code.
  private static let guardScript = """
    umask 077
    pidfile=$1
    shift
    exec 3<&0
    "$@" </dev/null 3<&- &
    child=$!
    echo "$child" >"$pidfile"
    ( while read -r _; do :; done; kill "$child" ) <&3 >/dev/null 2>&1 &
    reader=$!
    exec 3<&-
    wait "$child"
    code=$?
    kill "$reader" 2>/dev/null
    exit "$code"
    """

  private static func start(
    remotes: Remotes, directory: FilePath, logger: Logger
  ) async throws -> Run {
    let program = try await RcloneProgram.find()
    let folder = try PrivateFolder.make(below: directory)
    do {
      return try await launch(program, remotes: remotes, folder: folder, logger: logger)
    } catch {
      PrivateFolder.remove(folder)
      throw error
    }
  }

  private static func launch(
    _ program: RcloneProgram, remotes: Remotes, folder: FilePath, logger: Logger
  ) async throws -> Run {
    let config = folder.appending("rclone.conf")
    try write(remotes.configuration, to: config)
    let user = secret()
    let password = secret()
    let path = folder.appending("s").string
    let log = try FileDescriptor.open(
      folder.appending("log"), .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
    let (stopSignal, end) = AsyncStream.makeStream(of: Void.self)

    var options = PlatformOptions()
    options.processGroupID = 0
    let configuration = Configuration(
      executable: .path("/bin/sh"),
      arguments: [
        "-c", guardScript, "scitq-rclone", folder.appending("pid").string, program.path, "rcd",
        "--rc-addr", "unix://" + path, "--log-level", "CRITICAL", "--contimeout", "15s", "--timeout", "2m",
        "--low-level-retries", "3", "--buffer-size", "4M",
      ],
      environment: RcloneProgram.environment(adding: [
        "RCLONE_CONFIG": config.string, "RCLONE_RC_USER": user, "RCLONE_RC_PASS": password,
        "RCLONE_MAX_BUFFER_MEMORY": "1G",
      ]),
      platformOptions: options)
    // Owned by the run: `end` finishes it and awaits it.
    let host = Task {
      do {
        _ = try await Subprocess.run(
          configuration, input: .inputWriter,
          output: .fileDescriptor(log, closeAfterSpawningProcess: true), error: .combinedWithOutput
        ) { execution in
          let group = execution.processIdentifier.value
          for await _ in stopSignal {}
          try? await execution.standardInputWriter.finish()
          // rclone ends on SIGTERM within milliseconds; one that hangs is ended with its group.
          for _ in 0..<500 where kill(group, 0) == 0 && !isZombie(group) {
            try? await Task.sleep(for: .milliseconds(10))
          }
          kill(-group, SIGKILL)
        }
      } catch {
        logger.debug("the guard of rclone could not be run: \(error)")
      }
    }
    let run = Run(
      socket: RcloneSocket(
        path: path, authorization: "Basic " + Data("\(user):\(password)".utf8).base64EncodedString()),
      program: program, folder: folder, end: end, host: host, id: .random(in: 0 ... .max))
    do {
      try await answers(run, log: folder.appending("log"))
    } catch {
      await Self.end(run)
      throw error
    }
    logger.debug("rclone \(program.version) is up")
    return run
  }

  /// Waits until rclone answers. It does so some 100 ms after its start; a deadline bounds it.
  private static func answers(_ run: Run, log: FilePath) async throws {
    let deadline = ContinuousClock.now + .seconds(30)
    let pid = run.folder.appending("pid")
    while ContinuousClock.now < deadline {
      try Task.checkCancellation()
      if let reply = try? await run.socket.post("rc/noop", body: Array("{}".utf8), group: nil) {
        guard reply.status == 200 else { break }
        return
      }
      if let text = try? String(contentsOfFile: pid.string, encoding: .utf8),
        let number = pid_t(text.filter(\.isNumber)), kill(number, 0) != 0 || isZombie(number)
      {
        break
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    let said = (try? String(contentsOfFile: log.string, encoding: .utf8))?.split(separator: "\n").last ?? ""
    throw TransferFailure(.network, "rclone at \(run.program.path) did not start: \(said)", isTransient: true)
  }

  private static func end(_ run: Run) async {
    run.end.finish()
    await run.host.value
    PrivateFolder.remove(run.folder)
  }

  private static func value(of task: Task<Run, any Error>) async throws(TransferFailure) -> Run {
    do {
      return try await task.value
    } catch let failure as TransferFailure {
      throw failure
    } catch is CancellationError {
      throw .interrupted
    } catch {
      throw TransferFailure(.network, "rclone could not be started: \(error)")
    }
  }

  /// Replaces the file in one step, so that rclone never reads half of it.
  private static func write(_ text: String, to path: FilePath) throws {
    let fresh = FilePath(path.string + ".new")
    let file = try FileDescriptor.open(
      fresh, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
    try file.closeAfter { _ = try file.writeAll(text.utf8) }
    guard rename(fresh.string, path.string) == 0 else {
      throw TransferFailure(
        .disk, "\(path): the file could not be written: \(String(cString: strerror(errno)))")
    }
  }

  private static func secret() -> String {
    SymmetricKey(size: .bits256).withUnsafeBytes { bytes in
      bytes.map { byte in
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0" + digits : digits
      }.joined()
    }
  }
}

/// It has ended and waits for its parent to look.
func isZombie(_ pid: pid_t) -> Bool {
  guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
    let end = text.lastIndex(of: ")")
  else { return false }
  return text[end...].dropFirst(2).first == "Z"
}
