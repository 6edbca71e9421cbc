package import ScitqProtocol

extension Cluster {
  /// What a user's limits still let be given to workers: tasks, and the cpu that they state in thousandths; nil: no
  /// limit.
  package func room(of user: UserID) -> (tasks: Int?, cpuMilli: Int64?) {
    guard let index = userIndex[user] else { return (nil, nil) }
    let (entry, running, cpuMilli) = (users[index].entry, users[index].running, users[index].cpuMilli)
    return (
      entry.maximumRunning.map { max(0, Int($0) - Int(running)) },
      entry.maximumCPUMilli.map { max(0, $0 - cpuMilli) }
    )
  }

  /// What of a step could run now, by shape: tasks that are ready and not held.
  package func demands(of step: StepID) -> [StepNeed.Demand] {
    guard let pool = poolIndex[.step(step)] else { return [] }
    return pools[pool].shapes.compactMap { index in
      let shape = shapes[index]
      guard !shape.pending.isEmpty else { return nil }
      return StepNeed.Demand(
        needs: shape.key.needs, weightMilli: Int64(shape.key.weightMilli), tasks: shape.pending.items.count)
    }
  }
}
