import ArgumentParser
import Foundation
import ScitqProtocol
import SwiftProtobuf

/// What every command has: where the server is, who asks, and how results are shown.
struct Client: Sendable {
  enum Format: Sendable { case text, json, quiet }

  let address: ServerAddress
  let token: String?
  let format: Format
  let style: OutputStyle
  let environment: [String: String]
  /// For reaching the server.
  let reaching: Duration
  /// For one answer.
  let answering: Duration

  init(_ globals: Globals, environment: [String: String]) throws {
    address = try globals.address(environment)
    token = globals.token ?? environment["SCITQ_TOKEN"].flatMap { $0.isEmpty ? nil : $0 }
    format = globals.json ? .json : globals.quiet ? .quiet : .text
    style = .detect(environment: environment)
    self.environment = environment
    reaching = globals.timeout ?? .seconds(15)
    answering = globals.timeout ?? .seconds(120)
  }

  var dialer: Dialer { Dialer(address: address, environment: environment, timeout: reaching) }

  /// A connection for the user of the token, closed when the body has ended.
  func connected<R>(_ body: (Session) async throws -> R) async throws -> R {
    guard let token else { throw Failure(Self.reminder) }
    return try await connected(token: token, body)
  }

  /// A connection with this token, or with none: for what needs no user.
  func connected<R>(token: String?, _ body: (Session) async throws -> R) async throws -> R {
    let connection = try await dialer.open(token: token)
    do {
      let result = try await body(Session(connection: connection, address: address, limit: answering))
      await connection.close()
      return result
    } catch {
      await connection.close()
      throw error
    }
  }

  static let reminder = "you are not logged in; run: export SCITQ_TOKEN=$(scitq login)"

  /// Writes a result to stdout.
  func put(_ text: String) throws { try Descriptor.write(text.utf8, to: STDOUT_FILENO) }

  func put(text: @autoclosure () -> String, json: @autoclosure () -> JSON, quiet: @autoclosure () -> String)
    throws
  {
    switch format {
    case .text: try put(text())
    case .json: try put(json().compact + "\n")
    case .quiet: try put(quiet())
    }
  }

  /// Writes a remark to stderr.
  func note(_ text: String) throws { try Descriptor.write((text + "\n").utf8, to: STDERR_FILENO) }
}

/// An open connection, with a bound on how long one answer may take.
struct Session: Sendable {
  let connection: Connection
  let address: ServerAddress
  let limit: Duration

  func call<Q, R>(_ call: Call<Q, R>, _ request: Q) async throws -> R {
    let (connection, address, limit) = (connection, address, limit)
    return try await withThrowingTaskGroup(of: R.self) { group in
      group.addTask { try await connection.call(call, request) }
      group.addTask {
        try await Task.sleep(for: limit)
        throw CallError(.unavailable, "\(address) did not answer within \(limit); --timeout allows it longer")
      }
      defer { group.cancelAll() }
      guard let answer = try await group.next() else { throw CancellationError() }
      return answer
    }
  }
}
