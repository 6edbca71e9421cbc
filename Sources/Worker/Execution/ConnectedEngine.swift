import Glibc
import ScitqProtocol

/// An engine at the other end of the socket, and how far it has been told.
final class ConnectedEngine {
  /// How far one stream has been sent, and how far it may be.
  struct Progress {
    var sent: Int64
    var limit: Int64
  }

  struct View {
    var watches = false
    var told = false
    var awaitsKill = false
    var follows = false
    var out = Progress(sent: 0, limit: 0)
    var err = Progress(sent: 0, limit: 0)

    mutating func follow(out: Int64, err: Int64) {
      follows = true
      self.out = Progress(sent: out, limit: out + SupervisorFrame.window)
      self.err = Progress(sent: err, limit: err + SupervisorFrame.window)
    }

    mutating func widen(out: Int64, err: Int64) {
      self.out.limit = max(self.out.limit, out + SupervisorFrame.window)
      self.err.limit = max(self.err.limit, err + SupervisorFrame.window)
    }
  }

  let fd: Int32
  var pending: [UInt8] = []
  var views: [AttemptID: View] = [:]
  /// Output was held back because the socket is full.
  var starved = false
  private var written = 0
  private var input: [UInt8] = []

  private static let pendingLimit = 1 << 20

  init(fd: Int32) { self.fd = fd }

  var hasPending: Bool { written < pending.count }
  var hasRoom: Bool { pending.count - written < Self.pendingLimit }

  /// Reads what is there. False: the engine is gone.
  func receive() -> Bool {
    let size = 256 << 10
    while true {
      var n = 0
      let before = input.count
      input.reserveCapacity(before + size)
      withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 1) { buffer in
        n = read(fd, buffer.baseAddress, buffer.count)
        if n > 0 { input.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<n])) }
      }
      if n == 0 { return false }
      if n < 0 {
        if errno == EINTR { continue }
        return errno == EAGAIN
      }
      if n < 64 << 10 { return true }
    }
  }

  func takeInput() -> [UInt8] {
    defer { input = [] }
    return input
  }

  func keepInput(_ taken: consuming [UInt8], from position: Int) {
    if position == taken.count { taken.removeAll(keepingCapacity: true) } else { taken.removeFirst(position) }
    input = taken
  }

  /// Appends what the engine may have of the attempt's output.
  func pump(_ attempt: SupervisedAttempt) {
    guard var view = views[attempt.id], view.follows else { return }
    pump(attempt.id, attempt.out, 0, &view.out)
    pump(attempt.id, attempt.err, 1, &view.err)
    views[attempt.id] = view
  }

  private func pump(_ id: AttemptID, _ stream: RetainedStream, _ number: UInt8, _ progress: inout Progress) {
    while progress.sent < min(stream.total, progress.limit) {
      guard hasRoom else {
        starved = true
        return
      }
      let limit = Int(min(progress.limit - progress.sent, Int64(SupervisorFrame.chunk)))
      var n = 0
      pending.frame(.output, id) {
        $0.append(number)
        $0.put(progress.sent)
        n = stream.read(at: progress.sent, limit: limit, into: &$0)
      }
      guard n > 0 else { return }
      progress.sent += Int64(n)
    }
  }

  func tellEnd(of attempt: SupervisedAttempt) {
    guard let view = views[attempt.id], let ending = attempt.ending else { return }
    if view.awaitsKill {
      pending.frame(.killed, attempt.id)
      views[attempt.id]?.awaitsKill = false
    }
    guard view.watches || view.follows else { return }
    views[attempt.id]?.told = true
    pending.frame(.exited, attempt.id) {
      $0.put(ending.code)
      $0.put(ending.signal)
      $0.append(ending.leftProcesses ? 1 : 0)
      $0.put(attempt.out.total)
      $0.put(attempt.err.total)
    }
  }

  /// Writes what is pending, as far as the socket takes it. False: the engine is gone.
  func send() -> Bool {
    while written < pending.count {
      let n = pending.withUnsafeBytes { write(fd, $0.baseAddress! + written, $0.count - written) }
      if n < 0 {
        if errno == EINTR { continue }
        if errno == EAGAIN { break }
        return false
      }
      written += n
    }
    if written == pending.count {
      pending.removeAll(keepingCapacity: pending.capacity <= 4 << 20)
      written = 0
    } else if written >= Self.pendingLimit {
      pending.removeFirst(written)
      written = 0
    }
    return true
  }
}
