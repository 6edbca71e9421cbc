/// A piece of text that cannot be read as what it should be: one sentence that says what would be right.
struct TextProblem: Error, Hashable, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
