import Glibc
package import ScitqProtocol
import Synchronization
package import SystemPackage

/// Runs commands as processes of this host, through a supervisor that outlives the agent.
///
/// Each attempt leads a session of its own, with nothing on its standard input, in the folder that holds its
/// temporary folder (in `/tmp` where there is none). Its environment is the task's, INPUT OUTPUT TEMP RESOURCE
/// SCRIPTS, and of the agent's only what tells programs, home and language. A command that cannot be executed ends
/// with 127 (not found) or 126 (cannot be executed) and says why on its standard error, as under a shell. When the
/// command has ended, what it left running is killed, as in a container.
package final class ProcessEngine: ExecutionEngine {
  private let link: SupervisorLink
  private let store: String

  /// - Parameters:
  ///   - store: The agent's folder; the supervisor keeps its socket and what it cannot hold in memory there.
  ///   - executable: What is run as `executable supervise --store …`: by default this program itself.
  package init(store: FilePath, executable: FilePath = "/proc/self/exe") {
    let path = realpath(store.string, nil)
    defer { free(path) }
    self.store = path.map { String(cString: $0) } ?? store.string
    link = SupervisorLink(store: store, executable: executable)
  }

  deinit { link.shutDown() }

  package func prepare(_ launch: Launch) async throws(ExecutionFailure) {}

  package func create(_ launch: Launch) async throws(ExecutionFailure) {
    let line = try CommandLine(launch)
    if line.shell.isEmpty {
      guard !line.words.isEmpty else {
        throw ExecutionFailure(
          .refused,
          "the command of task \(launch.attempt.task) is empty: a process needs the name of a program")
      }
    } else {
      try Script.write(launch)
    }
  }

  package func start(_ launch: Launch) async throws(ExecutionFailure) {
    let line = try CommandLine(launch)
    let words =
      line.shell.isEmpty
      ? line.words : line.shell + [launch.folders.scripts.appending(CommandLine.scriptName).string]
    guard !words.isEmpty else {
      throw ExecutionFailure(.refused, "the command of task \(launch.attempt.task) is empty")
    }
    var frame: [UInt8] = []
    frame.reserveCapacity(2048)
    let variables = ProcessEnvironment.of(launch, store: store)
    frame.frame(.start, launch.attempt) {
      $0.put(UInt32(words.count))
      $0.put(UInt32(variables.count))
      $0.put(terminated: launch.folders.temp.removingLastComponent().string)
      for word in words { $0.put(terminated: word) }
      for (name, value) in variables {
        $0.append(contentsOf: name.utf8)
        $0.append(UInt8(ascii: "="))
        $0.put(terminated: value)
      }
    }
    guard frame.count <= SupervisorFrame.maximumLength else {
      throw ExecutionFailure(
        .refused, "the command and environment of task \(launch.attempt.task) are over 64 MiB")
    }
    let attempt = launch.attempt
    var asked: UInt64?
    while true {
      let identity = try await link.connected()
      if let asked, asked != identity {
        throw ExecutionFailure(
          .workerLost,
          "the supervisor ended while attempt \(attempt) was being started, and the attempt with it")
      }
      asked = identity
      link.state.withLock { state in
        var record = state.records[attempt] ?? SupervisorLink.Record()
        record.gone = false
        if link.send(&state, { $0 += frame }) { record.start = .asked } else { record.start = .disconnected }
        state.records[attempt] = record
      }
      await link.wait(attempt) { state in
        if case .asked = state.records[attempt]?.start { return true }
        return false
      }
      while true {
        let answer = link.state.withLock { $0.records[attempt]?.start ?? .unasked }
        switch answer {
        case .answered:
          return
        case .refused(let sentence):
          link.state.withLock { _ = $0.records.removeValue(forKey: attempt) }
          throw ExecutionFailure(.engine, sentence)
        case .asked:
          // News of another kind woke us, or the caller no longer waits.
          if Task.isCancelled { throw Self.canceled(attempt) }
          await link.wait(attempt) { state in
            if case .asked = state.records[attempt]?.start { return true }
            return false
          }
          continue
        case .disconnected, .unasked:
          break
        }
        break
      }
    }
  }

  package func output(
    of attempt: AttemptID, from offsets: LogOffsets
  ) -> AsyncThrowingStream<OutputChunk, any Error> {
    link.state.withLock { state in
      var record = state.records[attempt] ?? SupervisorLink.Record()
      if record.position != offsets || !record.followed {
        record.position = offsets
        record.followed = false
        record.chunks = []
        record.firstChunk = 0
      }
      state.records[attempt] = record
    }
    return AsyncThrowingStream { [self] in try await nextChunk(attempt) }
  }

  private enum Next {
    case chunk(OutputChunk)
    case end, gone, connect, wait
  }

  private func nextChunk(_ attempt: AttemptID) async throws -> OutputChunk? {
    while true {
      try Task.checkCancellation()
      switch link.state.withLock({ next(attempt, &$0) }) {
      case .chunk(let chunk): return chunk
      case .end: return nil
      case .gone: throw Self.lost(attempt)
      case .connect: _ = try await link.connected()
      case .wait:
        await link.wait(attempt) { state in
          guard let record = state.records[attempt], record.followed, record.chunks.isEmpty, !record.gone
          else {
            return false
          }
          guard let totals = record.ending?.totals else { return true }
          return record.position.out < totals.out || record.position.err < totals.err
        }
      }
    }
  }

  private func next(_ attempt: AttemptID, _ state: inout SupervisorLink.State) -> Next {
    guard var record = state.records[attempt] else { return .gone }
    if record.firstChunk < record.chunks.count {
      let chunk = record.chunks[record.firstChunk]
      record.firstChunk += 1
      if record.firstChunk == record.chunks.count {
        record.chunks.removeAll(keepingCapacity: true)
        record.firstChunk = 0
      } else if record.firstChunk >= 64 {
        record.chunks.removeFirst(record.firstChunk)
        record.firstChunk = 0
      }
      let end = chunk.offset + Int64(chunk.bytes.count)
      switch chunk.stream {
      case .out: record.position.out = end
      case .err: record.position.err = end
      }
      // The supervisor sends no more than a window ahead of what it knows to be consumed.
      let step = SupervisorFrame.window / 4
      if record.position.out - record.credited.out >= step
        || record.position.err - record.credited.err >= step
      {
        record.credited = record.position
        let position = record.position
        link.send(&state) { bytes in
          bytes.frame(.consumed, attempt) {
            $0.put(position.out)
            $0.put(position.err)
          }
        }
      }
      state.records[attempt] = record
      return .chunk(chunk)
    }
    if let totals = record.ending?.totals, record.position.out >= totals.out,
      record.position.err >= totals.err
    {
      return .end
    }
    if record.gone { return .gone }
    guard !record.followed else { return .wait }
    let position = record.position
    let sent = link.send(&state) { bytes in
      bytes.frame(.attach, attempt) {
        $0.put(position.out)
        $0.put(position.err)
      }
    }
    guard sent else { return .connect }
    record.followed = true
    record.attaching = true
    state.records[attempt] = record
    return .wait
  }

  package func delivered(_ attempt: AttemptID, upTo offsets: LogOffsets) async {
    guard offsets.out > 0 || offsets.err > 0 else { return }
    link.state.withLock { state in
      _ = link.send(&state) { bytes in
        bytes.frame(.delivered, attempt) {
          $0.put(offsets.out)
          $0.put(offsets.err)
        }
      }
    }
  }

  package func exit(of attempt: AttemptID) async throws(ExecutionFailure) -> Exit {
    while true {
      let (ending, gone) = link.state.withLock { state in
        (state.records[attempt]?.ending, state.records[attempt]?.gone ?? false)
      }
      if let ending { return ending.exit }
      if gone { throw Self.lost(attempt) }
      if Task.isCancelled { throw Self.canceled(attempt) }
      _ = try await link.connected()
      await link.wait(attempt) { state in
        let record = state.records[attempt] ?? SupervisorLink.Record()
        guard record.ending == nil, !record.gone else { return false }
        if !record.watched {
          guard link.send(&state, { $0.frame(.watch, attempt) }) else { return false }
          state.records[attempt, default: .init()].watched = true
        }
        return true
      }
    }
  }

  package func kill(_ attempt: AttemptID, grace: Duration) async {
    let parts = grace.components
    let nanoseconds =
      UInt64(clamping: max(parts.seconds, 0)) &* 1_000_000_000
      &+ UInt64(clamping: parts.attoseconds / 1_000_000_000)
    while !Task.isCancelled {
      let asked: Bool
      do throws(ExecutionFailure) {
        _ = try await link.connected()
        asked = link.state.withLock { state in
          guard state.records[attempt]?.ending == nil else { return true }
          state.records[attempt, default: .init()].killed = false
          return link.send(&state) { bytes in bytes.frame(.kill, attempt) { $0.put(nanoseconds) } }
        }
      } catch {
        asked = false
      }
      guard asked else {
        try? await Task.sleep(for: .milliseconds(200))
        continue
      }
      while !Task.isCancelled {
        let (over, connected) = link.state.withLock { state in
          let record = state.records[attempt]
          return (
            record == nil || record!.killed || record!.ending != nil || record!.gone, state.channel != nil
          )
        }
        if over { return }
        if !connected { break }
        await link.wait(attempt) { state in
          guard let record = state.records[attempt], state.channel != nil else { return false }
          return !record.killed && record.ending == nil && !record.gone
        }
      }
    }
  }

  package func pause(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool {
    try await turn(attempt, .pause)
  }

  package func resume(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool {
    try await turn(attempt, .resume)
  }

  /// Asks the supervisor, and again where the connection ends over it.
  private func turn(_ attempt: AttemptID, _ verb: SupervisorFrame.Kind) async throws(ExecutionFailure) -> Bool
  {
    // A supervisor that an earlier version started hangs up on words it does not know.
    for _ in 0..<3 {
      _ = try await link.connected()
      link.state.withLock { state in
        state.records[attempt, default: .init()].standing = nil
        link.send(&state) { $0.frame(verb, attempt) }
      }
      while true {
        let (record, connected) = link.state.withLock { ($0.records[attempt], $0.channel != nil) }
        guard let record else { return false }
        if let answer = record.standing { return answer }
        if Task.isCancelled { throw Self.canceled(attempt) }
        if !connected { break }
        await link.wait(attempt) { state in
          guard let record = state.records[attempt], state.channel != nil else { return false }
          return record.standing == nil
        }
      }
    }
    throw ExecutionFailure(
      .engine, "the supervisor did not \(verb == .pause ? "pause" : "resume") attempt \(attempt)")
  }

  package func remove(_ attempt: AttemptID) async {
    _ = try? await link.connected()
    let waiters = link.state.withLock { state -> [SupervisorLink.Waiter] in
      link.send(&state) { $0.frame(.remove, attempt) }
      let waiters = state.takeWaiters(attempt)
      state.records.removeValue(forKey: attempt)
      return waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  package func held() async throws(ExecutionFailure) -> [AttemptID: HeldState] {
    while true {
      _ = try await link.connected()
      let held = await withCheckedContinuation { continuation in
        let sent = link.state.withLock { state -> Bool in
          guard link.send(&state, { $0.frame(.list) }) else { return false }
          state.lists.append(continuation)
          return true
        }
        if !sent { continuation.resume(returning: nil) }
      }
      if let held { return held }
      if Task.isCancelled { throw ExecutionFailure(.canceled, "the list of processes was given up") }
    }
  }

  private static func lost(_ attempt: AttemptID) -> ExecutionFailure {
    ExecutionFailure(
      .workerLost,
      "the supervisor knows nothing of attempt \(attempt): it, or the host, was restarted meanwhile")
  }

  private static func canceled(_ attempt: AttemptID) -> ExecutionFailure {
    ExecutionFailure(.canceled, "waiting for attempt \(attempt) was given up")
  }
}

/// The variables of a process that runs on the host.
enum ProcessEnvironment {
  /// POSIX_SPAWN_SETSID of glibc and musl, which their headers show to GNU sources only.
  static let newSession: Int16 = 0x80

  /// What of the agent's own environment every process gets: nothing that could be a secret.
  static let inherited: [String: String] = {
    let names: Set<String> = [
      "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    ]
    var found = ["PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    var entry = environ
    while let text = entry.pointee {
      let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2, names.contains(String(parts[0])) || parts[0].hasPrefix("LC_") {
        found[String(parts[0])] = String(parts[1])
      }
      entry += 1
    }
    return found
  }()

  static func of(_ launch: Launch, store: String) -> [String: String] {
    var variables = inherited
    variables["INPUT"] = launch.folders.input.string
    variables["OUTPUT"] = launch.folders.output.string
    variables["TEMP"] = launch.folders.temp.string
    variables["RESOURCE"] = launch.folders.resource.string
    variables["SCRIPTS"] = launch.folders.scripts.string
    for (name, value) in launch.environment { variables[name] = value }
    variables[Supervisor.marker] = store
    return variables
  }
}
