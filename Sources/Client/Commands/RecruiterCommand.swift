import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// `scitq recruiter`.
struct RecruiterCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "recruiter", "What rents workers for steps, as many as their tasks need.",
    example: "scitq recruiter list --step-id 14",
    subcommands: [List.self, Create.self, Show.self, Update.self, Delete.self, Explain.self])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List the recruiters of a step, or of all.", example: "scitq recruiter list --step-id 14")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("step-id"), help: "Only those of this step.", transform: Values.id) var stepID:
      Int64?

    func run(_ client: Client) async throws {
      let step = stepID ?? 0
      let recruiters = try await client.connected { try await $0.recruiters(of: step) }
      switch client.format {
      case .text: try client.put(recruiters.map { RecruiterRendering.line($0) + "\n" }.joined())
      case .json: try client.put(JSON.lines(recruiters.map(RecruiterRendering.json)) + "\n")
      case .quiet: try client.put(recruiters.map { RecruiterRendering.id($0) + "\n" }.joined())
      }
    }
  }

  struct Create: ClientCommand, HasOwnTimeout {
    static let configuration = CommandConfiguration.command(
      "create", "Have workers rented for a step, of the flavors that pass a filter.",
      example: """
        scitq recruiter create --step-id 14 --filter 'cpu>=8:mem>=30' --concurrency 4 --prefetch 1 --max-workers 50
        scitq recruiter create --step-id 14 --filter 'cpu>=8:mem>=30' --cpu-per-task 2 --prefetch-percent 50
        """)

    @OptionGroup var general: GlobalsBesideTimeout
    @Option(name: .customLong("step-id"), help: "The step.", transform: Values.id) var stepID: Int64
    @Option(help: "Which flavors it may rent, such as 'cpu>=8:mem>=30'; see 'scitq flavor list'.")
    var filter: String
    @Option(
      help: "Its place beside others of the step: higher ranks only rent what lower ones could not.",
      transform: Values.positive)
    var rank: UInt32 = 1
    @OptionGroup var flags: RecruiterFlags<NewRecruiter>

    var globals: Globals { general.globals }

    mutating func validate() throws { try flags.checkWhole() }

    var request: WireRecruiter {
      var request = WireRecruiter()
      request.stepID = stepID
      request.rank = rank
      request.filter = filter
      flags.fill(&request)
      return request
    }

    func run(_ client: Client) async throws {
      let asked = request
      let recruiter = try await client.connected { try await $0.call(.createRecruiter, asked) }
      try client.put(
        text: "recruiter \(recruiter.rank) of step \(recruiter.stepID) created\n",
        json: RecruiterRendering.json(recruiter), quiet: RecruiterRendering.id(recruiter) + "\n")
    }
  }

  struct Show: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "show", "Show a recruiter.", example: "scitq recruiter show --step-id 14 --rank 1")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("step-id"), help: "The step.", transform: Values.id) var stepID: Int64
    @Option(help: "The recruiter's rank.", transform: Values.positive) var rank: UInt32 = 1

    func run(_ client: Client) async throws {
      let (step, rank) = (stepID, rank)
      let all = try await client.connected { try await $0.recruiters(of: step) }
      guard let recruiter = all.first(where: { $0.rank == rank }) else {
        throw RecruiterCommand.missing(rank, of: step, among: all)
      }
      switch client.format {
      case .text: try client.put(RecruiterRendering.block(recruiter, client.style))
      case .json: try client.put(RecruiterRendering.json(recruiter).pretty + "\n")
      case .quiet: try client.put(RecruiterRendering.id(recruiter) + "\n")
      }
    }
  }

  struct Update: ClientCommand, HasOwnTimeout {
    static let configuration = CommandConfiguration.command(
      "update", "Change a recruiter; the workers that it has stay as they are.",
      example: """
        scitq recruiter update --step-id 14 --max-workers 20
        scitq recruiter update --step-id 14 --rank 2 --cpu-per-task 2 --memory-per-task 8
        """)

    @OptionGroup var general: GlobalsBesideTimeout
    @Option(name: .customLong("step-id"), help: "The step.", transform: Values.id) var stepID: Int64
    @Option(help: "The recruiter's rank.", transform: Values.positive) var rank: UInt32 = 1
    @Option(help: "Which flavors it may rent from now on.") var filter: String?
    @OptionGroup var flags: RecruiterFlags<ChangedRecruiter>

    var globals: Globals { general.globals }

    mutating func validate() throws {
      if filter == nil, !flags.isGiven {
        throw ValidationError(
          "nothing is to be changed; give --filter, --concurrency, --max-workers or another of the flags")
      }
    }

    var request: WireUpdateRecruiter {
      var request = WireUpdateRecruiter()
      request.stepID = stepID
      request.rank = rank
      if let filter { request.filter = filter }
      flags.fill(&request)
      return request
    }

    func run(_ client: Client) async throws {
      let asked = request
      let recruiter = try await client.connected { try await $0.call(.updateRecruiter, asked) }
      try client.put(
        text: "recruiter \(recruiter.rank) of step \(recruiter.stepID) updated\n",
        json: RecruiterRendering.json(recruiter), quiet: RecruiterRendering.id(recruiter) + "\n")
    }
  }

  struct Delete: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "delete", "Delete a recruiter: its workers stay, and no more come.",
      example: "scitq recruiter delete --step-id 14 --rank 1")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("step-id"), help: "The step.", transform: Values.id) var stepID: Int64
    @Option(help: "The recruiter's rank.", transform: Values.positive) var rank: UInt32

    func run(_ client: Client) async throws {
      let (step, rank) = (stepID, rank)
      _ = try await client.connected { session in
        try await session.call(.deleteRecruiter, .with { ($0.stepID, $0.rank) = (step, rank) })
      }
      try client.put(
        text: "recruiter \(rank) of step \(step) deleted\n",
        json: .object([.init("step_id", .integer(step)), .init("rank", .integer(Int64(rank)))]),
        quiet: "\(step) \(rank)\n")
    }
  }

  struct Explain: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "explain", "Say what a recruiter would do now, and why not more; all of a step without --rank.",
      example: "scitq recruiter explain --step-id 14 --rank 1")

    @OptionGroup var globals: Globals
    @Option(name: .customLong("step-id"), help: "The step.", transform: Values.id) var stepID: Int64
    @Option(help: "The recruiter's rank (default: all of the step).", transform: Values.positive) var rank:
      UInt32?

    func run(_ client: Client) async throws {
      let (step, rank) = (stepID, rank)
      let answers = try await client.connected { session in
        var ranks = [UInt32]()
        if let rank {
          ranks = [rank]
        } else {
          ranks = try await session.recruiters(of: step).map(\.rank)
          guard !ranks.isEmpty else { throw RecruiterCommand.missing(nil, of: step, among: []) }
        }
        var answers: [(rank: UInt32, sentence: String)] = []
        for rank in ranks {
          let answer = try await session.call(
            .explainRecruiter, .with { ($0.stepID, $0.rank) = (step, rank) })
          answers.append((rank, answer.sentence))
        }
        return answers
      }
      for (rank, sentence) in answers {
        let place = answers.count > 1 ? "rank \(rank): " : ""
        try client.put(
          text: place + Escaping.printableLines(sentence) + "\n",
          json: .object([
            .init("step_id", .integer(step)), .init("rank", .integer(Int64(rank))),
            .init("sentence", .string(sentence)),
          ]), quiet: "\(step) \(rank)\n")
      }
    }
  }

  /// The sentence about a recruiter that is not there: it names those that are.
  static func missing(_ rank: UInt32?, of step: Int64, among others: [WireRecruiter]) -> Failure {
    guard let rank, !others.isEmpty else {
      return Failure(
        "step \(step) has no recruiter; this makes one: "
          + "scitq recruiter create --step-id \(step) --filter 'cpu>=2'"
      )
    }
    let ranks = others.map { "\($0.rank)" }.joined(separator: ", ")
    return Failure("step \(step) has no recruiter of rank \(rank); it has rank \(ranks)")
  }
}

extension Session {
  /// The recruiters of a step, or of all where it is zero, in the order of steps and ranks.
  func recruiters(of step: Int64) async throws -> [WireRecruiter] {
    try await call(.listRecruiters, .with { $0.stepID = step }).recruiters
      .sorted { ($0.stepID, $0.rank) < ($1.stepID, $1.rank) }
  }
}
