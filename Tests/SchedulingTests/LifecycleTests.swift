import Scheduling
import ScitqProtocol
import Testing

@Suite("The life of a task")
struct LifecycleTests {
  /// Every legal move, by who may make it; `+` is a task that is being made. All others are illegal.
  static let legal: [Actor: Set<String>] = [
    .server: words(
      """
      +I +W +P  IW IP  WP WS  PA
      AP CP DP OP
      RF ZF UF VF  PF
      """),
    .worker: words(
      """
      AC  CD CO CR  DO DR  OR
      CF DF OF
      RU RV  US UF VF
      RZ ZR
      AX CX DX OX RX UX VX ZX
      """),
    .person: words(
      """
      WZ PZ  ZW ZP
      IX WX PX AX CX DX OX RX UX VX ZX
      """),
  ]

  private static func words(_ text: String) -> Set<String> {
    Set(text.split(whereSeparator: \.isWhitespace).map(String.init))
  }

  @Test("exactly the moves of the table are legal")
  func table() {
    let all = TaskStatus.allCases
    #expect(all.count == 14)
    for actor in Actor.allCases {
      for from in [nil] + all.map(Optional.some) {
        for to in all {
          let move = (from?.rawValue ?? "+") + to.rawValue
          #expect(
            Lifecycle.allows(from, to, by: actor) == Self.legal[actor]?.contains(move),
            "\(move) by \(actor)")
        }
      }
    }
  }

  @Test("a final task never changes again")
  func final() {
    for from in TaskStatus.allCases where from.isFinal {
      for to in TaskStatus.allCases {
        for actor in Actor.allCases { #expect(!Lifecycle.allows(from, to, by: actor)) }
      }
    }
  }
}
