/// A call that could not be done: a stable code, a sentence for people, and the field at fault.
public struct CallError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Code: String, CaseIterable, Sendable, Codable {
    case unauthenticated, forbidden
    case notFound = "not-found"
    case invalid, conflict, exhausted, unavailable,
      superseded, `internal`
  }

  public var code: Code
  /// One sentence: what is wrong, where, and what would be right.
  public var message: String
  /// The request's field at fault, or empty.
  public var field: String

  public init(_ code: Code, _ message: String, field: String = "") {
    self.code = code
    self.message = message
    self.field = field
  }

  public var description: String { message }
}

extension CallError {
  package init(wire: WireFailure) {
    let code: Code =
      switch wire.code {
      case .unauthenticated: .unauthenticated
      case .forbidden: .forbidden
      case .notFound: .notFound
      case .invalid: .invalid
      case .conflict: .conflict
      case .exhausted: .exhausted
      case .unavailable: .unavailable
      case .superseded: .superseded
      case .internal, .unspecified, .UNRECOGNIZED: .internal
      }
    self.init(code, wire.message, field: wire.field)
  }

  package var wire: WireFailure {
    var failure = WireFailure()
    failure.code =
      switch code {
      case .unauthenticated: .unauthenticated
      case .forbidden: .forbidden
      case .notFound: .notFound
      case .invalid: .invalid
      case .conflict: .conflict
      case .exhausted: .exhausted
      case .unavailable: .unavailable
      case .superseded: .superseded
      case .internal: .internal
      }
    failure.message = message
    failure.field = field
    return failure
  }
}
