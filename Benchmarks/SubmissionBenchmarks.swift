import Foundation
import GRDBSQLite
import ScitqProtocol

/// Many tasks in one call, durable when it is answered.
struct BulkBenchmark {
  let rounds: Int
  private let count = 100_000

  func run() async throws {
    let report = Report(
      "bulk: \(count) tasks, each with its own command, in one call; floor: as many rows in SQLite")
    var rates: [Double] = []
    var floors: [Double] = []
    try await Installation.run { installation in
      let connection = try await installation.connect()
      for round in 0..<rounds {
        floors.append(
          try SQLiteFloor.rows(
            count, transactionsOf: 1000, in: installation.folder.appending(path: "\(round).db")))
        let tasks = newTasks(count, command: "echo task number", distinct: true)
        let time = try await timed { _ = try await connection.create(tasks) }
        rates.append(Double(count) / time.seconds)
      }
      await connection.close()
    }
    report.figure("accepted and durable", rates, unit: "tasks/s", floor: floors, goal: "50,000/s")
  }
}

/// One task a call, from many connections at once, each durable when it is answered.
struct SingleBenchmark {
  let rounds: Int
  private let connections = 64
  private let each = 200

  func run() async throws {
    let report = Report(
      "single: one task a call from \(connections) connections; floor: single rows in SQLite, one after the other"
    )
    var rates: [Double] = []
    var floors: [Double] = []
    try await Installation.run { installation in
      var open: [Connection] = []
      for _ in 0..<connections { open.append(try await installation.connect()) }
      let total = connections * each
      for round in 0..<rounds {
        floors.append(
          try SQLiteFloor.rows(
            total, transactionsOf: 1, in: installation.folder.appending(path: "\(round).db")))
        let time = try await timed {
          try await withThrowingTaskGroup(of: Void.self) { group in
            for connection in open {
              group.addTask {
                for number in 0..<each {
                  _ = try await connection.create(newTasks(1, command: "echo task number \(number)"))
                }
              }
            }
            try await group.waitForAll()
          }
        }
        rates.append(Double(total) / time.seconds)
      }
      for connection in open { await connection.close() }
    }
    report.figure("calls answered", rates, unit: "/s", floor: floors, goal: "5,000/s")
  }
}

/// What SQLite alone does with rows of a task's size, as durably as the server asks for.
enum SQLiteFloor {
  /// Rows a second.
  static func rows(_ count: Int, transactionsOf size: Int, in file: URL) throws -> Double {
    var handle: OpaquePointer?
    guard sqlite3_open(file.path, &handle) == SQLITE_OK, let db = handle else {
      throw Trouble("no database can be made at \(file.path)")
    }
    defer { sqlite3_close(db) }
    for statement in [
      "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
      "CREATE TABLE task (id INTEGER PRIMARY KEY, status TEXT, priority INTEGER, spec TEXT, created_at INTEGER)",
    ] { try run(db, statement) }
    var insert: OpaquePointer?
    guard sqlite3_prepare_v2(db, "INSERT INTO task VALUES (?, 'P', 0, ?, ?)", -1, &insert, nil) == SQLITE_OK
    else { throw Trouble("the statement of the floor cannot be prepared") }
    defer { sqlite3_finalize(insert) }
    let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
    let start = ContinuousClock.now
    for row in 0..<count {
      if row % size == 0 { try run(db, "BEGIN") }
      sqlite3_bind_int64(insert, 1, Int64(row))
      sqlite3_bind_text(insert, 2, "echo task number \(row)", -1, transient)
      sqlite3_bind_int64(insert, 3, 1_700_000_000_000_000)
      guard sqlite3_step(insert) == SQLITE_DONE else { throw Trouble("a row of the floor cannot be written") }
      sqlite3_reset(insert)
      if row % size == size - 1 || row == count - 1 { try run(db, "COMMIT") }
    }
    return Double(count) / (ContinuousClock.now - start).seconds
  }

  private static func run(_ db: OpaquePointer, _ statement: String) throws {
    guard sqlite3_exec(db, statement, nil, nil, nil) == SQLITE_OK else {
      throw Trouble("\(statement): \(String(cString: sqlite3_errmsg(db)))")
    }
  }
}
