import Foundation
import GRDB
import ScitqProtocol

/// A person with an account, as the server knows them.
struct User: Sendable, Hashable {
  var id: UserID
  var username: String
  var email: String
  var isAdmin: Bool
  var createdAt: Int64

  init(_ row: Row) {
    id = UserID(row["id"])
    username = row["username"]
    email = row["email"]
    isAdmin = row["admin"]
    createdAt = row["created_at"]
  }

  var view: WireUserView {
    var view = WireUserView()
    view.id = id.rawValue
    view.username = username
    view.email = email
    view.admin = isAdmin
    view.createdAt = createdAt
    return view
  }
}

/// Who may come in, and with what. Passwords and tokens are kept as hashes only.
actor Accounts {
  private let store: Store
  private let engine: Engine
  private let passwords: PasswordHash
  private let configuration: Configuration
  private let joinTokenHash: String
  private var throttle = LoginThrottle()

  init(
    store: Store, engine: Engine, passwords: PasswordHash, configuration: Configuration, joinToken: String
  ) {
    self.store = store
    self.engine = engine
    self.passwords = passwords
    self.configuration = configuration
    joinTokenHash = Secret.hash(joinToken)
  }

  // MARK: Coming in

  /// Name and password for a token.
  func login(_ request: WireLogin, from address: String) async throws(CallError) -> WireLoggedIn {
    let user = try await check(request.username, request.password, from: address)
    let token = Secret.make(.user)
    let hash = Secret.hash(token)
    let now = microsecondsNow()
    let expires = now + configuration.tokens.userTTL.microseconds
    try await engine.write { db in
      try db.execute(sql: "DELETE FROM session WHERE expires_at < ?", arguments: [now])
      try db.execute(
        sql: "INSERT INTO session (token_hash, user_id, created_at, expires_at) VALUES (?, ?, ?, ?)",
        arguments: [hash, user.id.rawValue, now, expires])
    }
    var answer = WireLoggedIn()
    answer.token = token
    answer.expiresAt = expires
    return answer
  }

  private func check(_ name: String, _ password: String, from address: String) async throws(CallError) -> User
  {
    let wait = throttle.delay(name: name, address: address, now: .now)
    if wait > .zero {
      do { try await Task.sleep(for: wait) } catch {
        throw CallError(.unavailable, "the call was canceled")
      }
    }
    do {
      let found = try await store.read { db -> (user: User, password: String)? in
        try Row.fetchOne(db, sql: "SELECT * FROM user WHERE username = ?", arguments: [name]).map {
          (User($0), $0["password"])
        }
      }
      // Without such a user a password is checked all the same: the time taken tells nobody which names exist.
      guard try await passwords.verify(password, against: found?.password), let found else {
        throttle.failed(name: name, address: address, now: .now)
        throw CallError(.unauthenticated, "invalid credentials")
      }
      throttle.succeeded(name: name)
      return found.user
    } catch let error as CallError {
      throw error
    } catch {
      throw Engine.unavailable(error)
    }
  }

  /// Whose token this is.
  func user(token: String) async throws(CallError) -> User {
    let hash = Secret.hash(token)
    let now = microsecondsNow()
    let user: User?
    do {
      user = try await store.read { db in
        try Row.fetchOne(
          db,
          sql: """
            SELECT user.* FROM session JOIN user ON user.id = session.user_id
            WHERE session.token_hash = ? AND session.expires_at > ?
            """, arguments: [hash, now]
        ).map(User.init)
      }
    } catch { throw Engine.unavailable(error) }
    guard let user else {
      throw CallError(
        .unauthenticated,
        "the token is wrong or has expired: log in again with export SCITQ_TOKEN=$(scitq login)")
    }
    return user
  }

  func isJoinToken(_ token: String) -> Bool { Secret.equal(Secret.hash(token), joinTokenHash) }

  // MARK: Users

  func list() async throws(CallError) -> [User] {
    do {
      return try await store.read { db in
        try Row.fetchAll(db, sql: "SELECT * FROM user ORDER BY id").map(User.init)
      }
    } catch { throw Engine.unavailable(error) }
  }

  func create(_ request: WireCreateUser) async throws(CallError) -> User {
    try Self.check(name: request.username)
    let hash = try await hash(request.password)
    let now = microsecondsNow()
    try await refusingDoubles(request.username) { () async throws(CallError) in
      try await self.engine.write { db in
        try db.execute(
          sql: "INSERT INTO user (username, email, password, admin, created_at) VALUES (?, ?, ?, ?, ?)",
          arguments: [request.username, request.email, hash, request.admin, now])
      }
    }
    return try await named(request.username)
  }

  func update(_ request: WireUpdateUser) async throws(CallError) -> User {
    let user = try await get(UserID(request.id))
    if request.hasUsername { try Self.check(name: request.username) }
    if request.hasAdmin, !request.admin { try await keepAnAdmin(but: user) }
    try await refusingDoubles(request.username) { () async throws(CallError) in
      try await self.engine.write { db in
        try db.execute(
          sql: """
            UPDATE user SET username = coalesce(?, username), email = coalesce(?, email), admin = coalesce(?, admin)
            WHERE id = ?
            """,
          arguments: [
            request.hasUsername ? request.username : nil, request.hasEmail ? request.email : nil,
            request.hasAdmin ? request.admin : nil, request.id,
          ])
      }
    }
    return try await get(UserID(request.id))
  }

  /// Their tokens die with them; their tasks stay.
  func delete(_ id: UserID) async throws(CallError) {
    let user = try await get(id)
    try await keepAnAdmin(but: user)
    try await engine.write { db in
      try db.execute(sql: "DELETE FROM user WHERE id = ?", arguments: [id.rawValue])
    }
  }

  /// With the current password; or, for an admin who is logged in, another's without it.
  func changePassword(
    _ request: WireChangePassword, by caller: User?, from address: String
  ) async throws(CallError) {
    let user: User
    if request.currentPassword.isEmpty, let caller, caller.isAdmin, caller.username != request.username {
      user = try await named(request.username)
    } else {
      user = try await check(request.username, request.currentPassword, from: address)
    }
    let hash = try await hash(request.newPassword)
    try await engine.write { db in
      try db.execute(sql: "UPDATE user SET password = ? WHERE id = ?", arguments: [hash, user.id.rawValue])
      // Whoever knew the old one is out.
      try db.execute(sql: "DELETE FROM session WHERE user_id = ?", arguments: [user.id.rawValue])
    }
  }

  /// Makes the first account when there is none. The password, where it had to be made up.
  func makeAdmin() async throws -> String? {
    guard try await list().isEmpty else { return nil }
    let password = configuration.admin.password ?? Secret.makePassword()
    var request = WireCreateUser()
    request.username = configuration.admin.username
    request.email = configuration.admin.email
    request.password = password
    request.admin = true
    _ = try await create(request)
    return configuration.admin.password == nil ? password : nil
  }

  // MARK: Checks

  private func get(_ id: UserID) async throws(CallError) -> User {
    guard let user = try await list().first(where: { $0.id == id }) else {
      throw CallError(
        .notFound, "user \(id) does not exist; `scitq user list` shows those that do", field: "id")
    }
    return user
  }

  private func named(_ name: String) async throws(CallError) -> User {
    guard let user = try await list().first(where: { $0.username == name }) else {
      throw CallError(
        .notFound, "there is no user \(name); `scitq user list` shows those that exist", field: "username")
    }
    return user
  }

  private func keepAnAdmin(but user: User) async throws(CallError) {
    guard user.isAdmin, try await !list().contains(where: { $0.isAdmin && $0.id != user.id }) else { return }
    throw CallError(.conflict, "\(user.username) is the only admin: make another one first")
  }

  private func hash(_ password: String) async throws(CallError) -> String {
    do { return try await passwords.hash(password) } catch {
      throw CallError(.invalid, "\(error)", field: "password")
    }
  }

  private func refusingDoubles(
    _ name: String, _ body: () async throws(CallError) -> Void
  ) async throws(CallError) {
    if !name.isEmpty, try await list().contains(where: { $0.username == name }) {
      throw CallError(.conflict, "there is a user \(name) already", field: "username")
    }
    try await body()
  }

  private static func check(name: String) throws(CallError) {
    guard !name.isEmpty, name.count <= 64,
      name.allSatisfy({ $0.isLetter || $0.isNumber || "._-@".contains($0) })
    else {
      throw CallError(
        .invalid, "a user name has 1 to 64 letters, digits and . _ - @; this is \"\(name.prefix(80))\"",
        field: "username")
    }
  }
}

extension Duration {
  var microseconds: Int64 { components.seconds * 1_000_000 + components.attoseconds / 1_000_000_000_000 }
  var milliseconds: Int64 { microseconds / 1000 }
}
