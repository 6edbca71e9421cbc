import Foundation

/// The lines of a file or pipe, one at a time, numbered from 1. Holds one block and one line, however long the file is.
struct LineReader {
  /// A longer line is refused: it would not fit in a frame.
  static let longestLine = 8 << 20

  private let descriptor: Int32
  private var block: [UInt8] = []
  private var position = 0
  private var ended = false
  private var number = 0

  /// Reads from an open file descriptor, which stays the caller's to close.
  init(descriptor: Int32) { self.descriptor = descriptor }

  struct Line {
    let number: Int
    let bytes: [UInt8]
  }

  /// The next line without its end (`\n` or `\r\n`), or nil after the last.
  mutating func next() throws -> Line? {
    var line: [UInt8] = []
    while true {
      if position == block.count {
        guard !ended, try refill() else {
          guard !line.isEmpty else { return nil }
          break
        }
      }
      if let end = block[position...].firstIndex(of: 0x0A) {
        line.append(contentsOf: block[position..<end])
        position = end + 1
        break
      }
      line.append(contentsOf: block[position...])
      position = block.count
      guard line.count <= Self.longestLine else { throw tooLong }
    }
    guard line.count <= Self.longestLine else { throw tooLong }
    number += 1
    if line.last == 0x0D { line.removeLast() }
    return Line(number: number, bytes: line)
  }

  private var tooLong: TextProblem {
    TextProblem("line \(number + 1) is longer than 8 MiB; a task has to fit in one message")
  }

  private mutating func refill() throws -> Bool {
    let count = try Descriptor.read(descriptor, into: &block, atMost: 1 << 16)
    position = 0
    ended = count == 0
    return count > 0
  }
}
