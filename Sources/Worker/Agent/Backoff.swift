/// Pauses that grow from a tenth of a second to five seconds, each somewhere between half and all of its length, so
/// that a thousand agents do not come back to their server at one moment.
struct Backoff {
  private var length = 0.1

  mutating func next() -> Duration {
    let pause = length * Double.random(in: 0.5...1)
    length = min(5, length * 2)
    return .seconds(pause)
  }
}
