/// Finds what a mistyped word was meant to be.
enum Nearest {
  /// `did you mean 'x'?` where a candidate is close enough to be meant.
  static func sentence(to word: String, among candidates: [String]) -> String? {
    nearest(to: word, among: candidates).map { "did you mean '\($0)'?" }
  }

  /// The candidate with the fewest typing slips between it and the word, if they are few for the word's length.
  static func nearest(to word: String, among candidates: [String]) -> String? {
    // A word nobody would type is not worth a quadratic comparison.
    guard word.utf8.count <= 64 else { return nil }
    let scored = candidates.map {
      (candidate: $0, slips: slips(from: word.lowercased(), to: $0.lowercased()))
    }
    guard let best = scored.min(by: { $0.slips < $1.slips }) else { return nil }
    let isPrefix = word.count >= 3 && best.candidate.hasPrefix(word)
    return best.slips <= max(1, min(3, word.count / 3)) || isPrefix ? best.candidate : nil
  }

  /// Insertions, deletions, replacements and swaps of neighbours.
  static func slips(from a: String, to b: String) -> Int {
    let (a, b) = (Array(a.utf8), Array(b.utf8))
    guard !a.isEmpty, !b.isEmpty else { return max(a.count, b.count) }
    var beforeLast: [Int] = []
    var last = Array(0...b.count)
    for i in 1...a.count {
      var row = [i] + Array(repeating: 0, count: b.count)
      for j in 1...b.count {
        row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
          row[j] = min(row[j], beforeLast[j - 2] + 1)
        }
      }
      (beforeLast, last) = (last, row)
    }
    return last[b.count]
  }
}
