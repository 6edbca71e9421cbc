import Logging
import ScitqProtocol
import SwiftProtobuf
import Synchronization
import SystemPackage
import Testing
import Transfer

@testable import ScitqWorker

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// One agent over a store, an engine and a server that may outlive it.
struct World {
  let folder: FilePath
  let server: FakeServer
  let agent: Agent
  let journal: Journal

  init(
    _ folder: FilePath, _ server: FakeServer, _ engine: any ExecutionEngine, token: String? = "join",
    eviction: EvictionWatch? = nil, endsAt: Int64 = 0, isBatchJob: Bool = false
  ) throws {
    self.folder = folder
    self.server = server
    let store = StorePaths(folder.appending("store"))
    try store.make()
    var identity = WireWorkerIdentity()
    identity.host.cpu = 8
    identity.host.memoryBytes = 8 << 30
    identity.concurrency = server.state.withLock { $0.settings.concurrency }
    identity.endsAt = endsAt
    journal = try Journal(at: store.journal, logger: quiet)
    agent = Agent(
      Agent.Setup(
        store: store, identity: identity,
        engines: Engines(container: nil, process: engine, names: ["bare"]),
        transfer: Transfer(remotes: Remotes([:]), directory: store.transfer, logger: quiet), journal: journal,
        enrolment: try Enrolment(store: store, token: token), logger: quiet, eviction: eviction,
        isBatchJob: isBatchJob, connect: server.connector))
  }
}

/// Runs an agent for the length of `body`, then makes it go at once.
func withAgent(
  _ folder: FilePath, _ server: FakeServer, _ engine: any ExecutionEngine,
  _ body: (World) async throws -> Void
) async throws {
  let world = try World(folder, server, engine)
  let running = Task { await world.agent.run() }
  do {
    try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
    try await body(world)
  } catch {
    await world.agent.abandon()
    running.cancel()
    throw error
  }
  await world.agent.abandon()
  #expect(await world.agent.waitForEnding() == .abandoned)
  await world.journal.close()
  running.cancel()
  // The next agent is not to be taken for connected because this one still was.
  server.cut()
  #expect(server.state.withLock { $0.trouble } == [])
}
