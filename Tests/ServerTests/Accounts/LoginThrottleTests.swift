import Testing

@testable import ScitqServer

@Suite("Wrong passwords are slowed down")
struct LoginThrottleTests {
  private let start = ContinuousClock.now

  @Test("a few slips cost nothing, then each wrong password doubles the wait, up to thirty seconds")
  func grows() {
    var throttle = LoginThrottle()
    var waits: [Duration] = []
    for attempt in 0..<12 {
      throttle.failed(name: "eve", address: "a\(attempt)", now: start)
      waits.append(throttle.delay(name: "eve", address: "elsewhere", now: start))
    }
    #expect(waits.prefix(2).allSatisfy { $0 == .zero })
    #expect(waits[2...].map { $0 / .seconds(1) } == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30])
    #expect(throttle.delay(name: "eve", address: "elsewhere", now: start + .seconds(29)) == .seconds(1))
    #expect(throttle.delay(name: "eve", address: "elsewhere", now: start + .seconds(30)) == .zero)
    #expect(throttle.delay(name: "bob", address: "elsewhere", now: start) == .zero)
  }

  @Test("an address that tries many names waits, too")
  func address() {
    var throttle = LoginThrottle()
    for attempt in 0..<12 { throttle.failed(name: "n\(attempt)", address: "10.0.0.1", now: start) }
    #expect(throttle.delay(name: "new", address: "10.0.0.1", now: start) > .seconds(1))
    #expect(throttle.delay(name: "new", address: "10.0.0.2", now: start) == .zero)
  }

  @Test("quiet time forgives, and the right password forgives the name")
  func decays() {
    var throttle = LoginThrottle()
    for _ in 0..<5 { throttle.failed(name: "ann", address: "x", now: start) }
    #expect(throttle.delay(name: "ann", address: "y", now: start) == .seconds(4))
    throttle.failed(name: "ann", address: "x", now: start + .seconds(600))
    #expect(throttle.delay(name: "ann", address: "y", now: start + .seconds(600)) == .zero)
    for _ in 0..<5 { throttle.failed(name: "ann", address: "x", now: start) }
    throttle.succeeded(name: "ann")
    #expect(throttle.delay(name: "ann", address: "y", now: start) == .zero)
  }

  @Test("a storm of invented names holds little memory and does not wash away the one under attack")
  func bounded() {
    var throttle = LoginThrottle(capacity: 100)
    for _ in 0..<8 { throttle.failed(name: "victim", address: "v", now: start) }
    for number in 0..<20_000 {
      throttle.failed(name: "n\(number)", address: "a\(number)", now: start)
      #expect(throttle.size <= 100)
    }
    #expect(throttle.delay(name: "victim", address: "fresh", now: start) == .seconds(30))
  }
}
