import Glibc
import ScitqProtocol

/// Where the handler of SIGCHLD leaves a byte for the loop. Written once, before the handler is set.
nonisolated(unsafe) private var childEnded: Int32 = -1
/// Whether SIGTERM has come.
nonisolated(unsafe) private var wasToldToEnd = false

/// The supervisor's one thread: each turn reads what is there, reaps, and writes what there is to say in one piece
/// per engine.
struct SupervisorLoop {
  private let listener: Int32
  private let identity = UInt64.random(in: 1...UInt64.max)
  private var spawner = Spawner()
  private var attempts: [AttemptID: SupervisedAttempt] = [:]
  private var running: [pid_t: SupervisedAttempt] = [:]
  private var engines: [ConnectedEngine] = []
  /// Those with something new to say this turn.
  private var talkative: [SupervisedAttempt] = []
  private var ended: [SupervisedAttempt] = []
  private var deadlines = false
  private var stalled = false
  private var idleSince = Self.now()
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)

  private static let idleLimit: UInt64 = 30_000_000_000

  init(listener: Int32, store: String) { self.listener = listener }

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  mutating func run() {
    signal(SIGPIPE, SIG_IGN)
    signal(SIGHUP, SIG_IGN)
    signal(SIGINT, SIG_IGN)
    let (bell, clapper) = Self.makeBell()
    childEnded = clapper
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in
      let saved = errno
      var byte: UInt8 = 0
      _ = write(childEnded, &byte, 1)
      errno = saved
    }
    action.sa_flags = SA_NOCLDSTOP | SA_RESTART
    sigaction(SIGCHLD, &action, nil)
    // Who ends a batch job tells all of its processes. How the commands end by it is still to be told.
    action.__sigaction_handler.sa_handler = { _ in
      let saved = errno
      wasToldToEnd = true
      var byte: UInt8 = 0
      _ = write(childEnded, &byte, 1)
      errno = saved
    }
    sigaction(SIGTERM, &action, nil)

    var polled: [pollfd] = []
    var pipes: [SupervisedAttempt] = []
    while true {
      polled.removeAll(keepingCapacity: true)
      pipes.removeAll(keepingCapacity: true)
      polled.append(pollfd(fd: listener, events: Int16(POLLIN), revents: 0))
      polled.append(pollfd(fd: bell, events: Int16(POLLIN), revents: 0))
      for engine in engines {
        let events = engine.hasPending ? POLLIN | POLLOUT : POLLIN
        polled.append(pollfd(fd: engine.fd, events: Int16(events), revents: 0))
      }
      let firstPipe = polled.count
      stalled = false
      for attempt in running.values {
        stalled = stalled || attempt.out.stalled || attempt.err.stalled
        if attempt.out.fd >= 0, !attempt.out.stalled {
          polled.append(pollfd(fd: attempt.out.fd, events: Int16(POLLIN), revents: 0))
          pipes.append(attempt)
        }
        if attempt.err.fd >= 0, !attempt.err.stalled {
          polled.append(pollfd(fd: attempt.err.fd, events: Int16(POLLIN), revents: 0))
          pipes.append(attempt)
        }
      }
      // Where nobody is left to be told, what has ended is in the files.
      if wasToldToEnd, running.isEmpty, attempts.isEmpty || engines.isEmpty { return }
      if engines.isEmpty, attempts.isEmpty {
        if Self.now() - idleSince >= Self.idleLimit { return }
      } else {
        idleSince = Self.now()
      }
      // Deadlines, a disk that may have room again, and idleness are looked at a few times a second, and only
      // where there are any.
      let pause = deadlines ? 50 : stalled ? 500 : engines.isEmpty && attempts.isEmpty ? 1000 : -1
      if poll(&polled, UInt(polled.count), Int32(pause)) > 0 {
        if polled[1].revents != 0 { _ = read(bell, buffer.baseAddress, buffer.count) }
        for i in pipes.indices where polled[firstPipe + i].revents != 0 {
          collect(pipes[i], limit: 256 << 10)
        }
        let known = engines
        for i in known.indices where polled[2 + i].revents != 0 { listen(to: known[i]) }
        if polled[0].revents != 0 { accept() }
      }
      if stalled { for attempt in running.values { collect(attempt, limit: 256 << 10) } }
      reap()
      if deadlines { enforce() }
      speak()
    }
  }

  private static func makeBell() -> (Int32, Int32) {
    var ends: (Int32, Int32) = (-1, -1)
    _ = withUnsafeMutableBytes(of: &ends) { pipe($0.baseAddress!.assumingMemoryBound(to: Int32.self)) }
    Supervisor.prepare(ends.0)
    Supervisor.prepare(ends.1)
    return ends
  }

  // MARK: Processes

  private mutating func collect(_ attempt: SupervisedAttempt, limit: Int, last: Bool = false) {
    let before = attempt.out.total + attempt.err.total
    attempt.drain(into: buffer, limit: limit, last: last)
    if attempt.out.total + attempt.err.total != before { talkative.append(attempt) }
  }

  private mutating func reap() {
    var over: [SupervisedAttempt] = []
    var sawOthers = false
    while true {
      var status: Int32 = 0
      let pid = waitpid(-1, &status, WNOHANG)
      if pid < 0, errno == EINTR { continue }
      guard pid > 0 else { break }
      guard let attempt = running.removeValue(forKey: pid) else {
        sawOthers = true
        continue
      }
      // What it left running ends with it, as in a container. The number is still taken by the group where there is
      // one left, so this cannot meet a stranger.
      kill(-pid, SIGKILL)
      attempt.pid = 0
      attempt.isPaused = false
      let signal = status & 0x7f
      attempt.ending = .init(code: signal == 0 ? (status >> 8) & 0xff : 128 + signal, signal: signal)
      attempt.killAt = nil
      // A pipe holds at most a MiB; whoever slipped out of the group and still writes is not listened to.
      collect(attempt, limit: 2 << 20, last: true)
      attempt.closePipes()
      over.append(attempt)
    }
    if over.isEmpty, !sawOthers { return }
    let left = endStrays()
    for attempt in over {
      attempt.ending?.leftProcesses = left
      ended.append(attempt)
    }
  }

  /// Ends what has slipped out of its group and whose attempt is over: it has become this process's child. True when
  /// there was anything that no running attempt leads, or when that cannot be known.
  private func endStrays() -> Bool {
    guard let children = Supervisor.children() else { return true }
    let strays = children.filter { running[$0] == nil }
    if strays.isEmpty { return false }
    let alive = Set(running.values.map { "SCITQ_TASK_ID=\($0.id.task)" })
    for pid in strays {
      let environment = Supervisor.environment(of: pid)
      // A child is not reaped behind our back: the number is still its own.
      if environment.isDisjoint(with: alive), !environment.isEmpty || running.isEmpty { kill(pid, SIGKILL) }
    }
    return true
  }

  private func pause(_ attempt: SupervisedAttempt) {
    tree(of: attempt).stop()
    attempt.isPaused = true
  }

  private func resume(_ attempt: SupervisedAttempt) {
    tree(of: attempt).resume()
    attempt.isPaused = false
  }

  private func tree(of attempt: SupervisedAttempt) -> ProcessTree {
    ProcessTree(leader: attempt.pid, task: attempt.id.task, others: Set(running.keys))
  }

  private mutating func enforce() {
    let now = Self.now()
    deadlines = false
    for (pid, attempt) in running {
      guard let killAt = attempt.killAt else { continue }
      if killAt <= now {
        kill(-pid, SIGKILL)
        attempt.killAt = nil
      } else {
        deadlines = true
      }
    }
  }

  // MARK: Engines

  private mutating func accept() {
    while true {
      let fd = Glibc.accept(listener, nil, nil)
      guard fd >= 0 else { return }
      Supervisor.prepare(fd)
      engines.append(ConnectedEngine(fd: fd))
    }
  }

  private mutating func listen(to engine: ConnectedEngine) {
    guard engine.receive() else {
      hangUp(engine)
      return
    }
    var done = 0
    let input = engine.takeInput()
    let sound = input.withUnsafeBytes { bytes -> Bool in
      while true {
        switch SupervisorFrame.next(in: UnsafeRawBufferPointer(rebasing: bytes[done...])) {
        case .incomplete: return true
        case .broken: return false
        case .frame(let kind, let attempt, var payload, let length):
          done += length
          obey(kind, attempt, &payload, from: engine)
          if payload.broken { return false }
        }
      }
    }
    guard sound else {
      hangUp(engine)
      return
    }
    engine.keepInput(input, from: done)
  }

  private mutating func hangUp(_ engine: ConnectedEngine) {
    close(engine.fd)
    engines.removeAll { $0 === engine }
  }

  private mutating func obey(
    _ kind: SupervisorFrame.Kind, _ id: AttemptID, _ payload: inout FrameReader, from engine: ConnectedEngine
  ) {
    switch kind {
    case .hello:
      let identity = identity
      engine.pending.frame(.welcome) {
        $0.put(SupervisorFrame.version)
        $0.put(identity)
      }
    case .start:
      start(id, &payload, for: engine)
    case .watch:
      guard let attempt = attempts[id] else { return engine.pending.frame(.gone, id) }
      engine.views[id, default: .init()].watches = true
      if attempt.ending != nil { engine.tellEnd(of: attempt) }
    case .attach:
      let out: Int64 = payload.get()
      let err: Int64 = payload.get()
      guard let attempt = attempts[id] else { return engine.pending.frame(.gone, id) }
      var view = engine.views[id, default: .init()]
      view.follow(out: max(out, attempt.out.start), err: max(err, attempt.err.start))
      engine.pending.frame(.attached, id) {
        $0.put(view.out.sent)
        $0.put(view.err.sent)
      }
      engine.views[id] = view
      if attempt.ending != nil, !view.told { engine.tellEnd(of: attempt) }
      engine.pump(attempt)
    case .consumed:
      let out: Int64 = payload.get()
      let err: Int64 = payload.get()
      guard let attempt = attempts[id], engine.views[id]?.widen(out: out, err: err) != nil else { return }
      engine.pump(attempt)
    case .delivered:
      let out: Int64 = payload.get()
      let err: Int64 = payload.get()
      guard let attempt = attempts[id] else { return }
      attempt.out.release(upTo: out)
      attempt.err.release(upTo: err)
    case .kill:
      let grace: UInt64 = payload.get()
      guard let attempt = attempts[id], attempt.pid > 0 else { return engine.pending.frame(.killed, id) }
      engine.views[id, default: .init()].awaitsKill = true
      let deadline = Self.now() &+ min(grace, 1 << 60)
      if attempt.killAt.map({ deadline < $0 }) ?? true { attempt.killAt = deadline }
      deadlines = true
      if grace == 0 {
        Glibc.kill(-attempt.pid, SIGKILL)
      } else {
        Glibc.kill(-attempt.pid, SIGTERM)
        Glibc.kill(-attempt.pid, SIGCONT)
        // What does not go on cannot hear it.
        if attempt.isPaused { resume(attempt) }
      }
    case .pause:
      // One that is being killed has to go on to its end.
      if let attempt = attempts[id], attempt.pid > 0, attempt.killAt == nil { pause(attempt) }
      engine.pending.frame(.paused, id) { $0.append(attempts[id]?.isPaused == true ? 1 : 0) }
    case .resume:
      if let attempt = attempts[id], attempt.isPaused { resume(attempt) }
      engine.pending.frame(.resumed, id) { $0.append((attempts[id]?.pid ?? 0) > 0 ? 1 : 0) }
    case .remove:
      for other in engines { other.views.removeValue(forKey: id) }
      guard let attempt = attempts[id] else { return }
      if attempt.pid > 0 {
        attempt.unwanted = true
        Glibc.kill(-attempt.pid, SIGKILL)
      } else {
        attempts.removeValue(forKey: id)
        attempt.discard()
      }
    case .list:
      engine.pending.frame(.held) { payload in
        for attempt in attempts.values where !attempt.unwanted {
          payload.put(attempt.id.task.rawValue)
          payload.put(attempt.id.assignment)
          payload.append(attempt.ending != nil ? 1 : attempt.isPaused ? 2 : 0)
        }
      }
    case .welcome, .started, .refused, .attached, .output, .exited, .gone, .killed, .held, .paused, .resumed:
      break
    }
  }

  private mutating func start(_ id: AttemptID, _ payload: inout FrameReader, for engine: ConnectedEngine) {
    if let attempt = attempts[id] {
      _ = payload.rest()
      engine.views[id, default: .init()].watches = true
      engine.pending.frame(.started, id) { $0.append(0) }
      if attempt.ending != nil { engine.tellEnd(of: attempt) }
      return
    }
    let attempt: SupervisedAttempt
    switch spawner.start(id, &payload) {
    case .refused(let sentence):
      engine.pending.frame(.refused, id) { $0.append(contentsOf: sentence.utf8) }
      return
    case .running(let new):
      running[new.pid] = new
      attempt = new
    case .ended(let new):
      talkative.append(new)
      ended.append(new)
      attempt = new
    }
    attempts[id] = attempt
    // Who starts an attempt hears it from its first byte without asking.
    var view = ConnectedEngine.View(watches: true)
    view.follow(out: 0, err: 0)
    engine.views[id] = view
    engine.pending.frame(.started, id) { $0.append(1) }
  }

  /// Says what this turn brought: first what was printed, then who ended.
  private mutating func speak() {
    for engine in engines {
      for attempt in talkative { engine.pump(attempt) }
      for attempt in ended { engine.tellEnd(of: attempt) }
    }
    for attempt in ended where attempt.unwanted {
      attempts.removeValue(forKey: attempt.id)
      attempt.discard()
    }
    talkative.removeAll(keepingCapacity: true)
    ended.removeAll(keepingCapacity: true)
    var lost: [ConnectedEngine] = []
    for engine in engines {
      if engine.starved, engine.hasRoom {
        engine.starved = false
        for id in engine.views.keys { if let attempt = attempts[id] { engine.pump(attempt) } }
      }
      if !engine.send() { lost.append(engine) }
    }
    for engine in lost { hangUp(engine) }
  }
}
