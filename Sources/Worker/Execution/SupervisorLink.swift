import Glibc
import NIOCore
import NIOPosix
import ScitqProtocol
import Synchronization
import SystemPackage

/// The engine's end of the supervisor's socket: one channel, found again or made anew whenever it is needed.
///
/// What is sent within one turn of the event loop leaves in one write, and what arrives in one read wakes everybody
/// it concerns after one pass: thousands of short tasks a second cost a few system calls each and no thread hop more.
final class SupervisorLink: Sendable {
  typealias Waiter = CheckedContinuation<Void, Never>

  /// What is known of one attempt.
  struct Record {
    enum Start {
      case unasked, asked, answered
      case refused(String)
      case disconnected
    }
    struct Ending {
      var exit: Exit
      var totals: LogOffsets
    }

    var start = Start.unasked
    var ending: Ending?
    /// The supervisor does not know the attempt.
    var gone = false
    var killed = false
    /// The supervisor's answer to the latest `pause` or `resume`: whether it found something to do it to.
    var standing: Bool?
    /// The supervisor tells this connection of the end.
    var watched = false
    /// The supervisor sends what the attempt prints; from where, it has yet to say while `attaching`.
    var followed = false
    var attaching = false
    /// Handed to the reader, received from the supervisor, and told back as consumed.
    var position = LogOffsets()
    var received = LogOffsets()
    var credited = LogOffsets()
    var chunks: [OutputChunk] = []
    var firstChunk = 0
    var waiters: [(id: UInt64, waiter: Waiter)] = []
  }

  struct State {
    var channel: (any Channel)?
    var identity: UInt64 = 0
    var outgoing: [UInt8] = []
    var flushing = false
    var records: [AttemptID: Record] = [:]
    var lists: [CheckedContinuation<[AttemptID: HeldState]?, Never>] = []
    var nextWaiter: UInt64 = 0
    var supervisor: pid_t = 0
    var closed = false

    /// Those who wait for news of this attempt.
    mutating func takeWaiters(_ attempt: AttemptID) -> [Waiter] {
      guard let record = records[attempt], !record.waiters.isEmpty else { return [] }
      records[attempt]?.waiters = []
      return record.waiters.map(\.waiter)
    }
  }

  let state = Mutex(State())
  private let store: FilePath
  private let executable: FilePath
  private let connecting = Turnstile()

  init(store: FilePath, executable: FilePath) {
    self.store = store
    self.executable = executable
  }

  func shutDown() {
    let channel = state.withLock { state in
      state.closed = true
      return state.channel
    }
    channel?.close(promise: nil)
  }

  // MARK: Sending

  /// Appends a frame to what leaves next. False: there is no connection. Call with the state locked.
  @discardableResult
  func send(_ state: inout State, _ encode: (inout [UInt8]) -> Void) -> Bool {
    guard let channel = state.channel else { return false }
    encode(&state.outgoing)
    if !state.flushing {
      state.flushing = true
      channel.eventLoop.execute { self.flush() }
    }
    return true
  }

  private func flush() {
    let (channel, bytes) = state.withLock { state -> ((any Channel)?, [UInt8]) in
      state.flushing = false
      defer { state.outgoing = [] }
      return (state.channel, state.outgoing)
    }
    guard let channel, !bytes.isEmpty else { return }
    channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil)
  }

  /// Waits until something becomes known of the attempt. `prepare` runs with the state locked, and says false where
  /// there is nothing to wait for.
  func wait(_ attempt: AttemptID, _ prepare: (inout State) -> Bool) async {
    let id = state.withLock { state in
      state.nextWaiter += 1
      return state.nextWaiter
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { (waiter: Waiter) in
        let waits = state.withLock { state -> Bool in
          guard !Task.isCancelled, prepare(&state) else { return false }
          state.records[attempt, default: Record()].waiters.append((id, waiter))
          return true
        }
        if !waits { waiter.resume() }
      }
    } onCancel: {
      let waiter = state.withLock { state -> Waiter? in
        guard let at = state.records[attempt]?.waiters.firstIndex(where: { $0.id == id }) else { return nil }
        return state.records[attempt]?.waiters.remove(at: at).waiter
      }
      waiter?.resume()
    }
  }

  // MARK: Receiving

  /// Takes all whole frames of `buffer`. False: they make no sense.
  func receive(_ buffer: inout ByteBuffer) -> Bool {
    var woken: [Waiter] = []
    var answered: [CheckedContinuation<[AttemptID: HeldState]?, Never>] = []
    var held: [AttemptID: HeldState] = [:]
    var done = 0
    let sound = state.withLock { state in
      buffer.withUnsafeReadableBytes { bytes -> Bool in
        while true {
          switch SupervisorFrame.next(in: UnsafeRawBufferPointer(rebasing: bytes[done...])) {
          case .incomplete: return true
          case .broken: return false
          case .frame(.held, _, var payload, let length):
            done += length
            held = Self.held(&payload)
            answered += state.lists
            state.lists = []
          case .frame(let kind, let attempt, var payload, let length):
            done += length
            guard state.records[attempt] != nil else { continue }
            if Self.note(kind, &payload, in: &state.records[attempt]!) {
              woken += state.takeWaiters(attempt)
            }
          }
        }
      }
    }
    buffer.moveReaderIndex(forwardBy: done)
    for waiter in woken { waiter.resume() }
    for list in answered { list.resume(returning: held) }
    return sound
  }

  private static func held(_ payload: inout FrameReader) -> [AttemptID: HeldState] {
    var held: [AttemptID: HeldState] = [:]
    while true {
      let attempt = payload.attempt()
      let state: UInt8 = payload.get()
      if payload.broken { return held }
      held[attempt] = state == 0 ? .running : state == 2 ? .paused : .ended
    }
  }

  /// Whether it is news to those who wait.
  private static func note(
    _ kind: SupervisorFrame.Kind, _ payload: inout FrameReader, in record: inout Record
  ) -> Bool {
    switch kind {
    case .started:
      record.start = .answered
      record.watched = true
      if payload.get(UInt8.self) == 1 {
        record.followed = true
        record.attaching = false
        record.received = LogOffsets()
      }
    case .refused:
      record.start = .refused(String(decoding: payload.rest(), as: UTF8.self))
    case .attached:
      let out: Int64 = payload.get()
      let err: Int64 = payload.get()
      record.attaching = false
      record.received = LogOffsets(out: out, err: err)
      record.credited = record.received
      record.position.out = max(record.position.out, out)
      record.position.err = max(record.position.err, err)
    case .output:
      let stream: OutputChunk.Stream = payload.get(UInt8.self) == 0 ? .out : .err
      let offset: Int64 = payload.get()
      let bytes = payload.rest()
      // What was on its way before the latest attach was answered is of an earlier reading.
      guard record.followed, !record.attaching, !bytes.isEmpty,
        offset == (stream == .out ? record.received.out : record.received.err)
      else { return false }
      switch stream {
      case .out: record.received.out += Int64(bytes.count)
      case .err: record.received.err += Int64(bytes.count)
      }
      record.chunks.append(OutputChunk(stream: stream, offset: offset, bytes: Array(bytes)))
    case .exited:
      let code: Int32 = payload.get()
      let signal: Int32 = payload.get()
      let leftProcesses: UInt8 = payload.get()
      let out: Int64 = payload.get()
      let err: Int64 = payload.get()
      record.ending = Record.Ending(
        exit: Exit(code: code, signal: signal == 0 ? nil : signal, leftProcesses: leftProcesses != 0),
        totals: LogOffsets(out: out, err: err))
    case .gone:
      record.gone = true
    case .killed:
      record.killed = true
    case .paused, .resumed:
      record.standing = payload.get(UInt8.self) == 1
    case .hello, .start, .attach, .consumed, .delivered, .kill, .remove, .list, .watch, .pause, .resume,
      .welcome, .held:
      return false
    }
    return true
  }

  func lost(_ channel: any Channel) {
    var woken: [Waiter] = []
    let lists = state.withLock { state -> [CheckedContinuation<[AttemptID: HeldState]?, Never>] in
      guard state.channel === channel else { return [] }
      state.channel = nil
      state.outgoing = []
      for attempt in state.records.keys {
        state.records[attempt]!.watched = false
        state.records[attempt]!.followed = false
        state.records[attempt]!.attaching = false
        if case .asked = state.records[attempt]!.start { state.records[attempt]!.start = .disconnected }
        woken += state.takeWaiters(attempt)
      }
      defer { state.lists = [] }
      return state.lists
    }
    for waiter in woken { waiter.resume() }
    for list in lists { list.resume(returning: nil) }
  }

  // MARK: Connecting

  /// Who is at the other end: a number that each supervisor draws when it starts.
  func connected() async throws(ExecutionFailure) -> UInt64 {
    if let identity = current { return identity }
    await connecting.enter()
    do throws(ExecutionFailure) {
      let identity = try await connect()
      connecting.leave()
      return identity
    } catch {
      connecting.leave()
      throw error
    }
  }

  private var current: UInt64? { state.withLock { $0.channel == nil ? nil : $0.identity } }

  private func connect() async throws(ExecutionFailure) -> UInt64 {
    if let identity = current { return identity }
    let folder = open(store.string, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard folder >= 0 else {
      throw ExecutionFailure(
        .engine, "cannot open the store \(store.string): \(String(cString: strerror(errno)))")
    }
    defer { close(folder) }
    // A socket's address holds 107 bytes; by way of the open folder the store may lie as deep as it likes.
    let path = "/proc/self/fd/\(folder)/\(Supervisor.socketName)"
    let deadline = ContinuousClock.now + .seconds(20)
    var spawned = false
    var trouble = ""
    while ContinuousClock.now < deadline {
      guard !Task.isCancelled, !(state.withLock { $0.closed }) else {
        throw ExecutionFailure(.engine, "the connection to the supervisor of \(store.string) was given up")
      }
      do {
        return try await dial(path)
      } catch {
        trouble = String(describing: error)
      }
      if !spawned || hasEnded() {
        try spawn()
        spawned = true
      }
      try? await Task.sleep(for: .milliseconds(5))
    }
    throw ExecutionFailure(
      .engine,
      "the supervisor of \(store.string) does not answer (its own words are in supervisor.log there): \(trouble)"
    )
  }

  private func dial(_ path: String) async throws -> UInt64 {
    let group = MultiThreadedEventLoopGroup.singleton
    let loop = group.next()
    let welcome = loop.makePromise(of: UInt64.self)
    let channel: any Channel
    do {
      channel = try await ClientBootstrap(group: loop)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(SupervisorHandler(link: self, welcome: welcome))
          }
        }
        .connect(unixDomainSocketPath: path).get()
    } catch {
      welcome.fail(error)
      throw error
    }
    let timeout = loop.scheduleTask(in: .seconds(5)) { channel.close(promise: nil) }
    defer { timeout.cancel() }
    var hello: [UInt8] = []
    hello.frame(.hello) { $0.put(SupervisorFrame.version) }
    channel.writeAndFlush(ByteBuffer(bytes: hello), promise: nil)
    return try await welcome.futureResult.get()
  }

  func welcomed(_ channel: any Channel, identity: UInt64) {
    state.withLock {
      $0.channel = channel
      $0.identity = identity
      $0.outgoing = []
      $0.flushing = false
    }
  }

  private func hasEnded() -> Bool {
    let pid = state.withLock { $0.supervisor }
    var status: Int32 = 0
    return pid > 0 && waitpid(pid, &status, WNOHANG) != 0
  }

  /// Starts a supervisor in a session of its own, with nothing of the agent's but a few harmless variables.
  private func spawn() throws(ExecutionFailure) {
    _ = hasEnded()
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    let log = store.appending("supervisor.log").string
    posix_spawn_file_actions_addopen(&actions, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var all = sigset_t()
    sigfillset(&all)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(
      &attributes,
      ProcessEnvironment.newSession | Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))
    var pid: pid_t = 0
    let arguments = [executable.string, "supervise", "--store", store.string]
    let variables = ProcessEnvironment.inherited.map { "\($0.key)=\($0.value)" }
    let failed = withCStrings(arguments) { argv in
      withCStrings(variables) { envp in
        posix_spawn(&pid, executable.string, &actions, &attributes, argv, envp)
      }
    }
    guard failed == 0 else {
      throw ExecutionFailure(
        .engine, "cannot start the supervisor \(executable.string): \(String(cString: strerror(failed)))")
    }
    state.withLock { $0.supervisor = pid }
  }
}

private func withCStrings<R>(
  _ texts: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> R
) -> R {
  var pointers: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) } + [nil]
  defer { for pointer in pointers { free(pointer) } }
  return pointers.withUnsafeMutableBufferPointer { body($0.baseAddress!) }
}
