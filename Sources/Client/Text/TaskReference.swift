import ScitqProtocol

/// A task or job by its id, or one task of a job: `12`, `101:3`.
struct TaskReference: Hashable, Sendable {
  let id: Int64
  /// The index of the task in its job.
  var index: Int64?

  /// One or several with commas between.
  static func list(_ text: String) throws(TextProblem) -> [TaskReference] {
    var references: [TaskReference] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      references.append(try TaskReference(String(part)))
    }
    return references
  }

  init(id: Int64) { self.id = id }

  init(_ text: String) throws(TextProblem) {
    guard let colon = text.firstIndex(of: ":") else {
      id = try Values.id(text)
      return
    }
    let place = text[text.index(after: colon)...]
    guard let id = Int64(text[..<colon]), id >= 1, let index = Int64(place), index >= 0 else {
      throw TextProblem(
        "'\(Escaping.printable(text))' is no task; write an id as 12, or a job's id and an index as 101:3")
    }
    self.id = id
    self.index = index
  }

  var wire: WireTaskRef {
    var reference = WireTaskRef()
    reference.id = id
    if let index {
      reference.hasIndex_p = true
      reference.index = index
    }
    return reference
  }
}

/// What a task waits for: a task or a whole job, one task of a job, or a job index by index.
enum Prerequisite: Hashable, Sendable {
  case all(TaskReference)
  case each(Int64)

  var isEach: Bool {
    if case .each = self { true } else { false }
  }

  /// It names one task of a job.
  var hasIndex: Bool {
    if case .all(let reference) = self { reference.index != nil } else { false }
  }

  static func list(_ text: String) throws(TextProblem) -> [Prerequisite] {
    var found: [Prerequisite] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let part = String(part)
      if part.uppercased().hasSuffix(":N_TO_N") {
        found.append(.each(try Values.id(String(part.dropLast(7)))))
      } else {
        found.append(.all(try TaskReference(part)))
      }
    }
    return found
  }
}

extension Session {
  /// The id that a reference stands for. What is given as an id stays as it is, be it a task's or a job's.
  func resolve(_ reference: TaskReference) async throws -> Int64 {
    guard reference.index != nil else { return reference.id }
    return try await call(.findTask, reference.wire).task.id
  }
}
