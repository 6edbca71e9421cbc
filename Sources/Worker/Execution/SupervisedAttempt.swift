import Glibc
import ScitqProtocol

/// One attempt that the supervisor holds.
final class SupervisedAttempt {
  let id: AttemptID
  /// Leads a session and a process group of its own; 0 once it was reaped, or where nothing could be executed.
  var pid: pid_t = 0
  var out: RetainedStream
  var err: RetainedStream
  var ending: Ending?
  /// It was made to stand still.
  var isPaused = false
  /// SIGKILL follows at this time of the monotonic clock, in nanoseconds.
  var killAt: UInt64?
  /// Removed while it ran: dropped as soon as it is reaped.
  var unwanted = false

  struct Ending {
    var code: Int32
    var signal: Int32
    /// Something it had started was alive when it ended, or may have been.
    var leftProcesses = true
  }

  init(id: AttemptID, out: Int32 = -1, err: Int32 = -1) {
    self.id = id
    self.out = RetainedStream(fd: out)
    self.err = RetainedStream(fd: err)
  }

  func spillPath(_ stream: String) -> String {
    "\(Supervisor.spillFolder)/\(id.task)-\(id.assignment).\(stream)"
  }

  /// Takes what the pipes hold, at most `limit` bytes of each. A pipe at its end is closed. The `last` time what
  /// the disk does not take is kept in memory: it is no more than a pipe holds.
  func drain(into buffer: UnsafeMutableRawBufferPointer, limit: Int, last: Bool) {
    Self.drain(&out, into: buffer, limit: limit, last: last) { self.spillPath("out") }
    Self.drain(&err, into: buffer, limit: limit, last: last) { self.spillPath("err") }
  }

  private static func drain(
    _ stream: inout RetainedStream, into buffer: UnsafeMutableRawBufferPointer, limit: Int, last: Bool,
    path: () -> String
  ) {
    var left = limit
    while stream.fd >= 0, left > 0 {
      if stream.stalled { stream.flush(path: path) }
      if stream.stalled, !last { return }
      let n = read(stream.fd, buffer.baseAddress, buffer.count)
      if n > 0 {
        stream.append(UnsafeRawBufferPointer(rebasing: buffer[..<n]), path: path)
        left -= n
        // A short read has emptied the pipe: whatever comes is another turn's, if there is one.
        if n < buffer.count, !last { return }
      } else if n == 0 {
        close(stream.fd)
        stream.fd = -1
      } else if errno != EINTR {
        return
      }
    }
  }

  func closePipes() {
    if out.fd >= 0 { close(out.fd) }
    if err.fd >= 0 { close(err.fd) }
    out.fd = -1
    err.fd = -1
  }

  func discard() {
    out.discard()
    err.discard()
  }
}

/// Starts processes. Its buffers are used again and again: a start allocates nothing but its attempt.
struct Spawner {
  enum Outcome {
    case running(SupervisedAttempt)
    /// Nothing could be executed, for a reason that is the command's: it ends at once, as a shell would end it.
    case ended(SupervisedAttempt)
    /// The host could not do it.
    case refused(String)
  }

  private var pointers: [UnsafeMutablePointer<CChar>?] = []
  private let devNull = open("/dev/null", O_RDONLY | O_CLOEXEC)
  private let home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  private var attributes = posix_spawnattr_t()

  init() {
    posix_spawnattr_init(&attributes)
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var all = sigset_t()
    sigfillset(&all)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(
      &attributes,
      ProcessEnvironment.newSession | Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))
  }

  /// The payload of a start: folder, number of arguments, number of variables, all of them with zeros at their ends.
  mutating func start(_ id: AttemptID, _ payload: inout FrameReader) -> Outcome {
    let arguments = Int(payload.get(UInt32.self))
    let variables = Int(payload.get(UInt32.self))
    let folder = payload.terminated()
    pointers.removeAll(keepingCapacity: true)
    var path: UnsafePointer<CChar>?
    for i in 0..<(arguments + variables) {
      if i == arguments { pointers.append(nil) }
      guard let text = payload.terminated() else { break }
      if i >= arguments, strncmp(text, "PATH=", 5) == 0 { path = text + 5 }
      pointers.append(UnsafeMutablePointer(mutating: text))
    }
    if variables == 0 { pointers.append(nil) }
    pointers.append(nil)
    guard !payload.broken, let folder, arguments > 0, let name = pointers[0] else {
      return .refused("the order to start attempt \(id) was not understood")
    }

    let program: String
    switch Self.find(name, path: path) {
    case .success(let found): program = found
    case .failure(let missing): return .ended(Self.unable(id, missing.code, missing.sentence))
    }

    var outPipe: (Int32, Int32) = (-1, -1)
    var errPipe: (Int32, Int32) = (-1, -1)
    guard Self.makePipe(&outPipe), Self.makePipe(&errPipe) else {
      let failed = errno
      Self.close(outPipe)
      Self.close(errPipe)
      return .refused("cannot make the pipes of attempt \(id): \(String(cString: strerror(failed)))")
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, devNull, 0)
    posix_spawn_file_actions_adddup2(&actions, outPipe.1, 1)
    posix_spawn_file_actions_adddup2(&actions, errPipe.1, 2)
    // The child begins where its parent stands, and nobody else looks at where that is for the moment. An attempt
    // that needed no folder has none, and runs where it can leave nothing behind in the store.
    if chdir(folder) != 0, chdir("/tmp") != 0 { _ = chdir("/") }
    var pid: pid_t = 0
    let failed = pointers.withUnsafeBufferPointer {
      posix_spawn(
        &pid, program, &actions, &attributes, $0.baseAddress!, $0.baseAddress! + arguments + 1)
    }
    _ = fchdir(home)
    Glibc.close(outPipe.1)
    Glibc.close(errPipe.1)
    guard failed == 0 else {
      Glibc.close(outPipe.0)
      Glibc.close(errPipe.0)
      let why = String(cString: strerror(failed))
      switch failed {
      case EAGAIN, ENOMEM, EMFILE, ENFILE:
        return .refused("cannot start a process for attempt \(id): \(why)")
      default:
        return .ended(Self.unable(id, failed == ENOENT ? 127 : 126, "\(program): \(why)"))
      }
    }
    let attempt = SupervisedAttempt(id: id, out: outPipe.0, err: errPipe.0)
    attempt.pid = pid
    return .running(attempt)
  }

  private struct Missing: Error {
    var code: Int32
    var sentence: String
  }

  /// A name without a slash is looked for in the attempt's own PATH.
  private static func find(
    _ name: UnsafePointer<CChar>, path: UnsafePointer<CChar>?
  ) -> Result<String, Missing> {
    let text = String(cString: name)
    if text.utf8.contains(UInt8(ascii: "/")) { return .success(text) }
    var present: String?
    let path = path.map { String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin"
    if !text.isEmpty {
      for folder in path.utf8.split(separator: UInt8(ascii: ":")) {
        let candidate = "\(Substring(folder))/\(text)"
        if access(candidate, X_OK) == 0 {
          var status = stat()
          if stat(candidate, &status) == 0, status.st_mode & S_IFMT == S_IFREG { return .success(candidate) }
        } else if errno == EACCES, access(candidate, F_OK) == 0 {
          present = candidate
        }
      }
    }
    if let present { return .failure(Missing(code: 126, sentence: "\(present): Permission denied")) }
    return .failure(Missing(code: 127, sentence: "\(text): command not found in PATH \(path)"))
  }

  private static func unable(_ id: AttemptID, _ code: Int32, _ sentence: String) -> SupervisedAttempt {
    let attempt = SupervisedAttempt(id: id)
    attempt.ending = SupervisedAttempt.Ending(code: code, signal: 0, leftProcesses: false)
    Array("scitq: \(sentence)\n".utf8).withUnsafeBytes {
      attempt.err.append($0) { attempt.spillPath("err") }
    }
    return attempt
  }

  /// Only the reading end is non-blocking: the writing end's mode is the process's business.
  private static func makePipe(_ ends: inout (Int32, Int32)) -> Bool {
    var fds: (Int32, Int32) = (-1, -1)
    let made = withUnsafeMutableBytes(of: &fds) {
      pipe($0.baseAddress!.assumingMemoryBound(to: Int32.self))
    }
    guard made == 0 else { return false }
    ends = fds
    Supervisor.prepare(fds.0)
    return fcntl(fds.1, F_SETFD, FD_CLOEXEC) == 0
  }

  private static func close(_ ends: (Int32, Int32)) {
    if ends.0 >= 0 { Glibc.close(ends.0) }
    if ends.1 >= 0 { Glibc.close(ends.1) }
  }
}
