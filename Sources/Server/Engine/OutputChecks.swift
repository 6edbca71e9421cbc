import Logging
import ScitqProtocol
import ServiceLifecycle
import Transfer

/// Looks whether the outputs of tasks exist that are to be skipped then: beside the engine, which never waits for a
/// store, and takes what was found as a command like any other.
struct OutputChecks: Service {
  private let store: Store
  private let transfer: Transfer
  private let logger: Logger
  private let engine: Engine
  private let queue: AsyncStream<TaskID>
  /// Looked at side by side.
  private static let width = 8

  init(store: Store, transfer: Transfer, engine: Engine, queue: AsyncStream<TaskID>, logger: Logger) {
    self.store = store
    self.transfer = transfer
    self.engine = engine
    self.queue = queue
    self.logger = logger
  }

  func run() async throws {
    await cancelWhenGracefulShutdown {
      await withTaskGroup(of: Void.self) { group in
        var running = 0
        for await task in queue {
          if running == Self.width { await group.next() } else { running += 1 }
          group.addTask { await look(at: task) }
        }
      }
    }
  }

  private func look(at id: TaskID) async {
    let place: String
    do {
      guard let spec = try await store.read({ db in try TaskQueries(db: db).task(id)?.spec }) else { return }
      place = spec.publish.isEmpty ? spec.output : spec.publish
    } catch {
      logger.error("the database cannot be read", metadata: ["error": "\(error)"])
      return engine.send(.checked(id, existing: nil))
    }
    var existing: String?
    do throws(TransferFailure) {
      let uri = try TransferURI.parseOutput(place)
      if try await !transfer.list(uri).isEmpty { existing = uri.description }
    } catch {
      if error.reason == .canceled { return }
      // It is run: that costs time, and saying that it has succeeded could cost a result.
      if error.reason != .inputMissing {
        logger.warning("task \(id) is run, since nobody can say whether its output exists: \(error.message)")
      }
    }
    engine.send(.checked(id, existing: existing))
  }
}
