package import ScitqProtocol

extension Cluster {
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
