import ScitqProtocol

/// Which jobs the tasks are part of, each held once.
struct JobTable: Sendable {
  private struct Entry: Sendable {
    var id: TaskID
    var tasks = 0
  }
  private var entries = Slab<Entry>()
  private var index: [TaskID: UInt32] = [:]

  subscript(_ job: UInt32) -> TaskID? { job == nowhere ? nil : entries[job].id }

  /// The job, with one task more.
  mutating func acquire(_ id: TaskID?) -> UInt32 {
    guard let id else { return nowhere }
    let job = index[id] ?? entries.insert(Entry(id: id))
    index[id] = job
    entries[job].tasks += 1
    return job
  }

  mutating func release(_ job: UInt32) {
    if job == nowhere { return }
    entries[job].tasks -= 1
    guard entries[job].tasks == 0 else { return }
    index[entries[job].id] = nil
    entries.release(job, leaving: Entry(id: 0))
  }
}
