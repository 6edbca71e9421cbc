import ScitqProtocol
import SwiftProtobuf

/// Sends tasks in one streamed call. A connection that breaks before the answer is opened again and the call repeated
/// with its key, so that the tasks are there once, however often it was sent.
struct TaskSubmission {
  let client: Client
  init(_ client: Client) { self.client = client }

  private static let attempts = 4

  func send(_ batches: TaskBatches) async throws -> WireTasksCreated {
    try await send(WireCreateTasks(), batches)
  }

  /// A job: its rows follow in the batches.
  func send(_ job: WireNewJob, rows: [WireJobRow]) async throws -> WireTasksCreated {
    var request = WireCreateTasks()
    request.job = job
    var batches: [WireTaskBatch] = []
    var open = WireTaskBatch()
    var bytes = 0
    for row in rows {
      let size = (row.values + row.inputs).reduce(16) { $0 + $1.utf8.count + 4 }
      guard size <= TaskBatches.largestTask else {
        throw TextProblem("a row takes \(size) bytes; at most \(TaskBatches.largestTask) fit in a message")
      }
      if bytes + size > TaskBatches.batchBytes, bytes > 0 {
        batches.append(open)
        (open, bytes) = (WireTaskBatch(), 0)
      }
      open.rows.append(row)
      bytes += size
    }
    if bytes > 0 { batches.append(open) }
    return try await send(request, batches)
  }

  private func send(
    _ call: WireCreateTasks, _ batches: some Sequence<WireTaskBatch> & Sendable
  ) async throws -> WireTasksCreated {
    var request = call
    request.idempotencyKey = Self.key()
    request.more = true
    let asked = request
    for attempt in 1... {
      var wasOpen = false
      do {
        return try await client.connected { session in
          wasOpen = true
          return try await session.connection.upload(.createTasks, asked, items: batches)
        }
      } catch let error as CallError where error.code == .unavailable && attempt < Self.attempts {
        // A server that was not there in the first place is for the person to know at once.
        guard wasOpen || attempt > 1 else { throw error }
        try await Task.sleep(for: .seconds(attempt))
      }
    }
    throw CancellationError()
  }

  /// 128 random bits.
  static func key() -> String {
    (0..<2).map { _ in
      let digits = String(UInt64.random(in: .min ... .max), radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
  }
}
