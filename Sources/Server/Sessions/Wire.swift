import NIOCore
import ScitqProtocol
import SwiftProtobuf
import Synchronization

/// The server's end of one connection, for whoever has something to say on it. Writing never waits: what streams
/// in bulk keeps to its window.
struct Wire: Sendable {
  let channel: any Channel

  func send(_ frame: Frame) { channel.writeAndFlush(frame, promise: nil) }

  func respond(_ method: UInt16, _ stream: UInt32, _ payload: [UInt8]) {
    send(Frame(.response, method: method, stream: stream, payload: payload))
  }

  func fail(_ method: UInt16, _ stream: UInt32, _ error: CallError) {
    send(Frame(.error, method: method, stream: stream, payload: (try? error.wire.serializedBytes()) ?? []))
  }

  func push<P: Message>(_ push: Push<P>, _ payload: P) {
    guard let bytes: [UInt8] = try? payload.serializedBytes() else { return }
    send(Frame(.push, method: push.method.rawValue, payload: bytes))
  }

  /// Says why, then ends the connection.
  func end(_ error: CallError) {
    let frame = Frame(.error, payload: (try? error.wire.serializedBytes()) ?? [])
    channel.writeAndFlush(frame).whenComplete { [channel] _ in channel.close(promise: nil) }
  }
}

/// What a session keeps of a stream that is open.
final class OpenStream: Sendable {
  private struct State {
    var items: [[UInt8]] = []
    var ended = false
    var canceled = false
    var waiter: CheckedContinuation<Void, Never>?
  }
  let id: UInt32
  let method: UInt16
  private let wire: Wire
  private let state = Mutex(State())
  /// For what the server sends on it.
  let credit = Credit()

  init(id: UInt32, method: UInt16, wire: Wire) {
    self.id = id
    self.method = method
    self.wire = wire
  }

  /// Sends one item of a feed, when its window has room. False when nobody reads any longer.
  func send(_ item: some Message) async -> Bool {
    guard let bytes: [UInt8] = try? item.serializedBytes(), await credit.take(bytes.count) else {
      return false
    }
    wire.send(Frame(.chunk, method: method, stream: id, payload: bytes))
    return true
  }

  func received(_ item: [UInt8]) { wake { $0.items.append(item) } }
  func receivedEnd() { wake { $0.ended = true } }
  func cancel() {
    wake { $0.canceled = true }
    credit.close()
  }

  var isCanceled: Bool { state.withLock { $0.canceled } }

  private func wake(_ change: (inout State) -> Void) {
    let waiter = state.withLock { state in
      change(&state)
      defer { state.waiter = nil }
      return state.waiter
    }
    waiter?.resume()
  }

  /// The next item of an upload; nil at its end.
  func next() async throws(CallError) -> [UInt8]? {
    while true {
      let (item, done, canceled) = state.withLock { state -> ([UInt8]?, Bool, Bool) in
        if state.canceled { return (nil, true, true) }
        if !state.items.isEmpty { return (state.items.removeFirst(), false, false) }
        return (nil, state.ended, false)
      }
      if canceled { throw CallError(.unavailable, "the call was canceled") }
      if let item {
        wire.send(Frame(.window, method: method, stream: id, payload: Window.payload(item.count)))
        return item
      }
      if done { return nil }
      await withCheckedContinuation { continuation in
        let resume = state.withLock { state in
          if state.canceled || state.ended || !state.items.isEmpty { return true }
          state.waiter = continuation
          return false
        }
        if resume { continuation.resume() }
      }
    }
  }

  /// Returns when the client has canceled the stream or its connection has ended.
  func untilCanceled() async {
    while !isCanceled && !Task.isCancelled {
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let resume = state.withLock { state in
            if state.canceled || Task.isCancelled { return true }
            state.waiter = continuation
            return false
          }
          if resume { continuation.resume() }
        }
      } onCancel: {
        wake { _ in }
      }
    }
  }
}
