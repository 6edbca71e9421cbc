import ArgumentParser
import ScitqProtocol
import SwiftProtobuf

/// Waits for tasks and says how each ended. Outlives a server that restarts: it connects again and goes on.
struct TaskWaiting {
  let client: Client
  init(_ client: Client) { self.client = client }

  /// Throws `ExitCode(1)` unless every task succeeded.
  func run(_ ids: [Int64]) async throws {
    var unique: Set<Int64> = []
    let ids = ids.filter { unique.insert($0).inserted }
    var told: Set<Int64> = []
    var allSucceeded = true
    try await Persistence(client).until { session in
      for try await task in session.connection.feed(.waitTasks, .with { $0.ids = ids }) {
        // After a new connection the server names again what had ended before.
        guard told.insert(task.id).inserted else { continue }
        allSucceeded = allSucceeded && task.status == TaskStatus.succeeded.rawValue
        try client.put(
          text: TaskRendering.ending(task) + "\n", json: TaskRendering.json(task), quiet: "\(task.id)\n")
      }
    }
    if !allSucceeded { throw ExitCode(1) }
  }
}

/// Prints what a task prints while it runs, through its retries, and ends as it ends.
struct TaskFollowing {
  let client: Client
  init(_ client: Client) { self.client = client }

  func run(_ id: Int64) async throws {
    var id = id
    var last = WireTask()
    repeat {
      if last.nextTaskID > 0 {
        try client.note("task \(id) \(TaskRendering.word(last)); it goes on as task \(last.nextTaskID)")
        id = last.nextTaskID
      }
      try await TaskPrinting(client, id: id, stream: .unspecified, tail: 0).run(follow: true)
      let asked = id
      last = try await client.connected { session in try await session.call(.getTask, .with { $0.id = asked })
      }
    } while last.nextTaskID > 0
    // The log's end comes before the verdict of a task that is still to be retried, or whose outputs are on their way.
    let ids = [id]
    try await Persistence(client).until { session in
      for try await task in session.connection.feed(.waitTasks, .with { $0.ids = ids }) { last = task }
    }
    guard last.status == TaskStatus.succeeded.rawValue else {
      try client.note(TaskRendering.ending(last))
      throw ExitCode(1)
    }
  }
}

/// Does something over connections, one after the other, until it has been done: for what may take days.
struct Persistence {
  let client: Client
  init(_ client: Client) { self.client = client }

  func until(_ body: (Session) async throws -> Void) async throws {
    var pause = 1
    var everConnected = false
    while true {
      do {
        return try await client.connected { session in
          (everConnected, pause) = (true, 1)
          try await body(session)
        }
      } catch let error as CallError where error.code == .unavailable && everConnected {
        if pause == 1 { try client.note("scitq: \(error); connecting again") }
        try await Task.sleep(for: .seconds(pause))
        pause = min(pause * 2, 15)
      }
    }
  }
}
