import ScitqProtocol

/// Workers as people and programs see them.
enum WorkerRendering {
  static func table(_ workers: [WireWorker], cost: Bool = false) -> Table {
    var columns: [Table.Column] = [
      .init(title: "ID", alignment: .right), .init(title: "Name", shrinksTo: 10), .init(title: "Status"),
      .init(title: "Concurrency", alignment: .right), .init(title: "Prefetch", alignment: .right),
      .init(title: "IPv4"), .init(title: "IPv6", shrinksTo: 10), .init(title: "Flavor", shrinksTo: 8),
      .init(title: "Provider", shrinksTo: 8), .init(title: "Region", shrinksTo: 8),
    ]
    if cost {
      columns += [.init(title: "Price", alignment: .right), .init(title: "Cost", alignment: .right)]
    }
    var table = Table(columns: columns)
    table.rows = workers.map { worker in
      let row: [Table.Cell] = [
        .init("\(worker.id)"), .init(worker.name), .init(worker.status, paint: paint(worker.status)),
        .init("\(worker.concurrency)"), .init("\(worker.prefetch)"), cell(worker.ipv4), cell(worker.ipv6),
        cell(worker.flavor), cell(worker.provider), cell(worker.region),
      ]
      guard cost else { return row }
      // A host that is nobody's to pay for has no price.
      return row + [
        cell(isRented(worker) ? FleetRendering.price(worker.price) : ""),
        cell(isRented(worker) ? FleetRendering.cost(worker.cost) : ""),
      ]
    }
    return table
  }

  private static func isRented(_ worker: WireWorker) -> Bool { !worker.provider.isEmpty }

  /// Whether its agent was ever heard: until then nothing is known of its host.
  private static func hasReported(_ worker: WireWorker) -> Bool {
    !isRented(worker) || worker.lastBeatAt != 0
  }

  /// Why workers are not simply running, a line for each reason: the list has no room for it.
  static func notes(_ workers: [WireWorker]) -> [String] {
    var reasons: [(words: String, ids: [Int64])] = []
    for worker in workers where !worker.reason.isEmpty {
      let words = "\(worker.status): \(worker.reason)"
      if let place = reasons.firstIndex(where: { $0.words == words }) {
        reasons[place].ids.append(worker.id)
      } else {
        reasons.append((words, [worker.id]))
      }
    }
    return reasons.map { words, ids in
      let more = ids.count > 10 ? " and \(ids.count - 10) more" : ""
      let names = ids.prefix(10).map { "\($0)" }.joined(separator: ", ") + more
      return "\(ids.count == 1 ? "worker" : "workers") \(names), \(Escaping.printable(words))"
    }
  }

  static func json(_ worker: WireWorker) -> JSON {
    func known(_ value: JSON) -> JSON { hasReported(worker) ? value : .null }
    return .object([
      JSON.Member("id", .integer(worker.id)),
      JSON.Member("name", .string(worker.name)),
      JSON.Member("status", .string(worker.status)),
      JSON.Member("concurrency", .integer(Int64(worker.concurrency))),
      JSON.Member("prefetch", .integer(Int64(worker.prefetch))),
      JSON.Member("active_tasks", .integer(Int64(worker.activeTasks))),
      JSON.Member("hostname", .text(worker.hostname)),
      .init("ipv4", .text(worker.ipv4)),
      .init("ipv6", .text(worker.ipv6)),
      JSON.Member("flavor", .text(worker.flavor)),
      JSON.Member("provider", .text(worker.provider)),
      JSON.Member("region", .text(worker.region)),
      JSON.Member("price", isRented(worker) ? .number(worker.price) : .null),
      JSON.Member("cost", isRented(worker) ? .number(worker.cost) : .null),
      JSON.Member("ends_at", Moment.json(worker.endsAt)),
      JSON.Member("step_id", .id(worker.stepID)),
      JSON.Member("step_name", .text(worker.stepName)),
      JSON.Member("workflow_id", .id(worker.workflowID)),
      JSON.Member("scope", .text(worker.scope)),
      JSON.Member("reason", .text(worker.reason)),
      JSON.Member("permanent", .bool(worker.permanent)),
      JSON.Member("cpu", known(.number(worker.host.cpu))),
      JSON.Member("memory_bytes", known(.integer(worker.host.memoryBytes))),
      JSON.Member("disk_bytes", known(.integer(worker.host.diskBytes))),
      JSON.Member("gpu", known(.integer(Int64(worker.host.gpu)))),
      JSON.Member("engines", known(.strings(worker.host.engines))),
      JSON.Member("software", .text(worker.software)),
      JSON.Member("last_beat_at", Moment.json(worker.lastBeatAt)),
      JSON.Member("created_at", Moment.json(worker.createdAt)),
      JSON.Member("warnings", .strings(worker.warnings)),
    ])
  }

  static func block(_ worker: WireWorker, _ style: OutputStyle) -> String {
    var lines: [(String, String)] = [
      ("worker", "\(worker.id)"), ("name", Escaping.printable(worker.name)),
      ("status", style.painted(Escaping.printable(worker.status), paint(worker.status))),
    ]
    func line(_ name: String, _ value: String) {
      if !value.isEmpty { lines.append((name, Escaping.printable(value))) }
    }
    line("because", worker.reason)
    if worker.stepID != 0 { line("step", "\(worker.stepID) (\(worker.stepName))") }
    if worker.workflowID != 0 { line("workflow", "\(worker.workflowID)") }
    line("scope", worker.scope)
    line("concurrency", "\(worker.concurrency), and \(worker.prefetch) prefetched")
    line("tasks", "\(worker.activeTasks)")
    line("host", worker.hostname)
    line("provider", worker.provider)
    line("region", worker.region)
    line("flavor", worker.flavor)
    if isRented(worker) {
      line("price", "\(FleetRendering.price(worker.price)) an hour")
      line("cost", FleetRendering.cost(worker.cost))
    }
    line("ends at", Moment.local(worker.endsAt, style.zone) ?? "")
    line("addresses", [worker.ipv4, worker.ipv6].filter { !$0.isEmpty }.joined(separator: ", "))
    if hasReported(worker) {
      let gpu = worker.host.gpu == 0 ? "" : ", \(worker.host.gpu) GPU"
      line(
        "has",
        "\(Quantity.trimmed(worker.host.cpu)) CPU, \(Quantity.gigabytes(worker.host.memoryBytes)) memory, \(Quantity.gigabytes(worker.host.diskBytes)) disk\(gpu)"
      )
      line("engines", worker.host.engines.joined(separator: ", "))
    }
    line("permanent", worker.permanent ? "yes" : "no")
    line("software", worker.software)
    if hasReported(worker) { line("last heard", Moment.local(worker.lastBeatAt, style.zone) ?? "-") }
    line(isRented(worker) ? "ordered" : "joined", Moment.local(worker.createdAt, style.zone) ?? "-")
    for warning in worker.warnings { line("warning", warning) }
    let width = lines.map(\.0.count).max() ?? 0
    return lines.map { name, value in
      style.painted(name + ":", .bold) + String(repeating: " ", count: width - name.count + 1) + value + "\n"
    }.joined()
  }

  static func statsTable(_ workers: [WireWorkerStats]) -> Table {
    var table = Table(columns: [
      .init(title: "ID", alignment: .right), .init(title: "Name", shrinksTo: 10),
      .init(title: "CPU", alignment: .right), .init(title: "Memory", alignment: .right),
      .init(title: "Load", alignment: .right), .init(title: "I/O wait", alignment: .right),
      .init(title: "Disk", shrinksTo: 12), .init(title: "Disk read", alignment: .right),
      .init(title: "Disk write", alignment: .right), .init(title: "Net in", alignment: .right),
      .init(title: "Net out", alignment: .right), .init(title: "Running", alignment: .right),
    ])
    table.rows = workers.map { worker in
      var row: [Table.Cell] = [.init("\(worker.workerID)"), .init(worker.name)]
      guard worker.hasStats else { return row + Array(repeating: "-", count: table.columns.count - 2) }
      let stats = worker.stats
      row += [
        .init(Quantity.percent(stats.cpuPercent)), .init(Quantity.percent(stats.memoryPercent)),
        .init(Quantity.fixed(stats.load, places: 2)), .init(Quantity.percent(stats.iowaitPercent)),
        .init(stats.disks.isEmpty ? "-" : stats.disks.map(disk).joined(separator: ", ")),
        .init(Quantity.rate(stats.diskReadBytesPerSecond)),
        .init(Quantity.rate(stats.diskWriteBytesPerSecond)),
        .init(Quantity.rate(stats.networkReceivedBytesPerSecond)),
        .init(Quantity.rate(stats.networkSentBytesPerSecond)), .init("\(stats.running)"),
      ]
      return row
    }
    return table
  }

  static func cleanedJSON(_ worker: WireWorkerCleaned) -> JSON {
    .object([
      .init("worker_id", .integer(worker.workerID)), .init("name", .string(worker.name)),
      .init("freed_bytes", .integer(worker.freedBytes)), .init("removed", .integer(Int64(worker.removed))),
    ])
  }

  static func statsJSON(_ worker: WireWorkerStats) -> JSON {
    let stats = worker.stats
    let identity: [JSON.Member] = [
      JSON.Member("worker_id", .integer(worker.workerID)), JSON.Member("name", .string(worker.name)),
    ]
    guard worker.hasStats else { return .object(identity + [JSON.Member("at", .null)]) }
    let disks = stats.disks.map { disk in
      JSON.object([
        JSON.Member("mount", .string(disk.mount)), JSON.Member("total_bytes", .integer(disk.totalBytes)),
        JSON.Member("used_bytes", .integer(disk.usedBytes)),
      ])
    }
    return .object(
      identity + [
        JSON.Member("at", Moment.json(stats.at)),
        JSON.Member("cpu_percent", .number(stats.cpuPercent)),
        JSON.Member("memory_percent", .number(stats.memoryPercent)),
        JSON.Member("load", .number(stats.load)),
        JSON.Member("iowait_percent", .number(stats.iowaitPercent)),
        JSON.Member("disks", .array(disks)),
        JSON.Member("disk_read_bytes_per_second", .number(stats.diskReadBytesPerSecond)),
        JSON.Member("disk_write_bytes_per_second", .number(stats.diskWriteBytesPerSecond)),
        JSON.Member("network_received_bytes_per_second", .number(stats.networkReceivedBytesPerSecond)),
        JSON.Member("network_sent_bytes_per_second", .number(stats.networkSentBytesPerSecond)),
        JSON.Member("disk_read_bytes", .integer(stats.diskReadBytes)),
        JSON.Member("disk_written_bytes", .integer(stats.diskWrittenBytes)),
        JSON.Member("network_received_bytes", .integer(stats.networkReceivedBytes)),
        JSON.Member("network_sent_bytes", .integer(stats.networkSentBytes)),
        JSON.Member("running", .integer(Int64(stats.running))),
      ])
  }

  private static func disk(_ disk: WireDiskStats) -> String {
    let share = disk.totalBytes > 0 ? Double(disk.usedBytes) / Double(disk.totalBytes) * 100 : 0
    return "\(disk.mount) \(Quantity.percent(share)) of \(Quantity.bytes(disk.totalBytes))"
  }

  private static func cell(_ text: String) -> Table.Cell { .init(text.isEmpty ? "-" : text) }

  private static func paint(_ status: String) -> Paint? {
    switch status {
    case "running": .green
    case "lost", "offline": .red
    case "draining", "paused", "quarantined": .yellow
    default: nil
    }
  }
}
