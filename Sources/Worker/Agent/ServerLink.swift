package import ScitqProtocol
package import SwiftProtobuf

/// A conversation with the server, as the agent sees it. `Connection` is the real one.
package protocol ServerLink: Sendable {
  var welcome: WireWelcome { get }
  func call<Request: Message, Response: Message>(
    _ call: Call<Request, Response>, _ request: Request
  ) async throws(CallError) -> Response
  func close() async
  func waitUntilClosed() async -> CallError?
}

extension Connection: ServerLink {}

/// Opens a conversation; what the server pushes is handed to the second argument in order of arrival.
package typealias Connector =
  @Sendable (WireHello, @escaping @Sendable (Pushed) -> Void) async throws(CallError) -> any ServerLink
