import Foundation
import Synchronization
import Transfer

/// One line that says how far a transfer is.
enum ProgressBar {
  /// `[=====>    ]  52%  1.2 GB of 2.3 GB  110.0 MB/s  10.2 s left  3/7 files`, no wider than the screen.
  static func line(_ progress: TransferProgress, elapsed: Duration, width: Int) -> String {
    let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
    let rate = seconds > 0 ? Double(progress.bytes) / seconds : 0
    var parts: [String] = []
    if progress.totalBytes > 0 {
      parts.append("\(Quantity.bytes(progress.bytes)) of \(Quantity.bytes(progress.totalBytes))")
    } else {
      parts.append(Quantity.bytes(progress.bytes))
    }
    parts.append(Quantity.rate(rate))
    let remaining = progress.totalBytes - progress.bytes
    if rate > 0, remaining > 0, Double(remaining) / rate < 1e9 {
      parts.append("\(Quantity.duration(Int64(Double(remaining) / rate * 1_000_000))) left")
    }
    if progress.totalFiles > 1 { parts.append("\(progress.files)/\(progress.totalFiles) files") }
    let words = parts.joined(separator: "  ")
    guard progress.totalBytes > 0 else { return TextWidth.cut(words, to: width) }
    let share = min(1, max(0, Double(progress.bytes) / Double(progress.totalBytes)))
    let percent = String(Int(share * 100)) + "%"
    let tail = String(repeating: " ", count: max(0, 4 - percent.count)) + percent + "  " + words
    let room = min(30, width - tail.count - 4)
    guard room >= 5 else { return TextWidth.cut(tail, to: width) }
    let filled = Int(share * Double(room))
    let bar = String(repeating: "=", count: filled) + (filled < room ? ">" : "")
    return "[" + bar + String(repeating: " ", count: room - bar.count) + "] " + tail
  }
}

/// Shows a transfer's progress on stderr: a bar that is redrawn on a terminal, a plain line now and then elsewhere.
final class ProgressReport: Sendable {
  private struct State {
    var lastShown: ContinuousClock.Instant?
    var isDrawn = false
    var isFinished = false
  }

  private let started = ContinuousClock.now
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private let state = Mutex(State())

  func update(_ progress: TransferProgress) {
    state.withLock { state in
      let now = ContinuousClock.now
      // The first plain line comes after a pause too: a short copy needs none.
      let since = now - (state.lastShown ?? (isTerminal ? started - .seconds(1) : started))
      guard !state.isFinished, since >= (isTerminal ? .milliseconds(100) : .seconds(10)) else { return }
      state.lastShown = now
      let width = isTerminal ? OutputStyle.terminalWidth(STDERR_FILENO) ?? 80 : 200
      let line = ProgressBar.line(progress, elapsed: now - started, width: width - 1)
      write(isTerminal ? "\r\u{1B}[K" + line : line + "\n")
      state.isDrawn = isTerminal
    }
  }

  /// Takes the bar away, so that what comes next starts on a clean line.
  func finish() {
    state.withLock { state in
      if state.isDrawn { write("\r\u{1B}[K") }
      state.isFinished = true
    }
  }

  private func write(_ text: String) {
    // A stderr that cannot be written to is no reason to stop a transfer.
    try? Descriptor.write(text.utf8, to: STDERR_FILENO)
  }
}
