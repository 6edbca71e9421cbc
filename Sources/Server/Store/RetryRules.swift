import Foundation
import Scheduling
import ScitqProtocol

/// The column `task_spec.retry_rules`: what is done about failures, as JSON that people can read.
enum RetryRules {
  private struct Rule: Codable {
    var exit: [Int32]?
    var reason: String?
    var stop: Bool?
    var memory: Double?
    var delay_ms: Int64?
  }

  static func encode(_ rules: [WireRetryRule]) -> String {
    if rules.isEmpty { return "[]" }
    return TaskSpecRow.json(
      rules.map { rule in
        var row = Rule()
        switch rule.match {
        case .exit(let codes)?: row.exit = [codes.first, codes.last]
        case .reason(let reason)?: row.reason = reason
        case .any?, nil: break
        }
        if rule.stop { row.stop = true }
        if rule.memoryFactor > 0 { row.memory = rule.memoryFactor }
        if rule.delayMs > 0 { row.delay_ms = rule.delayMs }
        return row
      })
  }

  static func decode(_ text: String) -> [WireRetryRule] {
    if text == "[]" { return [] }
    return ((try? JSONDecoder().decode([Rule].self, from: Data(text.utf8))) ?? []).map { row in
      var rule = WireRetryRule()
      if let codes = row.exit, codes.count == 2 {
        rule.exit.first = codes[0]
        rule.exit.last = codes[1]
      } else if let reason = row.reason {
        rule.reason = reason
      } else {
        rule.any = true
      }
      rule.stop = row.stop ?? false
      rule.memoryFactor = row.memory ?? 0
      rule.delayMs = row.delay_ms ?? 0
      return rule
    }
  }
}

extension RetryPolicy {
  init(_ spec: WireTaskSpec) { self.init(rules: spec.retryRules, delayMs: spec.retryDelayMs) }

  init(rules: [WireRetryRule], delayMs: Int64) {
    self.init(rules: rules.map(Rule.init), delay: delayMs * 1000)
  }
}

extension RetryPolicy.Rule {
  init(_ rule: WireRetryRule) {
    let match: Match =
      switch rule.match {
      case .exit(let codes)?: .exit(codes.first...max(codes.first, codes.last))
      case .reason(let reason)?: .reason(reason)
      case .any?, nil: .any
      }
    self.init(
      match: match, stops: rule.stop,
      memoryMilli: rule.memoryFactor > 0 ? Int64((rule.memoryFactor * 1000).rounded()) : 1000,
      delay: rule.delayMs > 0 ? rule.delayMs * 1000 : nil)
  }
}
