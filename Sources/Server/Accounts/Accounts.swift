import Foundation
import GRDB
import Scheduling
import ScitqProtocol

/// A person with an account, as the server knows them.
struct User: Sendable, Hashable {
  var id: UserID
  var username: String
  var email: String
  var role: Role
  /// Of the shares of users, in thousandths.
  var weightMilli: Int32
  /// Tasks on workers at once; nil: no limit.
  var maximumRunning: Int32?
  /// The sum of what those state, in thousandths of a cpu; nil: no limit.
  var maximumCPUMilli: Int64?
  var createdAt: Int64

  /// What a user may do: everything; submit, and change what is theirs; or look.
  enum Role: String, Sendable, CaseIterable {
    case admin, user
    case readOnly = "read-only"
  }

  var isAdmin: Bool { role == .admin }

  init(_ row: Row) {
    id = UserID(row["id"])
    username = row["username"]
    email = row["email"]
    role = Role(rawValue: row["role"]) ?? .readOnly
    weightMilli = row["weight_milli"]
    maximumRunning = row["maximum_running"]
    maximumCPUMilli = row["maximum_cpu_milli"]
    createdAt = row["created_at"]
  }

  /// The server itself, when it does what a person could have asked for.
  static let server = User(id: 0, username: "server", role: .admin)

  private init(id: UserID, username: String, role: Role) {
    self.id = id
    self.username = username
    email = ""
    self.role = role
    weightMilli = 1000
    createdAt = 0
  }

  /// As the scheduler sees them.
  var entry: UserEntry {
    UserEntry(
      id: id, weightMilli: weightMilli, maximumRunning: maximumRunning, maximumCPUMilli: maximumCPUMilli)
  }

  var view: WireUserView {
    var view = WireUserView()
    view.id = id.rawValue
    view.username = username
    view.email = email
    view.admin = isAdmin
    view.role = role.rawValue
    view.weight = Double(weightMilli) / 1000
    view.maximumRunning = UInt32(clamping: maximumRunning ?? 0)
    view.maximumCpu = Double(maximumCPUMilli ?? 0) / 1000
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
  nonisolated let revocations = Revocations()

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
    let most = configuration.tokens.userTTL.microseconds
    let expires =
      now + (request.lifetimeMs > 0 ? min(most, request.lifetimeMs.multipliedClamping(by: 1000)) : most)
    try await engine.write(saying: [Self.event(user.id, "login", by: user.id, address)]) { db in
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

  /// The token is worth nothing any more.
  func logout(_ hash: String, _ user: User) async throws(CallError) {
    try await engine.write(saying: [Self.event(user.id, "logout", by: user.id)]) { db in
      try db.execute(sql: "DELETE FROM session WHERE token_hash = ?", arguments: [hash])
    }
    revocations.revoke(token: hash)
  }

  /// All tokens of a user are worth nothing any more.
  func revokeTokens(of id: UserID, by caller: User) async throws(CallError) {
    let user = try await get(id)
    try await engine.write(saying: [Self.event(user.id, "tokens-revoked", by: caller.id)]) { db in
      try db.execute(sql: "DELETE FROM session WHERE user_id = ?", arguments: [user.id.rawValue])
    }
    revocations.revoke(user: user.id)
  }

  private static func event(_ user: UserID, _ what: String, by caller: UserID?, _ reason: String? = nil)
    -> Batch.Event
  {
    Batch.Event(
      object: "user", first: user.rawValue, last: user.rawValue, from: nil, to: what, worker: nil,
      user: caller,
      reason: reason)
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

  /// - Parameter caller: nil for the first account, which the server makes itself.
  func create(_ request: WireCreateUser, by caller: User?) async throws(CallError) -> User {
    try Self.check(name: request.username)
    let role = try Self.role(request.role, admin: request.admin)
    let hash = try await hash(request.password)
    let now = microsecondsNow()
    try await refusingDoubles(request.username) { () async throws(CallError) in
      try await self.engine.write { db in
        try db.execute(
          sql: "INSERT INTO user (username, email, password, role, created_at) VALUES (?, ?, ?, ?, ?)",
          arguments: [request.username, request.email, hash, role.rawValue, now])
      }
    }
    let user = try await named(request.username)
    try await engine.write(saying: [Self.event(user.id, "created", by: caller?.id, user.username)]) { _ in }
    engine.send(.user(user.entry))
    return user
  }

  func update(_ request: WireUpdateUser, by caller: User) async throws(CallError) -> User {
    let user = try await get(UserID(request.id))
    if request.hasUsername { try Self.check(name: request.username) }
    var role = user.role
    if request.hasRole {
      role = try Self.role(request.role, admin: false)
    } else if request.hasAdmin {
      role = request.admin ? .admin : user.role == .admin ? .user : user.role
    }
    if role != .admin { try await keepAnAdmin(but: user) }
    if request.hasWeight, !(0.001...1000).contains(request.weight) {
      throw CallError(.invalid, "the weight is \(request.weight); it is from 0.001 to 1000", field: "weight")
    }
    if request.hasMaximumCpu, !(0...1_000_000).contains(request.maximumCpu) {
      throw CallError(
        .invalid, "the maximum of cpu is \(request.maximumCpu); it is from 0 (no limit) to 1000000",
        field: "maximum-cpu")
    }
    let weight = request.hasWeight ? Int32((request.weight * 1000).rounded()) : user.weightMilli
    let running =
      request.hasMaximumRunning
      ? request.maximumRunning == 0 ? nil : Int32(clamping: request.maximumRunning) : user.maximumRunning
    let cpu =
      request.hasMaximumCpu
      ? request.maximumCpu == 0 ? nil : Int64((request.maximumCpu * 1000).rounded()) : user.maximumCPUMilli
    try await refusingDoubles(request.username == user.username ? "" : request.username) {
      [role] () async throws(CallError) in
      try await self.engine.write(saying: [Self.event(user.id, "updated", by: caller.id)]) { db in
        try db.execute(
          sql: """
            UPDATE user SET username = coalesce(?, username), email = coalesce(?, email), role = ?,
              weight_milli = ?, maximum_running = ?, maximum_cpu_milli = ?
            WHERE id = ?
            """,
          arguments: [
            request.hasUsername ? request.username : nil, request.hasEmail ? request.email : nil,
            role.rawValue, weight, running, cpu, request.id,
          ])
      }
    }
    // What is open now knows the old role.
    if role != user.role { revocations.revoke(user: user.id) }
    let changed = try await get(UserID(request.id))
    engine.send(.user(changed.entry))
    return changed
  }

  private static func role(_ text: String, admin: Bool) throws(CallError) -> User.Role {
    if text.isEmpty { return admin ? .admin : .user }
    guard let role = User.Role(rawValue: text) else {
      throw CallError(
        .invalid, "\"\(text.prefix(40))\" is no role; they are admin, user and read-only", field: "role")
    }
    return role
  }

  /// Their tokens die with them; their tasks stay.
  func delete(_ id: UserID, by caller: User) async throws(CallError) {
    let user = try await get(id)
    try await keepAnAdmin(but: user)
    try await engine.write(saying: [Self.event(user.id, "deleted", by: caller.id, user.username)]) { db in
      try db.execute(sql: "DELETE FROM user WHERE id = ?", arguments: [id.rawValue])
    }
    revocations.revoke(user: id)
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
    try await engine.write(
      saying: [Self.event(user.id, "password-changed", by: caller?.id ?? user.id)]
    ) { db in
      try db.execute(sql: "UPDATE user SET password = ? WHERE id = ?", arguments: [hash, user.id.rawValue])
      // Whoever knew the old one is out.
      try db.execute(sql: "DELETE FROM session WHERE user_id = ?", arguments: [user.id.rawValue])
    }
    revocations.revoke(user: user.id)
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
    _ = try await create(request, by: nil)
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

extension Int64 {
  func multipliedClamping(by other: Int64) -> Int64 {
    let (product, overflow) = multipliedReportingOverflow(by: other)
    return overflow ? .max : product
  }
}

extension Duration {
  var microseconds: Int64 { components.seconds * 1_000_000 + components.attoseconds / 1_000_000_000_000 }
  var milliseconds: Int64 { microseconds / 1000 }
}
