import Logging
import ScitqProtocol
import SystemPackage
import Testing

@testable import ScitqWorker

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

private func id(_ task: Int64, _ assignment: Int64 = 1) -> AttemptID {
  AttemptID(task: TaskID(task), assignment: assignment)
}

/// A history as an agent makes it: orders, reports, acknowledgements, ends.
private func history(_ seed: UInt64, length: Int) -> [JournalRecord] {
  var random = Seeded(seed)
  var records: [JournalRecord] = []
  var living: [AttemptID] = []
  var sequence: Int64 = 0
  var acknowledged: Int64 = 0
  var next: Int64 = 1
  for _ in 0..<length {
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<3:
      living.append(id(next))
      records.append(.order(id(next), (0..<Int.random(in: 0..<40, using: &random)).map { UInt8($0) }))
      next += 1
    case 3..<7:
      guard let one = living.randomElement(using: &random) else { continue }
      sequence += 1
      records.append(
        .report(one, sequence: sequence, isFinal: .random(using: &random), [1, 2, UInt8(sequence & 255)]))
      if sequence % 5 == 0 { records.append(.ran(one, microseconds: sequence << 20)) }
    case 7..<9:
      acknowledged = Int64.random(in: acknowledged...sequence, using: &random)
      records.append(.acknowledged(acknowledged))
    default:
      guard !living.isEmpty else { continue }
      records.append(.forgotten(living.remove(at: Int.random(in: 0..<living.count, using: &random))))
    }
  }
  return records
}

private func state(_ records: [JournalRecord]) -> JournalState {
  var state = JournalState()
  for record in records { state.apply(record) }
  return state
}

@Suite struct JournalTests {
  @Test("what was flushed is there again")
  func comesBack() async throws {
    try await withFolder { folder in
      let records = history(1, length: 300)
      let journal = try Journal(at: folder.appending("journal"), logger: quiet)
      for record in records { journal.append(record) }
      await journal.flushed()
      // Another journal over the same file stands for the agent after a kill.
      let again = try Journal(at: folder.appending("journal"), logger: quiet)
      #expect(again.state == state(records))
      await journal.close()
      await again.close()
    }
  }

  @Test("a tail torn at any byte loses whole records only, and the journal goes on")
  func tornTails() async throws {
    try await withFolder { folder in
      let records = history(2, length: 25)
      var bytes = JournalFormat.magic
      var ends: [Int] = [bytes.count]
      for record in records {
        JournalFormat.append(record, to: &bytes)
        ends.append(bytes.count)
      }
      let path = folder.appending("journal")
      for cut in 0...bytes.count {
        let file = try FileDescriptor.open(
          path, .writeOnly, options: [.create, .truncate], permissions: [.ownerReadWrite])
        try file.writeAll(bytes[..<cut])
        try file.close()
        let journal = try Journal(at: path, logger: quiet)
        let whole = max(0, ends.lastIndex { $0 <= cut } ?? 0)
        #expect(journal.state == state(Array(records[..<whole])), "cut at \(cut)")
        journal.append(.order(id(999), [7]))
        await journal.close()
        let after = try Journal(at: path, logger: quiet)
        #expect(after.state.held[id(999)] != nil, "cut at \(cut)")
        await after.close()
      }
    }
  }

  @Test("a flipped byte ends the journal before its record")
  func flippedByte() {
    var bytes: [UInt8] = []
    for record in history(3, length: 40) { JournalFormat.append(record, to: &bytes) }
    for place in stride(from: 0, to: bytes.count, by: 3) {
      var wrong = bytes
      wrong[place] ^= 0x10
      #expect(JournalFormat.records(in: wrong[...]).length <= place)
    }
  }

  @Test("a state is the same after it was written in the fewest records", arguments: 0..<200 as Range<UInt64>)
  func compaction(seed: UInt64) {
    let before = state(history(seed, length: 200))
    let after = state(before.records)
    #expect(after == before, "seed \(seed)")
    #expect(after.liveBytes == before.liveBytes, "seed \(seed)")
  }

  @Test("a journal that is mostly of the past is rewritten, and stays small")
  func staysSmall() async throws {
    try await withFolder { folder in
      let path = folder.appending("journal")
      let journal = try Journal(at: path, compactedAbove: 4096, logger: quiet)
      for task in 1...2000 as ClosedRange<Int64> {
        journal.append(
          .order(id(task), [UInt8](repeating: 1, count: 100)),
          .report(id(task), sequence: task, isFinal: true, [1]), .acknowledged(task), .forgotten(id(task)))
        if task % 50 == 0 { await journal.flushed() }
      }
      journal.append(.order(id(5000), [1]))
      await journal.close()
      #expect(Files.treeBytes(path) < 40_000)
      let again = try Journal(at: path, logger: quiet)
      #expect(again.state.order == [id(5000)])
      #expect(again.state.lastSequence == 2000)
      await again.close()
    }
  }

  @Test("a thousand who wait side by side are all served, in few writes")
  func groupCommit() async throws {
    try await withFolder { folder in
      let path = folder.appending("journal")
      let journal = try Journal(at: path, logger: quiet)
      await withTaskGroup(of: Void.self) { group in
        for task in 1...1000 as ClosedRange<Int64> {
          group.addTask {
            journal.append(.order(id(task), []))
            await journal.flushed()
            #expect(journal.state.held[id(task)] != nil)
          }
        }
      }
      #expect(journal.state.held.count == 1000)
      await journal.close()
    }
  }
}
