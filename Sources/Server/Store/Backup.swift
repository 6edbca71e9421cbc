import Foundation
import GRDB
import SystemPackage

/// A server in one file: a database with the rows of the server's own, and its few small files in a table beside them.
enum Backup {
  /// Makes a copy of a data folder, whose server may be running. It is of one moment, and whole or not there.
  ///
  /// - Returns: its size in bytes.
  static func make(of directory: FilePath, at file: FilePath) throws -> Int64 {
    let manager = FileManager.default
    let source = directory.appending("scitq.db")
    guard manager.fileExists(atPath: source.string) else {
      throw BackupProblem(
        "\(directory) holds no database; name the server's folder with --data-dir or --config")
    }
    guard !manager.fileExists(atPath: file.string) else {
      throw BackupProblem("\(file) exists already; name a file that does not")
    }
    let partial = FilePath(file.string + ".partial")
    try? manager.removeItem(atPath: partial.string)
    do {
      // It holds a private key: nobody else may read it, not for a moment.
      try PrivateFolder.write("", to: partial, mode: .ownerReadWrite)
      var configuration = GRDB.Configuration()
      configuration.readonly = true
      configuration.busyMode = .timeout(30)
      let from = try DatabaseQueue(path: source.string, configuration: configuration)
      let to = try DatabaseQueue(path: partial.string)
      // In one step: a read transaction, which no writer waits for, and which no writer starts anew.
      try from.backup(to: to)
      try to.write { db in
        try db.execute(sql: "CREATE TABLE backup_file (path TEXT PRIMARY KEY, content BLOB NOT NULL)")
        for path in try kept(in: directory) {
          let content = try Data(contentsOf: URL(filePath: directory.pushing(FilePath(path)).string))
          try db.execute(
            sql: "INSERT INTO backup_file (path, content) VALUES (?, ?)", arguments: [path, content])
        }
      }
      // All in the one file.
      try to.writeWithoutTransaction { db in _ = try String.fetchOne(db, sql: "PRAGMA journal_mode = DELETE")
      }
      try to.close()
      try from.close()
      let handle = try FileDescriptor.open(partial, .readWrite)
      try handle.closeAfter { guard fsync(handle.rawValue) == 0 else { throw Errno(rawValue: errno) } }
      try manager.moveItem(atPath: partial.string, toPath: file.string)
    } catch {
      try? manager.removeItem(atPath: partial.string)
      throw error
    }
    return (try manager.attributesOfItem(atPath: file.string))[.size] as? Int64 ?? 0
  }

  /// The small files beside the database, by their paths in the folder.
  private static func kept(in directory: FilePath) throws -> [String] {
    let tls = (try? FileManager.default.contentsOfDirectory(atPath: directory.appending("tls").string)) ?? []
    return ["join-token"].filter { FileManager.default.fileExists(atPath: directory.appending($0).string) }
      + tls.sorted().map { "tls/\($0)" }
  }

  /// Puts a backup into a folder that holds no database yet.
  static func restore(_ file: FilePath, to directory: FilePath) throws {
    let manager = FileManager.default
    guard manager.fileExists(atPath: file.string) else { throw BackupProblem("\(file) does not exist") }
    try PrivateFolder.make(directory)
    let lock = try DataLock(directory)
    defer { lock.release() }
    let target = directory.appending("scitq.db")
    guard !manager.fileExists(atPath: target.string) else {
      throw BackupProblem("\(directory) holds a database already; move it away, or name another --data-dir")
    }
    let partial = directory.appending("scitq.db.partial")
    try? manager.removeItem(atPath: partial.string)
    defer { try? manager.removeItem(atPath: partial.string) }
    try PrivateFolder.write("", to: partial, mode: .ownerReadWrite)
    var configuration = GRDB.Configuration()
    configuration.readonly = true
    let files: [(String, Data)]
    do {
      let from = try DatabaseQueue(path: file.string, configuration: configuration)
      let to = try DatabaseQueue(path: partial.string)
      files = try from.read { db in
        guard try db.tableExists("backup_file") else {
          throw BackupProblem("\(file) is no backup of a scitq-server")
        }
        if try Schema.migrator.hasBeenSuperseded(db) {
          throw BackupProblem("\(file) was made by a newer scitq-server; restore it with that version")
        }
        return try Row.fetchAll(db, sql: "SELECT path, content FROM backup_file").map {
          ($0["path"], $0["content"])
        }
      }
      try from.backup(to: to)
      try to.write { db in
        guard try String.fetchOne(db, sql: "PRAGMA quick_check") == "ok" else {
          throw BackupProblem("\(file) is damaged")
        }
        try db.execute(sql: "DROP TABLE backup_file")
        try skipNumbers(db)
      }
      try to.close()
      try from.close()
    } catch let error as DatabaseError where error.resultCode == .SQLITE_NOTADB {
      throw BackupProblem("\(file) is no backup of a scitq-server")
    }
    for (path, content) in files {
      let place = directory.pushing(FilePath(path)).lexicallyNormalized()
      guard place.starts(with: directory), place != target else { throw BackupProblem("\(file) is damaged") }
      try PrivateFolder.make(place.removingLastComponent())
      try PrivateFolder.write(String(decoding: content, as: UTF8.self), to: place, mode: .ownerReadWrite)
    }
    try manager.moveItem(atPath: partial.string, toPath: target.string)
  }

  /// Numbers that the old server gave after the backup are not given again: workers may still hold its tasks.
  private static func skipNumbers(_ db: Database) throws {
    guard try db.tableExists("given") else { return }
    let last =
      try Int64.fetchOne(
        db, sql: "SELECT max((SELECT coalesce(max(id), 0) FROM task), (SELECT coalesce(max(id), 0) FROM job))"
      )
      ?? 0
    let given = try Int64.fetchOne(db, sql: "SELECT last FROM given WHERE kind = 'task'") ?? 0
    try db.execute(
      sql: "INSERT INTO given (kind, last) VALUES ('task', ?) ON CONFLICT DO UPDATE SET last = excluded.last",
      arguments: [max(last, given) + 1_000_000])
    try db.execute(sql: "UPDATE sqlite_sequence SET seq = seq + 10000 WHERE name = 'worker'")
  }
}
