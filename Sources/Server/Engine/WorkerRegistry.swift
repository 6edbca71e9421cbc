import ScitqProtocol
import Synchronization

/// The connections of workers, when each was last heard, and what its host said of itself.
///
/// None of it is worth keeping over a restart: workers say it again.
final class WorkerRegistry: Sendable {
  struct Presence: Sendable {
    var epoch: Int64
    var wire: Wire
    var stats: WireHostStats?
    var warnings: [String] = []
  }

  private struct State {
    var connected: [WorkerID: Presence] = [:]
    /// Figures outlive the connection, for whoever looks at a worker that has just gone.
    var lastStats: [WorkerID: WireHostStats] = [:]
    /// On the clock that only runs forward.
    var heard: [WorkerID: ContinuousClock.Instant] = [:]
  }
  private let state = Mutex(State())

  /// A newer session of the same worker takes over; the older one is told so and ends.
  func add(_ id: WorkerID, epoch: Int64, _ wire: Wire) {
    let older = state.withLock { state -> Presence? in
      let older = state.connected[id]
      guard (older?.epoch ?? 0) < epoch else { return nil }
      state.connected[id] = Presence(epoch: epoch, wire: wire)
      state.heard[id] = .now
      return older
    }
    older?.wire.end(CallError(.superseded, "the worker has connected again"))
  }

  func remove(_ id: WorkerID, epoch: Int64) {
    state.withLock { state in
      guard state.connected[id]?.epoch == epoch else { return }
      state.connected[id] = nil
    }
  }

  /// Every sign of life renews the lease.
  func heard(_ id: WorkerID, epoch: Int64, stats: WireHostStats? = nil, warnings: [String]? = nil) {
    state.withLock { state in
      guard state.connected[id]?.epoch == epoch else { return }
      state.heard[id] = .now
      if let stats {
        state.connected[id]?.stats = stats
        state.lastStats[id] = stats
      }
      if let warnings { state.connected[id]?.warnings = warnings }
    }
  }

  /// A full lease from now, as for every worker when the server starts.
  func grantLease(_ id: WorkerID) { state.withLock { $0.heard[id] = .now } }

  func forget(_ id: WorkerID) -> Wire? {
    state.withLock { state in
      state.heard[id] = nil
      state.lastStats[id] = nil
      return state.connected.removeValue(forKey: id)?.wire
    }
  }

  /// Those not heard of for longer than the lease.
  func silent(for lease: Duration) -> [WorkerID] {
    state.withLock { state in
      state.heard.filter { .now - $0.value > lease }.map(\.key).sorted()
    }
  }

  /// Those of the connected that were not heard of for so long.
  func quiet(for time: Duration) -> Set<WorkerID> {
    state.withLock { state in
      Set(state.connected.keys.filter { id in state.heard[id].map { .now - $0 > time } ?? false })
    }
  }

  /// Whether it is connected and holds its lease.
  func isHeard(_ id: WorkerID) -> Bool {
    state.withLock { $0.connected[id] != nil && $0.heard[id] != nil }
  }

  func endLease(_ id: WorkerID) { state.withLock { $0.heard[id] = nil } }

  func presence(_ id: WorkerID) -> Presence? { state.withLock { $0.connected[id] } }
  func stats(_ id: WorkerID) -> WireHostStats? { state.withLock { $0.lastStats[id] } }
  var connectedCount: Int { state.withLock { $0.connected.count } }
}
