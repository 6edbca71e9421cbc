import ScitqProtocol

/// Flavors, orders of hosts and what they cost, as people and programs see them.
enum FleetRendering {
  // MARK: Flavors

  /// A note on what is not bought for now is a column of its own, where there is any.
  static func table(_ flavors: [WireFlavor]) -> Table {
    var columns: [Table.Column] = [
      .init(title: "Provider", shrinksTo: 8), .init(title: "Region", shrinksTo: 8),
      .init(title: "Flavor", shrinksTo: 10), .init(title: "CPU", alignment: .right),
      .init(title: "Mem", alignment: .right), .init(title: "Disk", alignment: .right),
      .init(title: "GPU", shrinksTo: 10), .init(title: "Eviction", alignment: .right),
      .init(title: "Cost", alignment: .right), .init(title: "Spot"),
    ]
    let noted = flavors.contains { !note($0).isEmpty }
    if noted { columns.append(.init(title: "Note", shrinksTo: 10)) }
    var table = Table(columns: columns)
    table.rows = flavors.map { flavor in
      let row: [Table.Cell] = [
        .init(flavor.provider), .init(flavor.region), .init(flavor.name),
        .init(Quantity.trimmed(flavor.cpu)), .init(Quantity.trimmed(flavor.memoryGb) + " GB"),
        .init(flavor.diskGb > 0 ? Quantity.trimmed(flavor.diskGb) + " GB" : "-"), .init(gpu(flavor)),
        .init(Quantity.trimmed(flavor.eviction) + "%"), .init(price(flavor.price)),
        .init(flavor.spot ? "yes" : "no"),
      ]
      return noted ? row + [.init(note(flavor), paint: .yellow)] : row
    }
    return table
  }

  static func json(_ flavor: WireFlavor) -> JSON {
    .object([
      JSON.Member("provider", .string(flavor.provider)), JSON.Member("region", .string(flavor.region)),
      JSON.Member("flavor", .string(flavor.name)), JSON.Member("cpu", .number(flavor.cpu)),
      JSON.Member("memory_gb", .number(flavor.memoryGb)),
      JSON.Member("disk_gb", flavor.diskGb > 0 ? .number(flavor.diskGb) : .null),
      JSON.Member("bandwidth_gbit", flavor.bandwidth > 0 ? .number(flavor.bandwidth) : .null),
      JSON.Member("gpu", .text(flavor.gpu)), JSON.Member("gpu_count", .integer(Int64(flavor.gpuCount))),
      JSON.Member("gpu_memory_gb", .number(flavor.gpuMemoryGb)),
      JSON.Member("quick_disks", .bool(flavor.quickDisks)), JSON.Member("spot", .bool(flavor.spot)),
      JSON.Member("eviction_percent", .number(flavor.eviction)), JSON.Member("price", .number(flavor.price)),
      JSON.Member("disabled", .bool(flavor.disabled)), JSON.Member("obstacle", .text(flavor.obstacle)),
    ])
  }

  /// Why a list is empty, and what to do about it.
  static func noFlavor(filtered: Bool) -> String {
    filtered
      ? "no flavor passes the filter; where it does not speak of eviction, eviction<=5 holds as well"
      : "there is no flavor: no provider is set up, or none was refreshed yet; see docs/fleet.md"
  }

  /// What came of `flavor enable` and `flavor disable`.
  static func enabled(_ request: WireEnableFlavor, _ answer: WireFlavorsEnabled) -> String {
    let place = request.region.isEmpty ? "" : " in \(Escaping.printable(request.region))"
    let name = "flavor \(Escaping.printable(request.name))\(place)"
    let word = request.enabled ? "enabled" : "disabled"
    let forgotten = answer.forgotten.map(Escaping.printable).joined(separator: "; ")
    if answer.changed == 0 {
      return forgotten.isEmpty
        ? "\(name) was \(word) already" : "\(name) may be bought again; forgotten: \(forgotten)"
    }
    return "\(name) \(word)" + (answer.changed > 1 ? " in \(answer.changed) regions" : "")
      + (forgotten.isEmpty ? "" : "; forgotten: \(forgotten)")
  }

  /// An hour's price: small hosts cost a fraction of a cent.
  static func price(_ value: Double) -> String { value == 0 ? "0" : Quantity.fixed(value, places: 4) }

  /// Money; what is less than one with more decimals, so that a little does not look like nothing.
  static func cost(_ value: Double) -> String {
    value == 0 ? "0" : Quantity.fixed(value, places: abs(value) < 1 ? 4 : 2)
  }

  /// `2 × Tesla V100, 16 GB`.
  private static func gpu(_ flavor: WireFlavor) -> String {
    guard flavor.gpuCount > 0 || !flavor.gpu.isEmpty else { return "-" }
    let name = flavor.gpu.isEmpty ? "GPU" : flavor.gpu
    let count = flavor.gpuCount > 1 ? "\(flavor.gpuCount) × " : ""
    let memory = flavor.gpuMemoryGb > 0 ? ", \(Quantity.trimmed(flavor.gpuMemoryGb)) GB" : ""
    return count + name + memory
  }

  private static func note(_ flavor: WireFlavor) -> String { flavor.disabled ? "disabled" : flavor.obstacle }

  // MARK: Orders

  static func deployed(_ workers: [WireDeployedWorker]) -> String {
    workers.map { "worker \($0.id) (\(Escaping.printable($0.name))) ordered\n" }.joined()
  }

  static func json(_ worker: WireDeployedWorker) -> JSON {
    .object([.init("id", .integer(worker.id)), .init("name", .string(worker.name))])
  }

  // MARK: Costs

  /// What was paid, and the total below; the maximum is a column of its own, where a workflow has one.
  static func table(_ costs: WireCostList) -> Table {
    var columns: [Table.Column] = [
      .init(title: "Kind"), .init(title: "ID", alignment: .right), .init(title: "Name", shrinksTo: 10),
      .init(title: "Hours", alignment: .right), .init(title: "Cost", alignment: .right),
    ]
    let bounded = costs.lines.contains { $0.maximum > 0 }
    if bounded { columns.append(.init(title: "Maximum", alignment: .right)) }
    var table = Table(columns: columns)
    table.rows = costs.lines.map { line in
      let row: [Table.Cell] = [
        .init(line.kind), .init(line.id == 0 ? "-" : "\(line.id)"),
        .init(line.name.isEmpty ? "-" : line.name),
        .init(Quantity.fixed(line.hours, places: 2)), .init(cost(line.cost)),
      ]
      return bounded ? row + [.init(line.maximum > 0 ? cost(line.maximum) : "-")] : row
    }
    let total: [Table.Cell] = [
      .init("total", paint: .bold), "", "", "", .init(cost(costs.total), paint: .bold),
    ]
    table.rows.append(bounded ? total + [""] : total)
    return table
  }

  /// `KIND ID COST`, a line each.
  static func lines(_ costs: WireCostList) -> String {
    let lines = costs.lines.map { line in
      let id = line.id == 0 ? "-" : "\(line.id)"
      return "\(Escaping.printable(line.kind)) \(id) \(Quantity.fixed(line.cost, places: 4))\n"
    }
    return lines.joined() + "total - \(Quantity.fixed(costs.total, places: 4))\n"
  }

  static func json(_ costs: WireCostList) -> JSON {
    let lines = costs.lines.map { line in
      JSON.object([
        JSON.Member("kind", .string(line.kind)), JSON.Member("id", .id(line.id)),
        JSON.Member("name", .text(line.name)), JSON.Member("hours", .number(line.hours)),
        JSON.Member("cost", .number(line.cost)),
        JSON.Member("maximum", line.maximum > 0 ? .number(line.maximum) : .null),
      ])
    }
    return .object([.init("lines", .array(lines)), .init("total", .number(costs.total))])
  }
}
