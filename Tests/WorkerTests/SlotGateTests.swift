import ScitqProtocol
import Testing

@testable import ScitqWorker

@Suite struct SlotGateTests {
  private func id(_ task: Int) -> AttemptID { AttemptID(task: TaskID(Int64(task)), assignment: 1) }
  private let host = SlotGate.Load(weight: 1, cpu: 8, memory: 64, gpu: 2)

  @Test(
    "never more runs than fits, unless it is alone; everybody runs in the end",
    arguments: 0..<100 as Range<UInt64>)
  func fits(seed: UInt64) {
    var random = Seeded(seed)
    var gate = SlotGate(slots: 4, host: host)
    var running: Set<AttemptID> = []
    var waiting: Set<AttemptID> = []
    var loads: [AttemptID: SlotGate.Load] = [:]
    var next = 0
    func holds() -> Bool {
      let sum = running.map { loads[$0]! }
      return running.count <= 1
        || sum.reduce(0) { $0 + $1.weight } <= 4.0001 && sum.reduce(0) { $0 + $1.cpu } <= 8.0001
          && sum.reduce(0) { $0 + $1.memory } <= 64 && sum.reduce(0) { $0 + $1.gpu } <= 2
    }
    for _ in 0..<300 {
      if Bool.random(using: &random) {
        next += 1
        let one = id(next)
        let load = SlotGate.Load(
          weight: [0.1, 0.25, 1, 2, 6].randomElement(using: &random)!,
          cpu: Double(Int.random(in: 0...10, using: &random)),
          memory: Int64.random(in: 0...70, using: &random),
          gpu: UInt32.random(in: 0...3, using: &random))
        loads[one] = load
        if gate.enter(one, load) {
          running.insert(one)
        } else {
          gate.wait(one, load, priority: Int32.random(in: 0...2, using: &random))
          waiting.insert(one)
        }
      } else if let one = (Bool.random(using: &random) ? running : waiting).randomElement(using: &random) {
        gate.leave(one)
        running.remove(one)
        waiting.remove(one)
      }
      for one in gate.admit() {
        #expect(waiting.remove(one) != nil)
        running.insert(one)
      }
      #expect(holds(), "seed \(seed)")
      #expect(Set(gate.running.keys) == running)
      #expect(!running.isEmpty || waiting.isEmpty, "seed \(seed): somebody waits and nobody runs")
    }
    while let one = running.first {
      gate.leave(one)
      running.remove(one)
      for one in gate.admit() {
        waiting.remove(one)
        running.insert(one)
      }
    }
    #expect(waiting.isEmpty, "seed \(seed)")
  }

  @Test("priority first, then the order of arrival, and nobody passes")
  func order() {
    var gate = SlotGate(slots: 2, host: host)
    let one = SlotGate.Load(weight: 1)
    let first = gate.enter(id(1), one)
    let second = gate.enter(id(2), one)
    #expect(first && second)
    gate.wait(id(3), one, priority: 0)
    gate.wait(id(4), SlotGate.Load(weight: 2), priority: 5)
    gate.wait(id(5), one, priority: 5)
    gate.wait(id(6), one, priority: 0)
    gate.leave(id(1))
    let none = gate.admit()
    let passes = gate.enter(id(7), one)
    #expect(none.isEmpty && !passes)
    gate.leave(id(2))
    let admitted1 = gate.admit()
    #expect(admitted1 == [id(4)])
    gate.leave(id(4))
    let admitted2 = gate.admit()
    #expect(admitted2 == [id(5), id(3)])
    gate.leave(id(3))
    let admitted3 = gate.admit()
    #expect(admitted3 == [id(6)])
  }
}
