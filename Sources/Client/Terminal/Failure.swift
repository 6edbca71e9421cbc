/// Something asked for could not be done: one sentence, and exit status 1.
struct Failure: Error, Hashable, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
