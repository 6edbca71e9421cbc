import ArgumentParser
import Foundation
import ScitqProtocol

/// `scitq task output`: the bytes a task printed, as they are.
struct TaskOutput: ClientCommand {
  static let configuration = CommandConfiguration.command(
    "output", "Print what a task has printed, stdout and stderr in order of arrival.",
    example: "scitq task output --id 12 --follow\nscitq task output --id 12 --stderr --tail 20")

  @OptionGroup var globals: Globals
  @Option(help: "The task's id, or JOB:INDEX.", transform: TaskReference.init) var id: TaskReference
  @Flag(help: "Only what it wrote to stdout.") var stdout = false
  @Flag(help: "Only what it wrote to stderr.") var stderr = false
  @Flag(help: "Go on until the task has ended.") var follow = false
  @Option(help: "Only the last lines, this many.", transform: Values.positiveCount) var tail: Int?

  mutating func validate() throws {
    if stdout, stderr {
      throw ValidationError("--stdout and --stderr exclude each other; without either both are printed")
    }
  }

  func run(_ client: Client) async throws {
    let stream: WireLogStream = stdout ? .out : stderr ? .err : .unspecified
    let reference = id
    let id =
      reference.index == nil ? reference.id : try await client.connected { try await $0.resolve(reference) }
    try await TaskPrinting(client, id: id, stream: stream, tail: Int64(tail ?? 0)).run(follow: follow)
  }
}

/// Writes a task's log to stdout. With `follow` it survives a lost connection: what was printed is not printed again.
struct TaskPrinting {
  let client: Client
  let id: Int64
  let stream: WireLogStream
  let tail: Int64

  init(_ client: Client, id: Int64, stream: WireLogStream, tail: Int64) {
    self.client = client
    self.id = id
    self.stream = stream
    self.tail = tail
  }

  func run(follow: Bool) async throws {
    var request = WireReadLog()
    request.id = id
    request.stream = stream
    request.follow = follow
    request.tailLines = tail
    guard follow else {
      let asked = request
      try await client.connected { session in
        for try await part in session.connection.feed(.readLog, asked) {
          try Descriptor.write(part.data, to: STDOUT_FILENO)
        }
      }
      return
    }
    var progress = LogProgress()
    try await Persistence(client).until { session in
      for try await part in session.connection.feed(.readLog, request) {
        try Descriptor.write(progress.unseen(part), to: STDOUT_FILENO)
        // Once something came, the tail is behind us: a new connection asks for all and skips by offset.
        request.tailLines = 0
      }
    }
  }
}

/// How far each stream of a log has been printed.
struct LogProgress {
  private var printed: [WireLogStream: Int64] = [:]

  /// The bytes of the part that come after what was printed of its stream.
  mutating func unseen(_ part: WireLogData) -> Data {
    let end = part.offset + Int64(part.data.count)
    let position = printed[part.stream] ?? part.offset
    guard end > position else { return Data() }
    printed[part.stream] = end
    return position > part.offset ? part.data.dropFirst(Int(position - part.offset)) : part.data
  }
}
