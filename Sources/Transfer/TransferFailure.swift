package import ScitqProtocol

/// Why files could not be moved: a class that programs act on, and one sentence for people without secrets.
package struct TransferFailure: Error, Sendable, Hashable, CustomStringConvertible {
  package var reason: FailureReason
  /// What is wrong, where, and what would be right. Never holds a password, key or signature.
  package var message: String
  /// The same try may succeed later. `Transfer` has already retried when it throws one of these.
  package var isTransient: Bool

  package init(_ reason: FailureReason, _ message: String, isTransient: Bool = false) {
    self.reason = reason
    self.message = message
    self.isTransient = isTransient
  }

  package var description: String { message }

  /// The task that asked for the transfer was cancelled.
  static let interrupted = TransferFailure(.canceled, "the transfer was interrupted")
}
