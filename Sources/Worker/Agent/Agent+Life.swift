import Logging
import ScitqProtocol
import Transfer

/// How an attempt goes from state to state.
extension Agent {
  /// Why an attempt does not go on.
  enum Stop: Error {
    case revoked
    /// The agent itself ends; the attempt stays as it is for the next one.
    case closing
    case failed(FailureReason, String)
  }

  /// How the command ended.
  struct Verdict: Sendable {
    var status: TaskStatus
    var reason: FailureReason?
    var message = ""
    var exitCode: Int32?
  }

  func drive(_ id: AttemptID) async {
    guard let attempt = attempts[id] else { return }
    do {
      switch attempt.resume ?? .fresh {
      case .fresh: try await start(attempt)
      case .running:
        if attempt.status.isBeforeStart { report(attempt, .running) }
        try await watch(attempt)
      case .gone:
        let gone = Verdict(
          status: .uploadingFailed, reason: .workerLost,
          message: "its process was gone when the agent came back")
        report(attempt, gone)
        try await conclude(attempt, gone)
      case .concluding(let isHeld):
        if isHeld { await follow(id) }
        try await conclude(attempt, Verdict(attempt.lastReport))
      }
    } catch {
      await stop(attempt, error)
    }
    attempt.isDriven = false
    attempt.interrupt = nil
    if attempt.isDone || attempt.revocation == .kill, ending == nil { await clean([id]) }
  }

  // MARK: Before the command

  private func start(_ attempt: Attempt) async throws(Stop) {
    let id = attempt.id
    try check(attempt)
    // A killed agent may have had the order on disk and not yet this.
    if attempt.status == .assigned { report(attempt, .accepted) }
    guard let engine = attempt.engine else {
      throw .failed(
        .refused,
        "this worker runs no containers (--engine bare), and the task wants \(attempt.spec.container)")
    }
    if let word = ContainerOptions.refused(
      attempt.spec.containerOptions, allowed: settings.allowedContainerOptions)
    {
      throw .failed(
        .refused,
        "the container option \(word) is not allowed; the server's configuration lists those that are")
    }
    let launch = Launch(attempt, settings: settings, host: setup.identity.host)
    if attempt.wantsStaging {
      try await stage(attempt, launch, engine)
    }
    if attempt.wantsStaging || !gate.enter(id, attempt.load) {
      let folders = attempt.folders
      do { try await Self.prepare(launch, folders, stager.spares, engine) } catch { throw Stop(error) }
      try check(attempt)
      if !gate.enter(id, attempt.load) {
        if attempt.status != .onHold { report(attempt, .onHold) }
        gate.wait(id, attempt.load, priority: attempt.order.priority)
        admitWaiting()
        try await wait(attempt, revokedBy: .cancel) { self.gate.running[id] != nil }
      }
      try check(attempt)
      do { try await engine.start(launch) } catch { throw Stop(error) }
    } else {
      // Nothing to bring and a slot is free: one errand does it all.
      do { try await Self.prepareAndStart(launch, attempt.folders, stager.spares, engine) } catch {
        throw Stop(error)
      }
    }
    // A wish that came while it was being started is met now.
    try check(attempt)
    report(attempt, .running)
    try await watch(attempt)
  }

  private func stage(_ attempt: Attempt, _ launch: Launch, _ engine: any ExecutionEngine) async throws(Stop) {
    if let place = stagingPlaces.take() {
      // Woken with the place, or without it when the wish for the task is withdrawn.
      attempt.interrupt = place.wakeup
      await place.wakeup.wait()
      attempt.interrupt = nil
      if attempt.revocation != nil || ending != nil {
        if !stagingPlaces.abandon(place.number) { stagingPlaces.giveBack() }
        throw attempt.revocation != nil ? .revoked : .closing
      }
    }
    defer { stagingPlaces.giveBack() }
    // One that an earlier agent had made ready is made ready again, and stands where it stood.
    if attempt.status == .accepted { report(attempt, .downloading) }
    let id = attempt.id
    let spec = attempt.spec
    let folders = attempt.folders
    let stager = stager
    let offers = attempt.order.kept
    let isRestored = attempt.isRestored
    let staged = try await interruptible(attempt, limit: spec.downloadTimeoutMs, phase: "download") {
      // An earlier agent may have been killed half-way.
      if isRestored { await stager.clear(id, folders, [], hadFiles: false) }
      do { try folders.make(stager.spares) } catch { throw ExecutionFailure(staging: error) }
      async let image: Void = engine.prepare(launch)
      let staged = try await stager.stage(id, spec, folders, offers: offers)
      do { try await image } catch {
        for lease in staged.leases { await stager.cache.release(lease) }
        throw error
      }
      return staged
    }
    attempt.leases = staged.leases
    attempt.inputs = staged.inputs
  }

  private nonisolated static func prepare(
    _ launch: Launch, _ folders: TaskFolders, _ spares: SpareFolders, _ engine: any ExecutionEngine
  ) async throws(ExecutionFailure) {
    do { try folders.make(spares) } catch { throw ExecutionFailure(staging: error) }
    try await engine.create(launch)
  }

  private nonisolated static func prepareAndStart(
    _ launch: Launch, _ folders: TaskFolders, _ spares: SpareFolders, _ engine: any ExecutionEngine
  ) async throws(ExecutionFailure) {
    try await prepare(launch, folders, spares, engine)
    try await engine.start(launch)
  }

  // MARK: The command and after

  private func watch(_ attempt: Attempt) async throws(Stop) {
    let id = attempt.id
    guard let engine = attempt.engine else { throw .closing }
    if attempt.revocation != nil { spawn(.kill(id)) }
    attempt.suspension.isPossible = true
    settle(attempt)
    async let following: Void = follow(id)
    let verdict: Verdict
    do {
      let exit = try await exit(attempt, engine)
      attempt.isQuiet = !exit.leftProcesses
      verdict = await self.verdict(on: exit, of: attempt)
    } catch {
      verdict = Verdict(status: .uploadingFailed, reason: error.reason, message: error.message)
    }
    let at = Clock.microseconds()
    attempt.suspension.isPossible = false
    leaveGate(id)
    if ending != nil, Task.isCancelled { throw .closing }
    // What printed nothing has nothing to hand over: its end and its outcome travel together.
    if attempt.logs.isEmpty, attempt.revocation == nil { await following }
    if attempt.revocation != nil {
      // Its last words belong to a canceled task too, and come when nothing of it is left.
      await engine.kill(id, grace: grace(of: attempt))
      if attempt.revocation == .cancel { await following }
      throw .revoked
    }
    report(attempt, verdict, at: at)
    await following
    try await conclude(attempt, verdict)
  }

  /// Waits for the end; kills what takes longer than its limit.
  private func exit(_ attempt: Attempt, _ engine: any ExecutionEngine) async throws(ExecutionFailure) -> Exit
  {
    let id = attempt.id
    let limit = attempt.spec.runTimeoutMs
    guard limit > 0, !attempt.hadEnded else { return try await engine.exit(of: id) }
    let grace = grace(of: attempt)
    let exit = await withTaskGroup(of: Result<Exit, ExecutionFailure>?.self) { group in
      group.addTask {
        do throws(ExecutionFailure) { return .success(try await engine.exit(of: id)) } catch {
          return .failure(error)
        }
      }
      group.addTask {
        guard await self.untilItHasRun(id, milliseconds: limit) else { return nil }
        await engine.kill(id, grace: grace)
        return nil
      }
      var exit: Result<Exit, ExecutionFailure>?
      while exit == nil, let next = await group.next() { exit = next }
      group.cancelAll()
      return exit
    }
    // Told to end, a command may end well: it was told because it took too long.
    guard let exit, !attempt.isOverdue else {
      throw ExecutionFailure(.timeout, "the run took longer than its limit of \(Self.span(limit))")
    }
    return try exit.get()
  }

  /// From `U` or `V` to the end: the outputs, once the server wants them from this attempt; the logs; the report.
  private func conclude(_ attempt: Attempt, _ verdict: Verdict) async throws(Stop) {
    var uploads: [Upload] = []
    var uploadFailure: (FailureReason, String)?
    let places = attempt.destinations(succeeded: verdict.status == .uploading)
    if !places.isEmpty, !Files.names(in: attempt.folders.launch.output).isEmpty {
      try await wait(attempt, revokedBy: .cancel) { attempt.isGranted }
      let spec = attempt.spec
      let folders = attempt.folders
      let stager = stager
      do {
        uploads = try await interruptible(attempt, limit: spec.uploadTimeoutMs, phase: "upload") {
          try await stager.upload(places, folders)
        }
      } catch Stop.failed(let reason, let message) {
        uploadFailure = (reason == .timeout ? .timeout : .upload, message)
      }
    }
    let kept = uploadFailure == nil ? await gather(attempt, uploads, verdict) : nil
    try await wait(attempt, revokedBy: .cancel) { attempt.logs.isDelivered }
    try check(attempt)
    report(attempt, verdict.status == .uploading && uploadFailure == nil ? .succeeded : .failed) { report in
      if let code = verdict.exitCode {
        report.hasExitCode_p = true
        report.exitCode = code
      }
      if let reason = verdict.reason {
        report.reason = reason.rawValue
        report.message = verdict.message
        if let uploadFailure { report.message += "; its outputs could not be uploaded: \(uploadFailure.1)" }
      } else if let uploadFailure {
        report.reason = uploadFailure.0.rawValue
        report.message = "its outputs could not be uploaded: \(uploadFailure.1)"
      }
      report.outputs = Self.listed(uploads.flatMap(\.files))
    }
    // Not before the report: an agent that was killed in between would upload an empty folder.
    if let kept { stager.kept.keep(attempt.id, kept, from: attempt.folders.launch.output) }
  }

  /// What others are going to read here of the outputs, if they were uploaded as they should be.
  private func gather(_ attempt: Attempt, _ uploads: [Upload], _ verdict: Verdict) async
    -> KeptOutputs.Gathered?
  {
    guard attempt.order.keepOutputs, verdict.status == .uploading, !uploads.isEmpty,
      let ended = attempt.lastReport
    else { return nil }
    return await stager.kept.gather(attempt.folders.launch.output, uploads, endedAt: ended.at)
  }

  /// As many as one frame can carry beside the rest.
  static func listed(_ outputs: [MovedFile]) -> [WireTransferredFile] {
    var room = 4 << 20
    return outputs.prefix { file in
      room -= file.uri.utf8.count + file.hash.utf8.count + 24
      return room > 0
    }.map(WireTransferredFile.init)
  }

  // MARK: Other ends

  private func stop(_ attempt: Attempt, _ why: Stop) async {
    let id = attempt.id
    leaveGate(id)
    switch why {
    case .closing: return
    case .failed(let reason, let message):
      if attempt.revocation != nil { return await stop(attempt, .revoked) }
      report(attempt, .failed) {
        $0.reason = reason.rawValue
        $0.message = message
      }
    case .revoked:
      // Nothing of it may be left running when this is said.
      await attempt.engine?.kill(id, grace: grace(of: attempt))
      guard attempt.revocation == .cancel else { return }
      do {
        try await wait(attempt, revokedBy: .kill) { attempt.logs.isDelivered }
      } catch { return }
      report(attempt, .canceled) {
        $0.reason = FailureReason.canceled.rawValue
        $0.message = "canceled"
      }
    }
  }

  /// What the server no longer wants. `atOnce`: what runs is not given time to end by itself.
  func revoke(_ attempt: Attempt, _ how: Attempt.Revocation, atOnce: Bool = false) {
    if attempt.status.isFinal, how == .cancel { return }
    if atOnce, !attempt.isAtOnce {
      attempt.isAtOnce = true
      // One who thought again: the grace that is running ends here.
      if attempt.revocation != nil, attempt.isDriven { spawn(.kill(attempt.id)) }
    }
    guard attempt.revocation.map({ $0 < how }) ?? true else { return }
    attempt.revocation = how
    if how == .kill { forgetWords(of: attempt.id) }
    if attempt.isDriven {
      if attempt.status == .running || attempt.status == .suspended { spawn(.kill(attempt.id)) }
      attempt.interrupt?.wake()
    } else if how == .kill, attempt.status.isFinal || attempt.isRestored {
      // Nobody drives it: it waited for the server, or for its engine to be asked.
      spawn(.kill(attempt.id))
      spawn(.clean([attempt.id]))
    } else {
      launch(attempt)
    }
  }

  /// Removes what is left of attempts that are over, and forgets them.
  func clean(_ ids: [AttemptID]) async {
    let over = ids.compactMap { attempts[$0] }.filter { !$0.isDriven }.map {
      Over(
        id: $0.id, engine: $0.engine, folders: $0.folders, leases: $0.leases, hadFiles: $0.wantsStaging,
        isQuiet: $0.isQuiet, kill: $0.revocation == .kill ? grace(of: $0) : nil)
    }
    await Self.remove(over, stager)
    for one in over where attempts.removeValue(forKey: one.id) != nil {
      setup.journal.append(.forgotten(one.id))
    }
    checkDrained()
  }

  /// Removes what no task here uses, because a person asked for it, and says what it was.
  func cleanStore(_ number: Int64, _ link: any ServerLink) async {
    // Looked for first: the folder of an attempt that comes meanwhile is none of them.
    let names = await stager.folders()
    let known = Set(attempts.keys.map(\.description))
    let (bytes, removed) = await stager.clean(strays: names.filter { !known.contains($0) })
    var answer = WireCleaned()
    answer.number = number
    answer.freedBytes = bytes
    answer.removed = UInt32(clamping: removed)
    // Whoever asked is told by the server when no answer comes.
    _ = try? await link.call(.cleaned, answer)
  }

  private struct Over: Sendable {
    var id: AttemptID
    var engine: (any ExecutionEngine)?
    var folders: TaskFolders
    var leases: [ResourceCache.Lease]
    var hadFiles: Bool
    var isQuiet: Bool
    var kill: Duration?
  }

  private nonisolated static func remove(_ over: [Over], _ stager: Stager) async {
    for one in over {
      if let grace = one.kill { await one.engine?.kill(one.id, grace: grace) }
      await one.engine?.remove(one.id)
      await stager.clear(one.id, one.folders, one.leases, hadFiles: one.hadFiles, isQuiet: one.isQuiet)
    }
  }
}
