import Testing

@testable import ScitqServer

@Suite("Gaps of a log")
struct GapListTests {
  @Test("gaps of one reason that touch become one; the written form reads back, torn lines aside")
  func merging() {
    var gaps = GapList()
    gaps.insert(LogGap(range: 10..<20, reason: "disk full"))
    gaps.insert(LogGap(range: 30..<40, reason: "disk full"))
    gaps.insert(LogGap(range: 20..<25, reason: "disk full"))
    #expect(gaps.gaps.map(\.range) == [10..<25, 30..<40])
    gaps.insert(LogGap(range: 5..<32, reason: "longer"))
    #expect(gaps.gaps == [LogGap(range: 5..<40, reason: "longer")])
    #expect(gaps.containing(39) != nil && gaps.containing(40) == nil && gaps.containing(4) == nil)
    #expect(gaps.nextStart(after: 4) == 5 && gaps.nextStart(after: 5) == nil && gaps.end == 40)
    let text = "out 1 2" + gaps.lines(for: .out) + "err 5 6 other\nout 9 3 backwards\nout x"
    #expect(GapList(lines: text, for: .out) == gaps)
  }
}
