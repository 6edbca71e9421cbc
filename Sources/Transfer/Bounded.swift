import ScitqProtocol

/// Runs `body` for each, at most `width` at a time, and gives the results in order. The first failure cancels the rest.
func bounded<In: Sendable, Out: Sendable>(
  _ inputs: [In], width: Int, _ body: @escaping @Sendable (In) async throws(TransferFailure) -> Out
) async throws(TransferFailure) -> [Out] {
  do {
    return try await withThrowingTaskGroup(of: (Int, Out).self) { group in
      var results = [Out?](repeating: nil, count: inputs.count)
      var next = 0
      func addOne() {
        guard next < inputs.count else { return }
        let index = next
        next += 1
        let input = inputs[index]
        group.addTask { (index, try await body(input)) }
      }
      for _ in 0..<width { addOne() }
      while let (index, value) = try await group.next() {
        results[index] = value
        addOne()
      }
      return results.compactMap { $0 }
    }
  } catch let failure as TransferFailure {
    throw failure
  } catch {
    throw .interrupted
  }
}
