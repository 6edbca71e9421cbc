import ArgumentParser
import ScitqProtocol

/// A workflow, by its id or its name.
struct WorkflowChoice: ParsableArguments {
  @Option(name: .customLong("workflow-id"), help: "The workflow's id.", transform: Values.id) var workflowID:
    Int64?
  @Option(name: .customLong("workflow-name"), help: "The workflow's name, instead of its id.")
  var workflowName: String?

  mutating func validate() throws {
    if workflowID != nil, workflowName != nil {
      throw ValidationError("--workflow-id and --workflow-name exclude each other; give one of them")
    }
  }

  var isGiven: Bool { workflowID != nil || workflowName != nil }

  /// Nil where none was chosen.
  func resolve(_ session: Session) async throws -> Int64? {
    if let workflowID { return workflowID }
    guard let workflowName else { return nil }
    return try await session.workflow(named: workflowName)
  }

  func required(_ session: Session) async throws -> Int64 {
    guard let id = try await resolve(session) else {
      throw ValidationError("the workflow is missing; give --workflow-id or --workflow-name")
    }
    return id
  }
}

extension Session {
  /// The id of the one workflow of this name.
  func workflow(named name: String) async throws -> Int64 {
    var request = WireListWorkflows()
    // The name itself, without wildcards: those in it are looked for in what comes back.
    request.name = name
    request.limit = 1000
    let found = try await call(.listWorkflows, request).workflows.filter { $0.name == name }
    guard let first = found.first else {
      throw Failure(
        "there is no workflow '\(Escaping.printable(name))'; 'scitq workflow list' shows those that exist")
    }
    guard found.count == 1 else {
      let ids = found.map { "\($0.id)" }.joined(separator: ", ")
      throw Failure(
        "\(found.count) workflows are named '\(Escaping.printable(name))': name one by its id, of \(ids)")
    }
    return first.id
  }

  func step(named name: String, of workflow: Int64) async throws -> Int64 {
    var request = WireListSteps()
    request.workflowID = workflow
    request.name = name
    guard let step = try await call(.listSteps, request).steps.first(where: { $0.name == name }) else {
      throw Failure(
        "workflow \(workflow) has no step '\(Escaping.printable(name))'; see 'scitq step list --workflow-id \(workflow)'"
      )
    }
    return step.id
  }
}
