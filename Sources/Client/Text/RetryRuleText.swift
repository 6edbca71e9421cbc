import ScitqProtocol

/// Reads `--retry-on`: `MATCH:ACTION[,mem×F][,delay=T]`.
enum RetryRuleText {
  private static let form =
    "write MATCH:ACTION, such as exit=137:retry,mem×2 or reason=timeout:stop or any:retry,delay=5m"

  static func parse(_ text: String) throws(TextProblem) -> WireRetryRule {
    guard let colon = text.firstIndex(of: ":") else {
      throw TextProblem("'\(Escaping.printable(text))' has no ':'; \(form)")
    }
    var rule = WireRetryRule()
    try match(String(text[..<colon]), &rule)
    let parts = text[text.index(after: colon)...].split(separator: ",", omittingEmptySubsequences: false)
    switch parts.first {
    case "retry"?: break
    case "stop"?: rule.stop = true
    default:
      throw TextProblem(
        "'\(Escaping.printable(String(parts.first ?? "")))' is neither 'retry' nor 'stop'; \(form)")
    }
    for part in parts.dropFirst() {
      guard !rule.stop else {
        throw TextProblem("'\(Escaping.printable(text))' says stop, so nothing can follow it")
      }
      try option(String(part), &rule)
    }
    return rule
  }

  private static func match(_ text: String, _ rule: inout WireRetryRule) throws(TextProblem) {
    if text == "any" {
      rule.any = true
    } else if text.hasPrefix("reason=") {
      let word = String(text.dropFirst(7))
      guard FailureReason(rawValue: word) != nil else {
        let words = FailureReason.allCases.map(\.rawValue)
        let hint = Nearest.sentence(to: word, among: words) ?? "they are: \(words.joined(separator: ", "))"
        throw TextProblem("'\(Escaping.printable(word))' is no reason of a failure; \(hint)")
      }
      rule.reason = word
    } else if text.hasPrefix("exit=") {
      let ends = text.dropFirst(5).split(separator: "-", omittingEmptySubsequences: false).map { Int32($0) }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
        (0...255).contains(first),
        (first...255).contains(last)
      else {
        throw TextProblem(
          "'\(Escaping.printable(text))' is no exit code; write exit=137, or exit=1-5, within 0 and 255")
      }
      rule.exit.first = first
      rule.exit.last = last
    } else {
      throw TextProblem("'\(Escaping.printable(text))' matches nothing; write exit=…, reason=… or any")
    }
  }

  private static func option(_ text: String, _ rule: inout WireRetryRule) throws(TextProblem) {
    if text.hasPrefix("delay=") {
      rule.delayMs = try Values.duration(String(text.dropFirst(6))).wholeMilliseconds
      return
    }
    for sign in ["mem×", "memx", "mem*"] where text.hasPrefix(sign) {
      guard let factor = Double(text.dropFirst(sign.count)), (1...16).contains(factor) else { break }
      rule.memoryFactor = factor
      return
    }
    throw TextProblem(
      "'\(Escaping.printable(text))' is not known here; write mem×2 (from 1 to 16) or delay=30s")
  }
}
