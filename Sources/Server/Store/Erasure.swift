import GRDB
import ScitqProtocol

extension Database {
  /// Deletes tasks with all that hangs on them, and takes them out of the counts. Specs that nobody has any more go
  /// with them.
  func erase(_ tasks: [TaskID]) throws {
    let look = try HotStatement(self, "SELECT \(TaskRow.selection) FROM task WHERE id = ?")
    let lower = try HotStatement(
      self, "UPDATE task_count SET count = count - 1 WHERE step_id = ? AND status = ? AND hidden = ?")
    let lowerJob = try HotStatement(
      self, "UPDATE job_count SET count = count - 1 WHERE job_id = ? AND status = ?")
    let edges = try HotStatement(self, "DELETE FROM dependency WHERE task_id = ?")
    let delete = try HotStatement(self, "DELETE FROM task WHERE id = ?")
    var specs: Set<Int64> = []
    for id in tasks {
      look.bind(id.rawValue)
      var found: TaskRow?
      try look.each { found = TaskRow($0) }
      guard let row = found else { continue }
      specs.insert(row.specID)
      lower.bind(row.step?.rawValue ?? 0)
      lower.bind(row.status.rawValue)
      lower.bind(row.hidden)
      try lower.run()
      if let job = row.job, !row.hidden {
        lowerJob.bind(job.rawValue)
        lowerJob.bind(row.status.rawValue)
        try lowerJob.run()
      }
      edges.bind(id.rawValue)
      try edges.run()
      delete.bind(id.rawValue)
      try delete.run()
    }
    let unused = try HotStatement(
      self,
      "DELETE FROM task_spec WHERE id = ? AND NOT EXISTS (SELECT 1 FROM task WHERE spec_id = task_spec.id)")
    for spec in specs {
      unused.bind(spec)
      try unused.run()
    }
  }
}
