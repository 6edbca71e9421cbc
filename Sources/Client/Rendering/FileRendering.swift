import Foundation
import ScitqProtocol
import Transfer

/// Listings as people and programs see them.
enum FileRendering {
  static func table(_ entries: [Entry], _ style: OutputStyle) -> Table {
    var table = Table(columns: [
      .init(title: "URI"), .init(title: "SIZE", alignment: .right), .init(title: "MODIFIED"),
    ])
    table.rows = entries.map { entry in
      [
        .init(entry.uri, paint: entry.isFolder ? .blue : nil),
        .init(entry.isFolder ? "-" : Quantity.bytes(entry.bytes)),
        .init(entry.modified.flatMap { Moment.local(microseconds($0), style.zone) } ?? "-"),
      ]
    }
    return table
  }

  /// What a task has read and written.
  static func table(_ files: [(String, WireTransferredFile)]) -> Table {
    var table = Table(columns: [
      .init(title: "KIND"), .init(title: "URI"), .init(title: "SIZE", alignment: .right),
      .init(title: "HASH"),
    ])
    table.rows = files.map { kind, file in
      [
        .init(kind), .init(file.uri), .init(Quantity.bytes(file.bytes)),
        .init(file.hash.isEmpty ? "-" : file.hash),
      ]
    }
    return table
  }

  static func json(_ kind: String, _ file: WireTransferredFile) -> JSON {
    .object([
      .init("kind", .string(kind)), .init("uri", .string(file.uri)), .init("bytes", .integer(file.bytes)),
      .init("hash", .text(file.hash)),
    ])
  }

  static func json(_ entry: Entry) -> JSON {
    .object([
      .init("uri", .string(entry.uri)), .init("folder", .bool(entry.isFolder)),
      .init("bytes", entry.isFolder ? .null : .integer(entry.bytes)),
      .init("modified_at", entry.modified.map { Moment.json(microseconds($0)) } ?? .null),
    ])
  }

  static func json(_ file: MovedFile) -> JSON {
    .object([
      .init("uri", .string(file.uri)), .init("bytes", .integer(file.bytes)), .init("hash", .text(file.hash)),
    ])
  }

  private static func microseconds(_ date: Date) -> Int64 { Int64(date.timeIntervalSince1970 * 1_000_000) }
}
