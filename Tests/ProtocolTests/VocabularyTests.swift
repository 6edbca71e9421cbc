import Testing

@testable import ScitqProtocol

@Suite("Vocabulary")
struct VocabularyTests {
  @Test(
    "addresses are read as people write them",
    arguments: [
      ("localhost", "localhost", 50051), ("host:1", "host", 1), ("[::1]:7", "::1", 7),
      ("[::1]", "::1", 50051),
    ])
  func address(text: String, host: String, port: Int) {
    #expect(ServerAddress(text) == ServerAddress(host: host, port: port))
  }

  @Test(
    "what is no address is none", arguments: ["", ":1", "a:0", "a:65536", "a:b", "a:1:2", "[::1", "[::1]x"])
  func noAddress(text: String) { #expect(ServerAddress(text) == nil) }

  @Test("an error keeps its code, sentence and field over the wire", arguments: CallError.Code.allCases)
  func errors(code: CallError.Code) {
    let error = CallError(code, "what is wrong", field: "command")
    #expect(CallError(wire: error.wire) == error)
  }

  @Test("a letter stands for one status, and a number for one call")
  func unique() {
    #expect(Set(TaskStatus.allCases.map(\.rawValue)).count == 14)
    #expect(Set(Method.allCases.map(\.rawValue)).count == Method.allCases.count)
  }

  @Test("credit lets through what fits the window, and more only when it is given")
  func credit() async {
    let credit = Credit()
    #expect(await credit.take(Window.initial))
    async let second = credit.take(10)
    credit.give(1)
    #expect(await second)
    async let third = credit.take(1)
    credit.close()
    #expect(await !third)
  }

  @Test("a figure in a window frame is four bytes, big-endian")
  func window() {
    #expect(Window.payload(0x0102_0304) == [1, 2, 3, 4])
    #expect(Window.count([1, 2, 3, 4]) == 0x0102_0304)
    #expect(Window.count([1, 2, 3]) == nil)
  }
}
