import GRDB
import Logging
import ScitqProtocol
import ServiceLifecycle

/// Forgets what has ended long ago, in batches that hold up nobody.
///
/// Tasks without a step go one by one, those of a workflow with the whole of it. What somebody still waits for stays.
struct Retention: Service {
  private let store: Store
  private let engine: Engine
  private let configuration: Configuration.Retention
  private let logger: Logger
  /// Rows at a time.
  private static let batch = 500

  init(store: Store, engine: Engine, configuration: Configuration.Retention, logger: Logger) {
    self.store = store
    self.engine = engine
    self.configuration = configuration
    self.logger = logger
  }

  func run() async throws {
    try? await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        do { try await prune(at: microsecondsNow()) } catch {
          logger.error("what is old could not be pruned", metadata: ["error": "\(error)"])
        }
        try await Task.sleep(for: configuration.interval)
      }
    }
  }

  func prune(at now: Int64) async throws {
    try await engine.write { db in
      try db.execute(
        sql: "DELETE FROM idempotency WHERE created_at < ?", arguments: [now - Self.keysAreKept.microseconds])
    }
    if let keep = configuration.keepFinishedFor {
      let limit = now - keep.microseconds
      while try await pruneTasks(endedBefore: limit) {}
      try await pruneWorkflows(endedBefore: limit)
    }
    if let keep = configuration.keepEventsFor {
      let limit = now - keep.microseconds
      while try await pruneEvents(before: limit) {}
    }
  }

  /// How long the key of a submission is known, so that it is not done twice.
  private static let keysAreKept = Duration.seconds(7 * 86_400)

  private func pruneTasks(endedBefore limit: Int64) async throws -> Bool {
    let tasks = try await store.read { db in
      try Int64.fetchAll(
        db,
        sql: """
          SELECT id FROM task WHERE step_id IS NULL AND ended_at < ? AND status IN ('S', 'F', 'X')
            AND (hidden = 1 OR NOT EXISTS (
              SELECT 1 FROM dependency JOIN task AS waiting ON waiting.id = dependency.task_id
              WHERE dependency.met = 0 AND dependency.prerequisite_id IN (task.id, task.job_id)
                AND waiting.status IN ('I', 'W', 'Z')))
          LIMIT \(Self.batch)
          """, arguments: [limit]
      ).map { TaskID($0) }
    }
    if tasks.isEmpty { return false }
    try await engine.prune(tasks)
    return tasks.count == Self.batch
  }

  private func pruneWorkflows(endedBefore limit: Int64) async throws {
    let workflows = try await store.read { db in
      try Int64.fetchAll(
        db,
        sql: """
          SELECT workflow.id FROM workflow WHERE EXISTS (
              SELECT 1 FROM task JOIN step ON step.id = task.step_id WHERE step.workflow_id = workflow.id)
            AND NOT EXISTS (
              SELECT 1 FROM task JOIN step ON step.id = task.step_id WHERE step.workflow_id = workflow.id
                AND (task.ended_at IS NULL OR task.ended_at >= ?))
          """, arguments: [limit])
    }
    for id in workflows {
      var request = WireActOnWorkflow()
      request.id = id
      request.verb = .delete
      let asked = request
      do throws(CallError) {
        let _: Int64 = try await engine.ask { .flow(.actOnWorkflow(asked), by: .server, $0) }
        logger.notice("workflow \(id) has ended long ago and was deleted")
      } catch {
        logger.notice("workflow \(id) has ended long ago and stays: \(error.message)")
      }
    }
  }

  private func pruneEvents(before limit: Int64) async throws -> Bool {
    let last = try await store.read { db in
      try Row.fetchOne(
        db,
        sql:
          "SELECT max(sequence) AS last, count(*) AS count FROM (SELECT sequence, at FROM event ORDER BY sequence LIMIT ?) WHERE at < ?",
        arguments: [Self.batch * 10, limit]
      ).map { (last: $0["last"] as Int64?, count: $0["count"] as Int) }
    }
    guard let last, let sequence = last.last else { return false }
    try await engine.write { db in
      try db.execute(sql: "DELETE FROM event WHERE sequence <= ?", arguments: [sequence])
    }
    return last.count == Self.batch * 10
  }
}
