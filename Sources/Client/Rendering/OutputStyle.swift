import Foundation

/// How results are laid out: for a screen of some width, or for another program.
struct OutputStyle: Sendable, Hashable {
  /// Columns of the terminal; nil where the output is no terminal: then tabs, full width and no colour.
  var width: Int?
  var colour: Bool
  /// Where times are shown, `--json` apart.
  var zone: TimeZone

  static func piped(zone: TimeZone) -> OutputStyle { .init(width: nil, colour: false, zone: zone) }

  /// What stdout is.
  static func detect(environment: [String: String]) -> OutputStyle {
    guard isatty(STDOUT_FILENO) == 1 else { return piped(zone: .current) }
    let colour = (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    return .init(width: terminalWidth(STDOUT_FILENO) ?? 80, colour: colour, zone: .current)
  }

  static func terminalWidth(_ descriptor: Int32) -> Int? {
    var size = winsize()
    guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
  }

  func painted(_ text: String, _ paint: Paint?) -> String {
    guard colour, let paint else { return text }
    return "\u{1B}[\(paint.rawValue)m\(text)\u{1B}[0m"
  }
}

/// Colours of the eight that every terminal has.
enum Paint: Int, Sendable {
  case bold = 1
  case dim = 2
  case red = 31
  case green = 32
  case yellow = 33
  case blue = 34
  case cyan = 36
}
