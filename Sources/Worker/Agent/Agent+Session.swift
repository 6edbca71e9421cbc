import Logging
import NIOCore
import NIOPosix
import ScitqProtocol
import SwiftProtobuf
import Transfer

/// The conversation with the server: kept up for as long as there is an agent. Tasks go on without it.
extension Agent {
  func stayConnected() async {
    var pause = Backoff()
    var wasConnected = false
    var wasSaid = false
    while ending == nil {
      do {
        let (pushes, pushed) = AsyncStream.makeStream(of: Pushed.self)
        let link = try await setup.connect(hello()) { pushed.yield($0) }
        try greet(link.welcome)
        wasConnected = true
        wasSaid = false
        let why = await converse(link, pushes) { pause = Backoff() }
        if ending != nil { return }
        logger.warning("the connection to the server ended\(why.map { ": \($0.message)" } ?? "")")
        // Somebody deleted it while it was here: it is not to come back by itself.
        if why?.code == .unauthenticated {
          await giveUpWhatRuns()
          return end(.left)
        }
      } catch {
        if await isHopeless(error, wasConnected: wasConnected) { return }
        if !wasSaid { logger.warning("\(error.message); tried again until the server can be reached") }
        wasSaid = true
      }
      checkDrained()
      if ending != nil { return }
      try? await Task.sleep(for: pause.next())
    }
  }

  private func hello() -> WireHello {
    var hello = WireHello()
    hello.role = .worker
    hello.worker = setup.identity
    if let credential = enrolment.credential {
      hello.workerCredential = credential
    } else if let token = enrolment.joinToken {
      hello.joinToken = token
    }
    return hello
  }

  private func greet(_ welcome: WireWelcome) throws(CallError) {
    let worker = welcome.worker
    if !worker.credential.isEmpty {
      do { try enrolment.keep(credential: worker.credential) } catch {
        throw CallError(.unavailable, "the worker's credential cannot be kept: \(error)")
      }
      logger.notice("joined as worker \(worker.workerID), \(worker.name)")
    } else {
      logger.notice("connected as worker \(worker.workerID), \(worker.name)")
    }
    apply(worker.settings)
  }

  private func apply(_ fresh: WireWorkerSettings) {
    settings = fresh
    if settings.beatIntervalMs == 0 { settings.beatIntervalMs = 5000 }
    if settings.leaseMs == 0 { settings.leaseMs = 60_000 }
    gate.slots = Double(settings.concurrency)
    stagingPlaces.resize(to: Self.stagingWidth(settings))
    admitWaiting()
  }

  /// Whether trying again would never help; the agent has its ending then.
  private func isHopeless(_ error: CallError, wasConnected: Bool) async -> Bool {
    switch error.code {
    case .unauthenticated where enrolment.credential != nil:
      if wasConnected {
        // The same server took this credential before: the worker was deleted, and its tasks with it.
        await giveUpWhatRuns()
        wasDeleted = true
      }
      if attempts.isEmpty, enrolment.joinToken != nil {
        enrolment.dropCredential()
        return false
      }
      let held = attempts.isEmpty ? "" : "; \(attempts.count) attempts are still held in \(setup.store.root)"
      end(.refused("the server no longer knows this worker (\(error.message))\(held)"))
      return true
    // With the ticket of a rented host there is no coming back: that is how the host is returned.
    case .unauthenticated where wasDeleted && attempts.isEmpty:
      end(.left)
      return true
    case .unauthenticated, .forbidden:
      end(.refused("the server refuses this worker: \(error.message)"))
      return true
    case .invalid, .conflict, .notFound:
      if wasConnected || !attempts.isEmpty { return false }
      end(.refused(error.message))
      return true
    default:
      return false
    }
  }

  private func giveUpWhatRuns() async {
    logger.warning("the server has deleted this worker; what it was doing is ended")
    for attempt in attempts.values { revoke(attempt, .kill) }
    while !attempts.isEmpty, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(50)) }
  }

  /// One connection, until it ends. Why it did, or nil where this side ended it.
  private func converse(
    _ link: any ServerLink, _ pushes: AsyncStream<Pushed>, _ succeeded: () -> Void
  ) async -> CallError? {
    do {
      try await reconcile(link)
      succeeded()
    } catch {
      await link.close()
      return error
    }
    let why = await withTaskGroup(of: CallError?.self, returning: CallError?.self) { group in
      group.addTask { await link.waitUntilClosed() }
      group.addTask {
        do throws(CallError) { try await self.deliverReports(link) } catch { return error }
        return nil
      }
      group.addTask {
        do throws(CallError) { try await self.deliverLogs(link) } catch { return error }
        return nil
      }
      group.addTask {
        for await push in pushes { await self.take(push, link) }
        return nil
      }
      group.addTask {
        do throws(CallError) { try await self.beat(link) } catch { return error }
        return nil
      }
      group.addTask {
        do throws(CallError) { try await self.seeDraining(link) } catch { return error }
        return nil
      }
      let why = await group.next() ?? nil
      group.cancelAll()
      await link.close()
      return why
    }
    drainChanged = nil
    reportsWanted = nil
    logQueue.wanted = nil
    return why
  }

  private func reconcile(_ link: any ServerLink) async throws(CallError) {
    var request = WireReconcile()
    for attempt in attempts.values where !attempt.isDone && attempt.revocation != .kill {
      var held = WireHeldAttempt()
      held.taskID = attempt.id.task.rawValue
      held.assignment = attempt.id.assignment
      held.status = attempt.status.rawValue
      request.attempts.append(held)
    }
    let answer = try await link.call(.reconcile, request)
    let remotes = try await link.call(.workerRemotes, WireEmpty())
    await setup.transfer.update(remotes: Remotes(remotes), archive: PublicArchive(remotes))
    for reference in answer.kill + answer.forget {
      if let attempt = attempts[AttemptID(reference)] { revoke(attempt, .kill) }
    }
    wasReconciled = true
    let unsaid = Set(
      outgoing.filter {
        $0.status == TaskStatus.uploading.rawValue || $0.status == TaskStatus.uploadingFailed.rawValue
      }
      .map { AttemptID($0) })
    for attempt in attempts.values where attempt.revocation == nil {
      if attempt.status == .uploading || attempt.status == .uploadingFailed, !unsaid.contains(attempt.id) {
        // The server has the end of the command, and keeps the attempt: its outputs are wanted.
        attempt.isGranted = true
        attempt.interrupt?.wake()
      }
      if attempt.isRestored, attempt.resume == .fresh { launch(attempt) }
    }
  }

  private func take(_ push: Pushed, _ link: any ServerLink) async {
    switch push {
    case .clean(let clean): spawn(.cleanStore(clean.number, link))
    case .settings(let fresh): apply(fresh)
    case .revocations(let list):
      for one in list.revocations {
        guard let attempt = attempts[AttemptID(one.attempt)] else { continue }
        switch one.action {
        case .cancel: revoke(attempt, .cancel, atOnce: one.atOnce)
        case .kill: revoke(attempt, .kill)
        case .suspend: wish(attempt, suspended: true)
        case .resume: wish(attempt, suspended: false)
        case .unspecified, .UNRECOGNIZED:
          logger.warning("the server revokes task \(attempt.id.task) in a way this version does not know")
        }
      }
    case .orders(let list): await accept(list.orders)
    }
  }

  private func accept(_ orders: [WireTaskOrder]) async {
    if isDraining || ending != nil { return }
    var fresh: [Attempt] = []
    for order in orders {
      let id = AttemptID(order)
      guard attempts[id] == nil else { continue }
      let attempt = Attempt(id, order, store: setup.store, engines: setup.engines)
      attempts[id] = attempt
      let bytes: [UInt8] = (try? order.serializedBytes()) ?? []
      setup.journal.append(.order(id, bytes))
      report(attempt, .accepted)
      fresh.append(attempt)
    }
    // Nothing is started that a crash could make this agent forget.
    await setup.journal.flushed()
    for attempt in fresh { launch(attempt) }
  }

  /// Tells how the host is, and that somebody is here.
  private func beat(_ link: any ServerLink) async throws(CallError) {
    var sampler = HostSampler(store: setup.store.root)
    while !Task.isCancelled {
      let before = sampler
      let running = runningCount
      // Files of /proc and foreign disks may take their time.
      guard
        let (after, stats, warnings) = try? await NIOThreadPool.singleton.runIfActive({
          var sampler = before
          let (stats, warnings) = sampler.sample(running: running)
          return (sampler, stats, warnings)
        })
      else { return }
      sampler = after
      var request = WireBeat()
      request.stats = stats
      request.warnings = warnings + (departure.map { [$0] } ?? [])
      lastStats = stats
      let beat = request
      let answered = await withTaskGroup(of: Result<Void, CallError>.self) { group in
        let lease = Duration.milliseconds(settings.leaseMs)
        group.addTask {
          do throws(CallError) { _ = try await link.call(.beat, beat) } catch { return .failure(error) }
          return .success(())
        }
        group.addTask {
          try? await Task.sleep(for: lease)
          return .failure(CallError(.unavailable, "the server did not answer a beat within \(lease)"))
        }
        let first = await group.next() ?? .success(())
        group.cancelAll()
        return first
      }
      try answered.get()
      try? await Task.sleep(for: .milliseconds(settings.beatIntervalMs))
    }
  }

  /// Why the host goes, before the worker may be gone: the next beat may never come.
  private func sayDeparture(_ link: any ServerLink) async throws(CallError) {
    guard let departure else { return }
    var beat = WireBeat()
    if let lastStats { beat.stats = lastStats }
    beat.warnings = [departure]
    _ = try await link.call(.beat, beat)
  }

  /// While draining: what has not started is given back at once, and when nothing is left this agent says goodbye.
  private func seeDraining(_ link: any ServerLink) async throws(CallError) {
    var wasSaid = false
    while !Task.isCancelled {
      if isDraining {
        let isLast = attempts.isEmpty
        if !wasSaid { try await sayDeparture(link) }
        if !wasSaid || isLast {
          _ = try await link.call(.leave, WireEmpty())
          wasSaid = true
        }
        if isLast, attempts.isEmpty { return end(.left) }
      }
      let wakeup = Wakeup()
      drainChanged = wakeup
      // What changed during the call would not wake anybody.
      if isDraining, !wasSaid || attempts.isEmpty { continue }
      await wakeup.wait()
    }
  }
}
