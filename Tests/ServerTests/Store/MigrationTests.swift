import Foundation
import GRDB
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqServer

/// Databases of earlier versions, as real servers left them (`kill -9` while a task ran).
@Suite("Migrations")
struct MigrationTests {
  @Test("a database of the first schema is taken over whole, and the server goes on from there")
  func first() async throws {
    let directory = FilePath(NSTemporaryDirectory()).appending("scitq-migration-\(UUID().uuidString)")
    try FileManager.default.createDirectory(atPath: directory.string, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory.string) }
    let dump = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "schema1.sql")
    let old = try DatabaseQueue(path: directory.appending("scitq.db").string)
    let script = try String(contentsOf: dump, encoding: .utf8)
    try await old.writeWithoutTransaction { db in try db.execute(sql: script) }
    let before = try await old.read { db in try Self.rows(db) }
    try old.close()

    try await EngineWorld.run(at: directory) { world in
      let after = try await world.store.read { db in try Self.rows(db) }
      #expect(after == before)
      let roles = try await world.store.read { db in
        try String.fetchAll(db, sql: "SELECT username || ' ' || role FROM user ORDER BY id")
      }
      #expect(roles == ["admin admin", "bob user"])
      // What waited for a failed task still waits for it, what ran is still its worker's.
      #expect(try await world.status(4) == .waiting)
      #expect(try await world.row(6).worker == 1)
      let clone = try await world.retry(3)
      #expect(clone == 10)
      #expect(try await world.status(clone) == .pending)
      var worker = try await world.join("new")
      try await worker.say(try await worker.attempt(clone), .accepted, .running, .uploading, .succeeded)
      try await worker.say(try await worker.attempt(4), .accepted, .running, .uploading, .succeeded)
      try await world.settle()
      #expect(try await world.status(4) == .succeeded)
    }
  }

  @Test("of a database of the second schema every row of every table is there, in every column it had")
  func second() async throws {
    let directory = FilePath(NSTemporaryDirectory()).appending("scitq-migration-\(UUID().uuidString)")
    try FileManager.default.createDirectory(atPath: directory.string, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory.string) }
    let dump = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "schema2.sql")
    let old = try DatabaseQueue(path: directory.appending("scitq.db").string)
    let script = try String(contentsOf: dump, encoding: .utf8)
    try await old.writeWithoutTransaction { db in try db.execute(sql: script) }
    let columns = try await old.read { db in
      try String.fetchAll(
        db,
        sql: "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY 1"
      ).filter { $0 != "grdb_migrations" }.map { table in
        (table, try db.columns(in: table).map { "\"\($0.name)\"" }.joined(separator: ", "))
      }
    }
    let before = try await old.read { db in try Self.rows(columns, db) }
    try old.close()
    #expect(before.count > 100)

    try await EngineWorld.run(at: directory) { world in
      let after = try await world.store.read { db in try Self.rows(columns, db) }
      #expect(after == before)
      #expect(try await world.store.serverID().count == 8)
    }
  }

  private static func rows(_ columns: [(table: String, columns: String)], _ db: Database) throws -> [String] {
    try columns.flatMap { table, columns in
      try Row.fetchAll(db, sql: "SELECT \(columns) FROM \"\(table)\" ORDER BY \(columns)").map {
        "\(table): \($0)"
      }
    }
  }

  /// Everything that the first schema kept, as text, of every table.
  private static func rows(_ db: Database) throws -> [String] {
    let columns = [
      "task": """
      id, spec_id, name, owner_id, step_id, status, priority, weight_milli, place, unmet, worker_id, assignment,
      avoid_worker_id, retry, attempt, losses, previous_task_id, next_task_id, hidden, accept_failure,
      cancel_with_prerequisite, cancel_requested, unchecked, reason, message, exit_code, out_bytes, err_bytes, inputs,
      outputs, created_at, assigned_at, download_started_at, run_started_at, run_ended_at, ended_at
      """,
      "task_spec": """
      id, command, container, shell, inputs, resources, output, env, container_options, cpu, memory_bytes, disk_bytes,
      gpu, download_timeout_ms, run_timeout_ms, upload_timeout_ms, publish, publish_move, skip_if_exists
      """,
      "dependency": "task_id, prerequisite_id, met", "event": "*", "task_count": "*", "idempotency": "*",
      "session": "*", "outbox_ack": "*", "user": "id, username, email, password, created_at",
      "worker":
        "id, name, store_id, credential_hash, status, epoch, concurrency, prefetch, permanent, step_id",
    ]
    return try columns.keys.sorted().flatMap { table in
      try Row.fetchAll(db, sql: "SELECT \(columns[table] ?? "*") FROM \(table) ORDER BY 1, 2").map {
        "\(table) \($0.databaseValues)"
      }
    }
  }
}
