package import ScitqProtocol
import SwiftProtobuf

/// Tasks on their way to the server: encoded at once, in batches of about 256 KiB, and decoded one batch at a time as the
/// connection takes them.
package struct TaskBatches: Sequence, Sendable {
  /// A batch is closed before it passes this many bytes.
  static let batchBytes = 1 << 18
  /// A larger task does not fit in a frame of 16 MiB beside its envelope.
  static let largestTask = 15 << 20

  private var closed: [[UInt8]] = []
  private var open: [UInt8] = []
  package private(set) var count = 0

  package init() {}

  package mutating func append(_ task: WireNewTask) throws {
    let bytes: [UInt8] = try task.serializedBytes()
    guard bytes.count <= Self.largestTask else {
      throw TextProblem("the task takes \(bytes.count) bytes; at most \(Self.largestTask) fit in a message")
    }
    if !open.isEmpty, open.count + bytes.count + 6 > Self.batchBytes {
      closed.append(open)
      open = []
    }
    // A batch is the repeated field 1: its tag, the length, and the task's bytes.
    open.append(0x0A)
    var length = bytes.count
    while length >= 0x80 {
      open.append(UInt8(truncatingIfNeeded: length) | 0x80)
      length >>= 7
    }
    open.append(UInt8(length))
    open.append(contentsOf: bytes)
    count += 1
  }

  package struct Iterator: IteratorProtocol {
    fileprivate var remaining: ArraySlice<[UInt8]>

    package mutating func next() -> WireTaskBatch? {
      guard let bytes = remaining.popFirst() else { return nil }
      do {
        return try WireTaskBatch(serializedBytes: bytes)
      } catch {
        // The bytes were encoded above, in this process.
        preconditionFailure("a batch of this process cannot be read back: \(error)")
      }
    }
  }

  package func makeIterator() -> Iterator {
    Iterator(remaining: (open.isEmpty ? closed : closed + [open])[...])
  }
}
