import Glibc
package import ScitqProtocol
import Subprocess
import Synchronization

/// Runs commands in containers of docker, or of podman, through its command-line program.
///
/// Containers are detached, named for store, task and assignment, and labelled, so that an agent that was restarted
/// finds them. The engine keeps their output byte for byte and their exit codes until they are removed. A restart of
/// the engine that leaves containers alive leaves attempts alive.
///
/// A command that is not in the image ends with 127, one that cannot be executed with 126, with the reason on its
/// standard error. Codes above 128 are reported as they are: a container's code does not tell whether a signal ended
/// the command or the command chose the number, so `Exit.signal` stays nil.
package actor DockerEngine: ExecutionEngine {
  private let tool: ContainerTool
  private let storeID: String
  private let pullTimeout: Duration
  private let freshness: Duration
  private let inspect: Batch<Inspection?>
  private let discard: Batch<Bool>
  private let deaths: ContainerDeaths
  /// Images that are here, and when their registry was last asked; `create` finds out when one is gone.
  private var present: [String: ContinuousClock.Instant] = [:]
  private var pulls: [String: [Wakeup]] = [:]
  /// Started by this very object, whose events it has listened to ever since.
  private var started: Set<AttemptID> = []
  private var created: Set<AttemptID> = []
  private var over: [AttemptID: Inspection] = [:]

  /// - Parameters:
  ///   - storeID: Names the agent's store: containers of other stores are never touched.
  ///   - program: `docker`, `podman`, or the path of one.
  ///   - pullTimeout: How long an image may take to arrive.
  ///   - freshness: How long an image of a tag is used before its registry is asked whether the tag has moved.
  package init(
    storeID: String, program: String = "docker", pullTimeout: Duration = .seconds(3600),
    freshness: Duration = .seconds(900)
  ) {
    let tool = ContainerTool(program: program)
    self.tool = tool
    self.storeID = storeID
    self.pullTimeout = pullTimeout
    self.freshness = freshness
    deaths = ContainerDeaths(tool: tool, label: "scitq.store=\(storeID)")
    inspect = Batch { names in
      let answer = await tool.run(["container", "inspect", "--format", Inspection.format] + names)
      var found: [String: Inspection?] = [:]
      for line in answer.output.split(whereSeparator: \.isNewline) {
        if let (name, inspection) = Inspection.parse(line) { found[name] = inspection }
      }
      // With one name missing the others are still told; with the engine away nothing is known of any.
      if !answer.isEngineAway, answer.code >= 0, answer.error.lowercased().contains("no such") {
        for name in names where found[name] == nil { found[name] = .some(nil) }
      }
      return found
    }
    discard = Batch { names in
      let answer = await tool.run(["rm", "--force", "--volumes"] + names)
      guard answer.code >= 0, !answer.isEngineAway else { return [:] }
      return Dictionary(uniqueKeysWithValues: names.map { ($0, true) })
    }
  }

  /// Whether the engine answers within ten seconds.
  package static func available(_ program: String) async -> Bool {
    await ContainerTool(program: program).run(["ps", "--quiet", "--last", "1"], timeout: .seconds(10)).code
      == 0
  }

  nonisolated private func name(_ attempt: AttemptID) -> String {
    "scitq-\(storeID.prefix(12))-\(attempt.task)-\(attempt.assignment)"
  }

  // MARK: Images

  /// Brings the image. One that came from a registry under a tag is brought up to date now and then; where the
  /// registry does not answer, what is here is used.
  package func prepare(_ launch: Launch) async throws(ExecutionFailure) {
    let image = launch.image
    while true {
      if let asked = present[image], .now - asked < freshness { return }
      if pulls[image] != nil {
        // Another attempt brings it; should that fail, this one tries for itself.
        let wakeup = Wakeup()
        pulls[image]!.append(wakeup)
        await wakeup.wait()
        if Task.isCancelled { throw ExecutionFailure(.canceled, "waiting for image \(image) was given up") }
        continue
      }
      pulls[image] = []
      defer { for waiter in pulls.removeValue(forKey: image) ?? [] { waiter.wake() } }
      let looked = await tool.run(["image", "inspect", "--format", "{{len .RepoDigests}}", image])
      if looked.code != 0 {
        if looked.isEngineAway || looked.code < 0 { throw ExecutionFailure(.engine, looked.sentence) }
        let pulled = await tool.run(["pull", "--quiet", image], timeout: pullTimeout)
        guard pulled.code == 0 else {
          throw ExecutionFailure(.image, "image \(image) could not be pulled: \(pulled.sentence)")
        }
      } else if !image.contains("@"), looked.output.first != "0" {
        _ = await tool.run(["pull", "--quiet", image], timeout: min(pullTimeout, Self.refreshTimeout))
      }
      present[image] = .now
    }
  }

  /// A registry that does not answer must not hold up tasks whose image is here.
  private static let refreshTimeout = Duration.seconds(120)

  // MARK: One attempt

  package func create(_ launch: Launch) async throws(ExecutionFailure) {
    let call = try ContainerCall(launch, name: name(launch.attempt), storeID: storeID, podman: tool.isPodman)
    if call.hasScript { try Script.write(launch) }
    let deadline = ContinuousClock.now + .seconds(120)
    var broughtImage = false
    while true {
      let answer = await tool.run(call.arguments, input: call.environmentFile, environment: call.environment)
      if answer.code == 0 {
        created.insert(launch.attempt)
        return
      }
      if answer.error.contains("is already in use") { return }
      if answer.isEngineAway, ContinuousClock.now < deadline, !Task.isCancelled {
        try? await Task.sleep(for: .milliseconds(300))
        continue
      }
      let missing = answer.error.lowercased()
      if !broughtImage, missing.contains("no such image") || missing.contains("image not known") {
        // It was here when it was prepared and has been deleted since.
        broughtImage = true
        present[launch.image] = nil
        try await prepare(launch)
        continue
      }
      throw ExecutionFailure(
        .engine, "the container of attempt \(launch.attempt) could not be created: \(answer.sentence)")
    }
  }

  package func start(_ launch: Launch) async throws(ExecutionFailure) {
    let attempt = launch.attempt
    let deadline = ContinuousClock.now + .seconds(120)
    deaths.listen()
    // Starting an ended container would run it again: only one that was made a moment ago is started unseen.
    var fresh = created.remove(attempt) != nil
    while true {
      if fresh {
        let answer = await tool.run(["start", name(attempt)])
        if answer.code == 0 {
          started.insert(attempt)
          return
        }
        if answer.isEngineAway || answer.code < 0, ContinuousClock.now < deadline, !Task.isCancelled {
          try? await Task.sleep(for: .milliseconds(300))
        } else if let seen = try await look(at: attempt), seen.isOver || seen.isAlive {
          if seen.isOver { over[attempt] = seen }
          return
        } else {
          throw ExecutionFailure(
            .engine, "the container of attempt \(attempt) could not be started: \(answer.sentence)")
        }
      }
      guard let seen = try await look(at: attempt) else {
        throw ExecutionFailure(
          .engine, "the container \(name(attempt)) is not there: it was removed, or never created")
      }
      if seen.isOver { over[attempt] = seen }
      guard seen.status == .created, !seen.isUnstartable else { return }
      fresh = true
    }
  }

  package func exit(of attempt: AttemptID) async throws(ExecutionFailure) -> Exit {
    let seen = try await end(of: attempt)
    return Exit(code: seen.code, outOfMemory: seen.outOfMemory)
  }

  package func pause(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool {
    try await turn(attempt, "pause", whileIt: .running)
  }

  package func resume(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool {
    try await turn(attempt, "unpause", whileIt: .paused)
  }

  /// Calls the verb for as long as the container is in this state. False: it is not running, paused or not.
  private func turn(
    _ attempt: AttemptID, _ verb: String, whileIt state: Inspection.Status
  ) async throws(ExecutionFailure) -> Bool {
    let deadline = ContinuousClock.now + .seconds(120)
    while true {
      let answer = await tool.run([verb, name(attempt)])
      if answer.code == 0 { return true }
      // It was so already, it has ended, or the engine is away: that is the container's own state to tell.
      guard let seen = try await look(at: attempt) else { return false }
      if seen.status != state { return seen.isAlive }
      guard ContinuousClock.now < deadline, !Task.isCancelled else {
        throw ExecutionFailure(
          .engine, "the container of attempt \(attempt) could not be \(verb)d: \(answer.sentence)")
      }
      try? await Task.sleep(for: .milliseconds(300))
    }
  }

  package func kill(_ attempt: AttemptID, grace: Duration) async {
    let parts = grace.components
    let seconds = max(0, parts.seconds + (parts.attoseconds > 0 ? 1 : 0))
    while !Task.isCancelled {
      let answer = await tool.run(
        ["stop", "--time", String(seconds), name(attempt)], timeout: .seconds(seconds + 60))
      if answer.code == 0 || answer.error.lowercased().contains("no such container") { return }
      // A dying, an unreachable one: it counts as killed only when nothing runs.
      if case .some(.some(let seen)) = await inspect(name(attempt)) {
        if !seen.isAlive { return }
        // Docker lets a paused one hear it, podman does not.
        if seen.status == .paused { _ = await tool.run(["unpause", name(attempt)]) }
      }
      try? await Task.sleep(for: .milliseconds(500))
    }
  }

  package func delivered(_ attempt: AttemptID, upTo offsets: LogOffsets) async {}

  package func remove(_ attempt: AttemptID) async {
    while await discard(name(attempt)) == nil, !Task.isCancelled {
      try? await Task.sleep(for: .milliseconds(500))
    }
    deaths.forget(name(attempt))
    started.remove(attempt)
    created.remove(attempt)
    over.removeValue(forKey: attempt)
  }

  package func held() async throws(ExecutionFailure) -> [AttemptID: HeldState] {
    let answer = await tool.run([
      "ps", "--all", "--no-trunc", "--filter", "label=scitq.store=\(storeID)", "--format",
      "{{.Label \"scitq.task\"}} {{.Label \"scitq.assignment\"}} {{.State}}",
    ])
    guard answer.code == 0 else {
      throw ExecutionFailure(.engine, "\(tool.program) could not list its containers: \(answer.sentence)")
    }
    var held: [AttemptID: HeldState] = [:]
    for line in answer.output.split(whereSeparator: \.isNewline) {
      let fields = line.split(separator: " ")
      guard fields.count >= 3, let task = Int64(fields[0]), let assignment = Int64(fields[1]) else {
        continue
      }
      held[AttemptID(task: TaskID(task), assignment: assignment)] =
        switch fields[2].lowercased() {
        case "created", "configured", "initialized": .created
        case "exited", "dead", "stopped", "removing": .ended
        case "paused": .paused
        default: .running
        }
    }
    return held
  }

  // MARK: What the engine knows

  /// Nil: there is no such container. Waits while the engine is away.
  private func look(at attempt: AttemptID) async throws(ExecutionFailure) -> Inspection? {
    if let seen = over[attempt] { return seen }
    while true {
      if let seen = await inspect(name(attempt)) { return seen }
      if Task.isCancelled { throw ExecutionFailure(.canceled, "waiting for attempt \(attempt) was given up") }
      try? await Task.sleep(for: .milliseconds(300))
    }
  }

  /// Waits until the container has ended, through restarts of the engine.
  private func end(of attempt: AttemptID) async throws(ExecutionFailure) -> Inspection {
    deaths.listen()
    // What this object started is told by the events; of others the past has to be looked up.
    var told = started.contains(attempt)
    while true {
      if let seen = over[attempt], seen.code != 137 || seen.outOfMemory { return seen }
      if told { await deaths.wait(for: name(attempt)) }
      guard let seen = try await look(at: attempt) else {
        throw ExecutionFailure(.engine, "the container \(name(attempt)) was removed by somebody else")
      }
      if seen.isOver {
        var seen = seen
        if seen.code == 137, !seen.outOfMemory {
          // The engine's word that memory ran out may come a moment after its word that the command was killed.
          if !deaths.ranOutOfMemory(name(attempt)) { try? await Task.sleep(for: .milliseconds(300)) }
          seen.outOfMemory = deaths.ranOutOfMemory(name(attempt))
        }
        over[attempt] = seen
        return seen
      }
      if told {
        deaths.doubt(name(attempt))
        // An event that outran the engine's own books, or a false alarm.
        try? await Task.sleep(for: .milliseconds(20))
      }
      told = true
    }
  }

  // MARK: Output

  package nonisolated func output(
    of attempt: AttemptID, from offsets: LogOffsets
  ) -> AsyncThrowingStream<OutputChunk, any Error> {
    let output = ContainerOutput { [self] pieces in
      do {
        try await follow(attempt, from: offsets, into: pieces)
        pieces.finish()
      } catch {
        pieces.finish(throwing: error)
      }
    }
    return AsyncThrowingStream { try await output.next() }
  }

  private func follow(
    _ attempt: AttemptID, from offsets: LogOffsets, into pieces: ContainerOutput.Pieces
  ) async throws {
    let reading = LogReading(tool: tool, container: name(attempt))
    var reached = offsets
    // The log of a container that never started is followed for ever: look first, unless it was seen to start.
    if !started.contains(attempt) {
      while true {
        guard let seen = try await look(at: attempt) else {
          throw ExecutionFailure(.engine, "the container \(name(attempt)) is not there: its output is lost")
        }
        if seen.isUnstartable {
          let words = Array("scitq: \(seen.error)\n".utf8)
          if offsets.err < words.count {
            let rest = Array(words[Int(offsets.err)...])
            await pieces.put(OutputChunk(stream: .err, offset: offsets.err, bytes: rest))
          }
          return
        }
        if seen.status != .created { break }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    while true {
      let wasOver = over[attempt] != nil
      let end = try await reading.run(from: reached, follow: !wasOver, into: pieces)
      reached = end.offsets
      try Task.checkCancellation()
      if end.orderly, wasOver { return }
      guard let seen = try await look(at: attempt) else {
        throw ExecutionFailure(
          .engine, "the container \(name(attempt)) was removed while its output was read")
      }
      if seen.isOver {
        // Docker may end what is followed before its last bytes: they are there once the end is booked, and read
        // by a last pass that follows nothing.
        over[attempt] = seen
      } else if end.orderly {
        // It closes the log a moment before it books the end.
        try await Task.sleep(for: .milliseconds(50))
      }
      if !end.orderly { try await Task.sleep(for: .milliseconds(300)) }
    }
  }
}
