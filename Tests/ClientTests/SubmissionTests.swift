import Foundation
import ScitqProtocol
import Testing

@testable import ScitqClient

@Suite("Arrays, references and rules")
struct SubmissionTests {
  @Test("a task is named by its id or by its place in a job")
  func references() throws {
    #expect(try TaskReference.list("12,101:3").map { [$0.id, $0.index ?? -1] } == [[12, -1], [101, 3]])
    for wrong in ["", "0", "x", "1:", ":1", "1:-1", "1:2:3", "1,"] {
      #expect(throws: TextProblem.self, "\(wrong)") { try TaskReference.list(wrong) }
    }
    #expect(try Prerequisite.list("7,8:N_TO_N").map(\.isEach) == [false, true])
    #expect(try Prerequisite.list("8:n_to_n") == [.each(8)])
  }

  @Test("an array is a count, or a range with a step")
  func indexes() throws {
    func triple(_ text: String) throws -> [Int64] {
      let indexes = try ArrayIndexes(text)
      return [indexes.first, indexes.stride, indexes.count]
    }
    #expect(try triple("100") == [0, 1, 100])
    #expect(try triple("1-100") == [1, 1, 100])
    #expect(try triple("5-20:5") == [5, 5, 4])
    #expect(try triple("0-0") == [0, 1, 1])
    for wrong in ["0", "", "-3", "3-1", "1-5:0", "1-5:x", "5:2", "a", "1-2-3"] {
      #expect(throws: TextProblem.self, "\(wrong)") { try ArrayIndexes(wrong) }
    }
  }

  @Test("files are spread in order, none lost, the sizes no more than one apart", arguments: 0..<60)
  func spread(count: Int) {
    let files = Array(0..<count)
    for parts in 1...9 {
      let spread = files.spread(over: parts)
      #expect(spread.flatMap(\.self) == files)
      #expect(spread.count == min(parts, count))
      let sizes = spread.map(\.count)
      #expect((sizes.max() ?? 0) - (sizes.min() ?? 0) <= 1)
    }
  }

  @Test(
    "a rule of --retry-on is read as it is written back",
    arguments: [
      "exit=137:retry,mem×2", "exit=1-5:stop", "reason=worker-lost:retry", "any:retry,mem×1.5,delay=30s",
      "reason=timeout:stop",
    ])
  func rules(text: String) throws {
    #expect(try RetryRuleText.parse(text).words == text)
  }

  @Test("a rule that cannot be is refused with what would be right")
  func wrongRules() {
    for (text, hint) in [
      ("exit=137", "has no ':'"), ("exit=300:retry", "within 0 and 255"), ("reason=timeot:stop", "'timeout'"),
      ("exit=1:again", "neither 'retry' nor 'stop'"), ("any:stop,mem×2", "nothing can follow"),
      ("any:retry,mem×99", "from 1 to 16"), ("nothing:retry", "matches nothing"),
      ("exit=5-2:retry", "exit=1-5"),
    ] {
      let problem = #expect(throws: TextProblem.self, "\(text)") { try RetryRuleText.parse(text) }
      #expect(problem.map { "\($0)".contains(hint) } == true, "\(text): \(problem.map { "\($0)" } ?? "")")
    }
    #expect(throws: Never.self) { try RetryRuleText.parse("exit=1:retry,memx2") }
    #expect(throws: Never.self) { try RetryRuleText.parse("exit=1:retry,mem*2") }
  }

  @Test("a table has names, and as many fields in each row; the fault is named with its line")
  func table() throws {
    func read(_ text: String) throws -> ArrayTable {
      let path = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString).path
      _ = FileManager.default.createFile(atPath: path, contents: Data(text.utf8))
      defer { try? FileManager.default.removeItem(atPath: path) }
      let descriptor = open(path, O_RDONLY)
      defer { close(descriptor) }
      var reader = LineReader(descriptor: descriptor)
      return try ArrayTable.read(&reader, name: "t.tsv")
    }
    let table = try read("sample\tfq\r\nA\tx y\r\n\r\nB\t\r\n")
    #expect(table.columns == ["sample", "fq"])
    #expect(table.rows == [["A", "x y"], ["B", ""]])
    for (text, hint) in [
      ("a\tb\nx\n", "line 2: this row has 1 fields"), ("a b\nx\n", "cannot name a column"),
      ("a\n", "no rows"),
      ("", "no rows"),
    ] {
      let problem = #expect(throws: TextProblem.self) { try read(text) }
      #expect(problem.map { "\($0)".contains(hint) } == true, "\(text)")
    }
  }

  @Test("the totals of steps are the sums of their phases, from the first start to the last end")
  func totals() {
    func phase(_ count: Int64, _ total: Int64, _ least: Int64, _ most: Int64) -> WirePhaseStats {
      var phase = WirePhaseStats()
      (phase.count, phase.total, phase.least, phase.most) = (count, total, least, most)
      return phase
    }
    var a = WireStepStats()
    (a.startedAt, a.endedAt, a.runSucceeded) = (10, 50, phase(2, 30, 10, 20))
    var b = WireStepStats()
    (b.startedAt, b.endedAt, b.runSucceeded) = (5, 40, phase(1, 7, 7, 7))
    var count = WireStatusCount()
    (count.status, count.count) = ("S", 2)
    a.tasks = [count]
    b.tasks = [count]
    let sum = StepStatsRendering.total([a, b])
    #expect(sum.startedAt == 5 && sum.endedAt == 50)
    #expect(sum.runSucceeded == phase(3, 37, 7, 20))
    #expect(sum.tasks.first?.count == 4)
    b.endedAt = 0
    #expect(StepStatsRendering.total([a, b]).endedAt == 0, "one still runs")
    let text = StepStatsRendering.table([a], totals: true, now: 0, OutputStyle.detect(environment: [:])).rows
    #expect(text.count == 3 && text[0][4].text == "0 ms [0 ms–0 ms] 0 ms")
  }
}
