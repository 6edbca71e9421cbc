import ScitqProtocol

/// What happened, a line an event.
enum EventRendering {
  static func line(_ event: WireEvent, _ style: OutputStyle) -> String {
    let time = Moment.local(event.at, style.zone) ?? "-"
    let ids = event.firstID == event.lastID ? "\(event.firstID)" : "\(event.firstID)–\(event.lastID)"
    let move = event.from.isEmpty || event.to.count > 1 ? event.to : "\(event.from) → \(event.to)"
    var text =
      "\(event.sequence)\t\(time)\t\(event.object) \(ids)\t\(style.painted(Escaping.printable(move), TaskRendering.paint(event.to)))"
    if event.workerID != 0 { text += "\tworker \(event.workerID)" }
    if !event.user.isEmpty { text += "\tby \(Escaping.printable(event.user))" }
    if !event.reason.isEmpty { text += "\t\(Escaping.printable(event.reason))" }
    return text + "\n"
  }

  static func json(_ event: WireEvent) -> JSON {
    .object([
      JSON.Member("sequence", .integer(event.sequence)), JSON.Member("at", Moment.json(event.at)),
      JSON.Member("object", .string(event.object)), JSON.Member("first_id", .integer(event.firstID)),
      JSON.Member("last_id", .integer(event.lastID)), JSON.Member("from", .text(event.from)),
      JSON.Member("to", .string(event.to)), JSON.Member("worker_id", .id(event.workerID)),
      JSON.Member("user", .text(event.user)), JSON.Member("reason", .text(event.reason)),
    ])
  }
}
