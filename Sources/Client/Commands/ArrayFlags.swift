import ArgumentParser
import Foundation
import ScitqProtocol
import SwiftProtobuf
import Transfer

/// The flags that make an array of a task.
struct ArrayFlags: ParsableArguments {
  @Option(
    help: "So many tasks, as 100, or indexes, as 1-100 or 1-100:5; each knows its SCITQ_ARRAY_INDEX.",
    transform: ArrayIndexes.parse)
  var array: ArrayIndexes?
  @Option(
    name: .customLong("array-file"),
    help:
      "A task for each row of this table: tabs between, names of columns first; {column} stands for a row's value in command, inputs and outputs."
  )
  var arrayFile: String?
  @Option(
    name: .customLong("split-inputs"),
    help:
      "Spread the files of --input evenly over so many tasks; each has a folder of its own below --output.",
    transform: Values.positiveCount)
  var splitInputs: Int?
  @Flag(help: "Each task of the array waits for the one before it.") var sequential = false

  var isGiven: Bool { array != nil || arrayFile != nil || splitInputs != nil }

  mutating func validate() throws {
    if [array != nil, arrayFile != nil, splitInputs != nil].filter(\.self).count > 1 {
      throw ValidationError("--array, --array-file and --split-inputs exclude each other; give one of them")
    }
    if sequential, !isGiven {
      throw ValidationError(
        "--sequential is for arrays; give --array, --array-file or --split-inputs as well")
    }
  }

  func submit(_ draft: TaskDraft, _ client: Client) async throws -> WireTasksCreated {
    var job = WireNewJob()
    job.task = try draft.newTask()
    job.sequential = sequential
    var rows: [WireJobRow] = []
    if let array {
      job.firstIndex = array.first
      job.stride = array.stride
      job.size = array.count
    } else if let arrayFile {
      let table = try Self.table(arrayFile)
      job.columns = table.columns
      rows = table.rows.map { values in .with { $0.values = values } }
    } else if let splitInputs {
      job.split = true
      rows = try await Self.files(job.task.spec.inputs, client).spread(over: splitInputs).map { files in
        .with { $0.inputs = files }
      }
    }
    return try await TaskSubmission(client).send(job, rows: rows)
  }

  private static func table(_ path: String) throws -> ArrayTable {
    if path == "-" {
      var reader = LineReader(descriptor: STDIN_FILENO)
      return try ArrayTable.read(&reader, name: "stdin")
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure("\(Escaping.printable(path)) cannot be read: \(Descriptor.reason(errno))")
    }
    defer { close(descriptor) }
    var reader = LineReader(descriptor: descriptor)
    return try ArrayTable.read(&reader, name: Escaping.printable(path))
  }

  /// The files that inputs stand for, those in folders of folders as well.
  private static func files(_ inputs: [String], _ client: Client) async throws -> [String] {
    guard !inputs.isEmpty else { throw TextProblem("there is nothing to split; give --input") }
    var uris: [TransferURI] = []
    for input in inputs {
      let uri = try TransferURI(parsing: input)
      guard uri.actions.isEmpty else {
        throw TextProblem(
          "the input '\(Escaping.printable(input))' has an action, which cannot be split; name the files themselves"
        )
      }
      uris.append(uri)
    }
    let asked = uris
    let remotes = try await client.remotes(for: asked)
    let files = try await Moving.with(remotes) { transfer in
      var files: [String] = []
      for uri in asked { files += try await transfer.chosen(by: uri).map(\.uri).sorted() }
      // Two inputs may stand for one file.
      var seen: Set<String> = []
      return files.filter { seen.insert($0).inserted }
    }
    guard !files.isEmpty else { throw Failure("the inputs stand for no file; see 'scitq file list'") }
    return files
  }
}
