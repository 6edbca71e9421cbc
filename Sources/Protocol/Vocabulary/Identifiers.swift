/// A number the server gave to a thing. Each kind has its own type, so that one cannot stand in for another.
public protocol Identifier: RawRepresentable, Hashable, Comparable, Sendable, Codable,
  CustomStringConvertible, ExpressibleByIntegerLiteral
where RawValue == Int64 {
  init(rawValue: Int64)
}

extension Identifier {
  public init(_ rawValue: Int64) { self.init(rawValue: rawValue) }
  public init(integerLiteral value: Int64) { self.init(rawValue: value) }
  public var description: String { String(rawValue) }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// One attempt at a piece of work; a retry is a new task with a new id.
public struct TaskID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// An agent on a compute host.
public struct WorkerID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// A group of tasks that ask for the same environment, and of the workers that serve them.
public struct StepID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// Steps that belong together, and are owned, weighed and ended together.
public struct WorkflowID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// A host that was rented, or asked for.
public struct InstanceID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// A person with an account.
public struct UserID: Identifier {
  public let rawValue: Int64
  public init(rawValue: Int64) { self.rawValue = rawValue }
}

/// One giving of a task to a worker. It grows by one each time the task is assigned, and fences the past:
/// a report that names an older assignment changes nothing.
public struct AttemptID: Hashable, Sendable, CustomStringConvertible {
  public var task: TaskID
  public var assignment: Int64

  public init(task: TaskID, assignment: Int64) {
    self.task = task
    self.assignment = assignment
  }

  public var description: String { "\(task).\(assignment)" }
}
