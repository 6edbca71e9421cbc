import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq events`.
struct EventsCommand: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "events", "Show what happened, in its order.",
    example:
      "scitq events --last 20\nscitq events --follow --object task --kind F\nscitq events --since 1200 --json"
  )

  @OptionGroup var globals: Globals
  @Option(help: "Only events after this number.", transform: EventsCommand.sequence) var since: Int64?
  @Flag(help: "Go on with what happens from now.") var follow = false
  @Option(help: "Only of this kind of object: task, job, step, workflow, worker or user.") var object: String?
  @Option(help: "Only of the object with this id.", transform: Values.id) var id: Int64?
  @Option(help: "Only what became this: letters or words, such as F or quarantined, with commas between.")
  var kind: [String] = []
  @Option(
    name: .customLong("workflow-id"), help: "Only of this workflow, its steps and tasks.",
    transform: Values.id)
  var workflowID: Int64?
  @Option(
    help: "Only so many of the newest (default: 50, unless --since is given).",
    transform: Values.positiveCount)
  var last: Int?

  private static let objects = ["task", "job", "step", "workflow", "worker", "user"]

  mutating func validate() throws {
    if let object, !Self.objects.contains(object) {
      let hint =
        Nearest.sentence(to: object, among: Self.objects)
        ?? "they are: \(Self.objects.joined(separator: ", "))"
      throw ValidationError("'\(Escaping.printable(object))' has no events; \(hint)")
    }
    if id != nil, object == nil { throw ValidationError("--id needs --object, to say what it is the id of") }
  }

  private static func sequence(_ text: String) throws(TextProblem) -> Int64 {
    guard let number = Int64(text), number >= 0 else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no number of an event; give a whole number from 0 on")
    }
    return number
  }

  /// Letters of statuses may be given as words, in any case; other kinds are words of their own.
  private static func kinds(_ text: String) -> [String] {
    text.split(separator: ",").flatMap { part -> [String] in
      let word = String(part)
      if let statuses = try? Values.statuses(word), statuses.count == 1 { return statuses.map(\.rawValue) }
      return [word]
    }
  }

  func run(_ client: Client) async throws {
    var request = WireReadEvents()
    request.since = since ?? 0
    request.follow = follow
    request.object = object ?? ""
    request.id = id ?? 0
    request.kinds = kind.flatMap(Self.kinds)
    request.workflowID = workflowID ?? 0
    request.last = UInt32(clamping: last ?? (since == nil ? 50 : 0))
    try await EventPrinting(client).run(request)
  }
}

/// Writes events to stdout. With `follow` it survives a lost connection, and repeats nothing.
struct EventPrinting {
  let client: Client
  init(_ client: Client) { self.client = client }

  func run(_ request: WireReadEvents) async throws {
    var request = request
    func print(_ session: Session) async throws {
      for try await event in session.connection.feed(.readEvents, request) {
        switch client.format {
        case .text: try client.put(EventRendering.line(event, client.style))
        case .json: try client.put(EventRendering.json(event).compact + "\n")
        case .quiet: try client.put("\(event.sequence)\n")
        }
        request.since = event.sequence
        request.last = 0
      }
    }
    if request.follow {
      try await Persistence(client).until(print)
    } else {
      try await client.connected(print)
    }
  }
}
