import ScitqProtocol
import Testing

@testable import ScitqClient

@Suite("Values of flags")
struct ValuesTests {
  @Test(
    "durations are read with and without units",
    arguments: [
      ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("0", 0),
      ("1d2h3m4s", 93_784),
    ])
  func durations(text: String, seconds: Int64) throws {
    #expect(try Values.duration(text) == .seconds(seconds))
  }

  @Test(
    "what is no duration is refused with an example",
    arguments: [
      "", "s", "m5", "5x", "-5", "1.5h", "1h1h", "5s1m", "1h30", " 5", "5 s", "99999999999999999999",
      "9223372036854775807d",
      "12000d", "５m",
    ])
  func badDurations(text: String) {
    let error = #expect(throws: TextProblem.self) { try Values.duration(text) }
    #expect(error?.description.contains("duration") == true)
  }

  @Test("ids, counts and sizes keep to their bounds")
  func numbers() throws {
    #expect(try Values.id("12") == 12)
    #expect(throws: TextProblem.self) { try Values.id("0") }
    #expect(throws: TextProblem.self) { try Values.id("-1") }
    #expect(throws: TextProblem.self) { try Values.id("twelve") }
    #expect(try Values.count("0") == 0)
    #expect(throws: TextProblem.self) { try Values.count("-1") }
    #expect(throws: TextProblem.self) { try Values.positiveCount("0") }
    #expect(try Values.priority("-5") == -5)
    #expect(try Values.gigabytes("0.5") == 1 << 29)
    #expect(try Values.gigabytes("64") == 64 << 30)
    for bad in ["nan", "inf", "-1", "1e300", "4G", ""] {
      #expect(throws: TextProblem.self) { try Values.gigabytes(bad) }
    }
    #expect(throws: TextProblem.self) { try Values.weight("0") }
    #expect(throws: TextProblem.self) { try Values.processors("-0.5") }
    #expect(try Lists.ids("1,2,3") == [1, 2, 3])
    #expect(throws: TextProblem.self) { try Lists.ids("1,,3") }
  }

  @Test("statuses are letters in a row or words")
  func statuses() throws {
    #expect(try Values.statuses("RUV") == [.running, .uploading, .uploadingFailed])
    #expect(try Values.statuses("r") == [.running])
    #expect(try Values.statuses("running") == [.running])
    #expect(try Values.statuses("on hold,On-Hold") == [.onHold, .onHold])
    #expect(try Values.statuses("uploading-failed") == [.uploadingFailed])
    #expect(try Values.statuses("cancelled") == [.canceled])
    let error = #expect(throws: TextProblem.self) { try Values.statuses("runing") }
    #expect(error?.description.contains("did you mean 'running'?") == true)
    #expect(throws: TextProblem.self) { try Values.statuses("RQ") }
    #expect(throws: TextProblem.self) { try Values.statuses("") }
  }

  @Test("a variable needs a name and an equals sign; its value may hold more of them")
  func environment() throws {
    #expect(try Values.environment("A=b=c") == EnvironmentEntry(name: "A", value: "b=c"))
    #expect(try Values.environment("A=") == EnvironmentEntry(name: "A", value: ""))
    #expect(throws: TextProblem.self) { try Values.environment("A") }
    #expect(throws: TextProblem.self) { try Values.environment("=b") }
  }

  @Test("the nearest word is found within a few slips, and not farther")
  func nearest() {
    #expect(Nearest.nearest(to: "taks", among: ["task", "worker"]) == "task")
    #expect(Nearest.nearest(to: "containre", among: ["command", "container"]) == "container")
    #expect(Nearest.nearest(to: "zzz", among: ["task", "worker"]) == nil)
    #expect(Nearest.slips(from: "abcd", to: "abdc") == 1)
    #expect(Nearest.slips(from: "", to: "abc") == 3)
  }

  @Test("foreign text cannot move the cursor or reorder a line")
  func escaping() {
    #expect(Escaping.printable("a\u{1B}[31mb\n\t\u{202E}") == "a\\u{1b}[31mb\\n\\t\\u{202e}")
    #expect(Escaping.printable("Zoë 数") == "Zoë 数")
    #expect(Escaping.printableLines("a\n\tb\u{7}") == "a\n\tb\\u{7}")
  }
}
