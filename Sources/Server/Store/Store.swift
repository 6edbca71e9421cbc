import GRDB
import Logging
import ScitqProtocol
import SystemPackage

/// The database under the data directory: one writer, which is the engine's, and snapshot readers that never wait for it.
struct Store: Sendable {
  let pool: DatabasePool
  let path: FilePath

  init(directory: FilePath) throws {
    path = directory.appending("scitq.db")
    var configuration = GRDB.Configuration()
    configuration.foreignKeysEnabled = true
    configuration.maximumReaderCount = 8
    configuration.busyMode = .timeout(10)
    configuration.prepareDatabase { db in
      // An answered call is on disk, also after a cut of power.
      try db.execute(sql: "PRAGMA synchronous = FULL")
      // 64 MiB of pages.
      try db.execute(sql: "PRAGMA cache_size = -65536")
    }
    pool = try DatabasePool(path: path.string, configuration: configuration)
    try Schema.migrator.migrate(pool)
  }

  /// What has a name is read from a snapshot.
  func read<T: Sendable>(_ body: @Sendable @escaping (Database) throws -> T) async throws -> T {
    try await pool.read(body)
  }

  /// One transaction. For the engine alone.
  func write<T: Sendable>(_ body: @Sendable @escaping (Database) throws -> T) async throws -> T {
    try await pool.write(body)
  }
}

extension Database {
  func task(_ id: TaskID) throws -> TaskRow? {
    let statement = try HotStatement(self, "SELECT \(TaskRow.selection) FROM task WHERE id = ?")
    statement.bind(id.rawValue)
    var found: TaskRow?
    try statement.each { found = TaskRow($0) }
    return found
  }

  /// The task, or the newest attempt that took its place.
  func newestAttempt(_ id: TaskID) throws -> TaskRow? {
    var row = try task(id)
    while let next = row?.next { row = try task(next) }
    return row
  }

  /// What a task was made to wait for, met or not.
  func prerequisites(of id: TaskID) throws -> [TaskID] {
    let statement = try HotStatement(
      self, "SELECT prerequisite_id FROM dependency WHERE task_id = ? ORDER BY prerequisite_id")
    statement.bind(id.rawValue)
    var found: [TaskID] = []
    try statement.each { row in
      var row = row
      found.append(TaskID(row.integer()))
    }
    return found
  }
}
