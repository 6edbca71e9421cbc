package import ScitqProtocol

/// Room on the store's disk, promised before it is used, so that downloads side by side do not fill it together.
///
/// A promise counts until it is given back, which is when its bytes are on the disk and show there.
package actor DiskLedger {
  /// How the disk stands; asked anew each time.
  package typealias Measure = @Sendable () -> Files.Room?
  /// Drops what is only kept for later, at least so many bytes if there are, and says how many.
  package typealias Evict = @Sendable (Int64) async -> Int64

  private let measure: Measure
  private let margin: Int64
  private var promised: [AttemptID: Int64] = [:]
  private var waiting: [UInt64: Wakeup] = [:]
  private var arrivals: UInt64 = 0
  /// Attempts with files of their own on the disk: when they end, room comes back.
  private var tenants: Set<AttemptID> = []
  /// Grows whenever room may have come back.
  private var changes: UInt64 = 0

  /// - Parameter margin: bytes that are never promised, so that logs and the journal can always be written.
  package init(margin: Int64 = 64 << 20, measure: @escaping Measure) {
    self.margin = margin
    self.measure = measure
  }

  /// Waits until the bytes can be promised.
  /// - Throws: reason `disk` with the figures, when waiting would never help; CancellationError.
  package func reserve(_ bytes: Int64, for id: AttemptID, evict: Evict) async throws {
    while true {
      try Task.checkCancellation()
      guard bytes > 0, let room = measure() else {
        tenants.insert(id)
        return
      }
      let seen = changes
      let others = promised.reduce(Int64(0)) { $1.key == id ? $0 : $0 + $1.value }
      let free = room.free - margin - others
      if bytes <= free {
        promised[id] = bytes
        tenants.insert(id)
        return
      }
      if await evict(bytes - free) > 0 || seen != changes { continue }
      // Nothing on this host will end and give room back: it is for the server, and people, to decide.
      if tenants.isEmpty || bytes > room.total - margin {
        throw ExecutionFailure(
          .disk,
          "its files need \(Self.figure(bytes)) of disk, and of this worker's \(Self.figure(room.total)) only \(Self.figure(max(0, room.free - margin))) can be used"
        )
      }
      arrivals += 1
      let number = arrivals
      let wakeup = Wakeup()
      waiting[number] = wakeup
      await wakeup.wait()
      waiting[number] = nil
    }
  }

  /// The bytes are on the disk, or will not come.
  package func settle(_ id: AttemptID) {
    if promised.removeValue(forKey: id) != nil { wakeAll() }
  }

  /// The attempt's files are gone.
  package func leave(_ id: AttemptID) {
    let had = promised.removeValue(forKey: id) != nil
    if tenants.remove(id) != nil || had { wakeAll() }
  }

  private func wakeAll() {
    changes += 1
    for wakeup in waiting.values { wakeup.wake() }
  }

  private static func figure(_ bytes: Int64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    let tenths = Int64((value * 10).rounded())
    return unit == 0 ? "\(bytes) B" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
  }
}
