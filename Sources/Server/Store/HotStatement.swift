import GRDB
import GRDBSQLite

/// A prepared statement without the comforts, for what runs a hundred thousand times a second.
///
/// GRDB prepares, caches and owns the statement; this binds and steps it directly, which is three times as fast as
/// handing over arguments as values. Used inside one database access only.
final class HotStatement {
  private let statement: Statement
  private let raw: OpaquePointer
  private let connection: OpaquePointer?
  private var parameter: Int32 = 0

  init(_ db: Database, _ sql: String) throws {
    statement = try db.cachedStatement(sql: sql)
    raw = statement.sqliteStatement
    connection = db.sqliteConnection
    sqlite3_reset(raw)
    sqlite3_clear_bindings(raw)
  }

  // SQLite copies what it is given: the bytes need not outlive the call.
  private static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

  func bind(_ value: Int64) {
    parameter += 1
    sqlite3_bind_int64(raw, parameter, value)
  }

  func bind(_ value: Int64?) {
    if let value { bind(value) } else { bindNull() }
  }

  func bind(_ value: Bool) { bind(value ? Int64(1) : 0) }

  func bind(_ value: Double) {
    parameter += 1
    sqlite3_bind_double(raw, parameter, value)
  }

  func bind(_ value: String) {
    parameter += 1
    var value = value
    value.withUTF8 { bytes in
      _ = bytes.withMemoryRebound(to: CChar.self) { characters in
        // An empty buffer may have no address, which SQLite would take for NULL.
        if let start = characters.baseAddress {
          sqlite3_bind_text(raw, parameter, start, Int32(characters.count), Self.copied)
        } else {
          sqlite3_bind_text(raw, parameter, "", 0, Self.copied)
        }
      }
    }
  }

  func bind(_ value: String?) {
    if let value { bind(value) } else { bindNull() }
  }

  func bindNull() {
    parameter += 1
    sqlite3_bind_null(raw, parameter)
  }

  /// Runs a statement that answers no rows, and makes ready for the next values.
  func run() throws {
    let code = sqlite3_step(raw)
    sqlite3_reset(raw)
    parameter = 0
    guard code == SQLITE_DONE || code == SQLITE_ROW else { throw failure(code) }
  }

  /// Runs a query and hands over each row, which is valid during the call only.
  func each(_ body: (Row) throws -> Void) throws {
    defer {
      sqlite3_reset(raw)
      parameter = 0
    }
    while true {
      let code = sqlite3_step(raw)
      if code == SQLITE_DONE { return }
      guard code == SQLITE_ROW else { throw failure(code) }
      try body(Row(raw: raw))
    }
  }

  private func failure(_ code: Int32) -> DatabaseError {
    DatabaseError(
      resultCode: ResultCode(rawValue: code),
      message: sqlite3_errmsg(connection).map { String(cString: $0) })
  }

  /// The columns of the current row, from left to right.
  struct Row {
    fileprivate let raw: OpaquePointer
    private var column: Int32 = 0

    fileprivate init(raw: OpaquePointer) { self.raw = raw }

    mutating func skip(_ columns: Int) { column += Int32(columns) }

    mutating func integer() -> Int64 {
      defer { column += 1 }
      return sqlite3_column_int64(raw, column)
    }

    mutating func optionalInteger() -> Int64? {
      if sqlite3_column_type(raw, column) == SQLITE_NULL {
        column += 1
        return nil
      }
      return integer()
    }

    mutating func real() -> Double {
      defer { column += 1 }
      return sqlite3_column_double(raw, column)
    }

    mutating func text() -> String {
      defer { column += 1 }
      guard let start = sqlite3_column_text(raw, column) else { return "" }
      let count = Int(sqlite3_column_bytes(raw, column))
      return String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
    }

    mutating func optionalText() -> String? {
      if sqlite3_column_type(raw, column) == SQLITE_NULL {
        column += 1
        return nil
      }
      return text()
    }
  }
}
