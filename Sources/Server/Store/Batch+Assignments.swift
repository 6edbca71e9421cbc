import GRDB
import ScitqProtocol

extension Batch {
  /// Gives tasks to workers, and answers what these are to be told.
  func writeAssignments(_ db: Database) throws -> [Order] {
    guard !assigned.isEmpty else { return [] }
    let assign = try HotStatement(
      db, "UPDATE task SET status = 'A', worker_id = ?, assignment = ?, assigned_at = ? WHERE id = ?")
    let read = try HotStatement(
      db,
      """
      SELECT \(TaskRow.selection), \(TaskSpecRow.selection)
      FROM task JOIN task_spec ON task_spec.id = task.spec_id WHERE task.id = ?
      """)
    var orders: [Order] = []
    orders.reserveCapacity(assigned.count)
    for entry in assigned {
      assign.bind(entry.worker.rawValue)
      assign.bind(entry.assignment)
      assign.bind(now)
      assign.bind(entry.task.rawValue)
      try assign.run()
      read.bind(entry.task.rawValue)
      try read.each { row in
        var rest = row
        rest.skip(TaskRow.columns.count)
        let row = TaskRow(row)
        var spec = TaskSpecRow.read(&rest)
        row.expand(&spec)
        orders.append(Order(row: row, spec: spec))
      }
    }
    for index in orders.indices {
      guard let step = orders[index].row.step, threadSteps.contains(step), !orders[index].spec.inputs.isEmpty
      else { continue }
      orders[index].kept = try db.outputsKept(for: orders[index].row)
    }
    return orders
  }
}

extension Database {
  /// What the prerequisites of a task uploaded from the worker that it is given to, and where.
  fileprivate func outputsKept(for task: TaskRow) throws -> [WireKeptOutput] {
    guard let worker = task.worker else { return [] }
    let statement = try HotStatement(
      self,
      """
      SELECT \(TaskRow.selection), \(TaskSpecRow.selection)
      FROM dependency JOIN task ON task.id = dependency.prerequisite_id
      JOIN task_spec ON task_spec.id = task.spec_id
      WHERE dependency.task_id = ? AND task.worker_id = ? AND task.status = 'S'
      """)
    statement.bind(task.id.rawValue)
    statement.bind(worker.rawValue)
    var kept: [WireKeptOutput] = []
    try statement.each { row in
      var rest = row
      rest.skip(TaskRow.columns.count)
      let row = TaskRow(row)
      var spec = TaskSpecRow.read(&rest)
      row.expand(&spec)
      let output = spec.publish.isEmpty || spec.publishMode == .copy ? spec.output : ""
      for uri in [output, spec.publish] where !uri.isEmpty {
        var one = WireKeptOutput()
        one.attempt.taskID = row.id.rawValue
        one.attempt.assignment = row.assignment
        one.uri = uri
        kept.append(one)
      }
    }
    return kept
  }
}
