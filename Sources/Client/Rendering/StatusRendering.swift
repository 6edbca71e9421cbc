import ScitqProtocol

/// The server at a glance.
enum StatusRendering {
  static func text(_ status: WireServerStatus, address: ServerAddress, now: Int64, _ style: OutputStyle)
    -> String
  {
    let counts = TaskStatus.allCases.compactMap { known in
      status.tasks.first { $0.status == known.rawValue && $0.count > 0 }.map { (known, $0.count) }
    }
    let tasks = counts.map { style.painted("\($1) \($0.word)", TaskRendering.paint($0.rawValue)) }
    var lines = [
      ("server", "\(Escaping.printable(status.software)) at \(address)"),
      (
        "up since",
        Moment.local(status.startedAt, style.zone).map {
          "\($0) (\(Quantity.duration(now - status.startedAt)))"
        } ?? "-"
      ),
      ("workers", "\(status.workersConnected) connected of \(status.workersKnown) known"),
      ("slots", "\(Quantity.trimmed(status.slotsUsed)) used of \(Quantity.trimmed(status.slots))"),
      ("tasks", tasks.isEmpty ? "none" : tasks.joined(separator: ", ")),
      (
        "database",
        "\(Quantity.bytes(status.databaseBytes)), \(Quantity.bytes(status.diskFreeBytes)) free on its disk"
      ),
    ]
    lines += status.warnings.map { ("warning", style.painted(Escaping.printable($0), .yellow)) }
    let width = lines.map(\.0.count).max() ?? 0
    return lines.map { name, value in
      style.painted(name + ":", .bold) + String(repeating: " ", count: width - name.count + 1) + value + "\n"
    }.joined()
  }

  static func json(_ status: WireServerStatus) -> JSON {
    .object([
      .init("software", .string(status.software)),
      .init("started_at", Moment.json(status.startedAt)),
      .init(
        "tasks",
        .object(
          TaskStatus.allCases.map { known in
            .init(known.rawValue, .integer(status.tasks.first { $0.status == known.rawValue }?.count ?? 0))
          })),
      .init("workers_connected", .integer(Int64(status.workersConnected))),
      .init("workers_known", .integer(Int64(status.workersKnown))),
      .init("slots", .number(status.slots)),
      .init("slots_used", .number(status.slotsUsed)),
      .init("database_bytes", .integer(status.databaseBytes)),
      .init("disk_free_bytes", .integer(status.diskFreeBytes)),
      .init("warnings", .strings(status.warnings)),
    ])
  }
}
