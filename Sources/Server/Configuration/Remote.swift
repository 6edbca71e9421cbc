package import Transfer

/// One remote of the configuration: rclone's settings for it, and who may do what with it.
package struct Remote: Sendable, Equatable {
  /// As rclone's own configuration calls them. They hold secrets.
  package var settings: [String: String]
  /// Who may use it, and gets its settings for `scitq file` on a machine of their own. Nil: every user may name it in
  /// tasks, and nobody but admins gets its settings.
  package var users: Set<String>?
  /// Nothing is written there, by tasks or by `scitq file`.
  package var isReadOnly = false
  /// What is done about the hashes of its files.
  package var checksums = ChecksumPolicy.record
  /// Users get keys that end by themselves instead of the remote's own.
  package var lending: Lending?

  package struct Lending: Sendable, Equatable {
    /// How long lent keys are good for: 15 minutes to 36 hours, as token services have it.
    package var duration: Duration
    /// The role that is assumed; nil: the account's own rights are lent.
    package var role: String?
    /// The token service; nil: the provider's own.
    package var endpoint: String?
  }

  package init(settings: [String: String]) { self.settings = settings }

  /// In a list of users: all there are.
  static let everybody = "*"

  func mayBeUsed(by user: User) -> Bool { user.isAdmin || users.map { Self.name($0, user) } ?? true }

  func mayBeHandedTo(_ user: User) -> Bool { user.isAdmin || users.map { Self.name($0, user) } ?? false }

  private static func name(_ users: Set<String>, _ user: User) -> Bool {
    users.contains(user.username) || users.contains(everybody)
  }
}
