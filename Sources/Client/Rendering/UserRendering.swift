import ScitqProtocol

/// Accounts as people and programs see them.
enum UserRendering {
  static func table(_ users: [WireUserView]) -> Table {
    var table = Table(columns: [
      .init(title: "User ID", alignment: .right), .init(title: "Username", shrinksTo: 10),
      .init(title: "Email", shrinksTo: 12), .init(title: "Admin"),
    ])
    table.rows = users.map { user in
      [.init("\(user.id)"), .init(user.username), .init(user.email), .init(user.admin ? "yes" : "no")]
    }
    return table
  }

  static func json(_ user: WireUserView) -> JSON {
    .object([
      .init("id", .integer(user.id)),
      .init("username", .string(user.username)),
      .init("email", .text(user.email)),
      .init("admin", .bool(user.admin)),
      JSON.Member("role", .text(user.role)),
      JSON.Member("weight", .number(user.weight)),
      JSON.Member("maximum_running", .id(Int64(user.maximumRunning))),
      JSON.Member("maximum_cpu", user.maximumCpu == 0 ? .null : .number(user.maximumCpu)),
      .init("created_at", Moment.json(user.createdAt)),
    ])
  }
}
