import CZlib
import Foundation
import ScitqProtocol
import Synchronization
import Testing

@testable import ScitqServer

@Suite("Logs are stored by byte offset")
struct LogStoreTests {
  @Test("a chunk that arrives twice is written once, and an overlapping one where it is new")
  func duplicates() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      let bytes = Array("hello world".utf8)
      #expect(await logs.append(task: 7, stream: .out, offset: 0, bytes: bytes[..<5]) == 5)
      #expect(await logs.append(task: 7, stream: .out, offset: 0, bytes: bytes[..<5]) == 5)
      #expect(await logs.append(task: 7, stream: .out, offset: 3, bytes: bytes[3...]) == 11)
      #expect(await logs.append(task: 7, stream: .out, offset: 11, bytes: [UInt8]()) == 11)
      let read = try await logs.text(7)
      #expect(read == "hello world")
      let stored = try String(contentsOfFile: world.file(7, "out"), encoding: .utf8)
      #expect(stored == "hello world")
    }
  }

  @Test("a chunk behind a gap is not written, and the answer says where to go on")
  func gap() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      #expect(await logs.append(task: 1, stream: .err, offset: 10, bytes: [1, 2, 3]) == 0)
      #expect(await logs.append(task: 1, stream: .err, offset: 0, bytes: [1, 2]) == 2)
      #expect(await logs.append(task: 1, stream: .err, offset: 3, bytes: [3]) == 2)
      #expect(await logs.append(task: 1, stream: .err, offset: -1, bytes: [3]) == 2)
      let lengths = try await logs.lengths(task: 1)
      #expect(lengths == (0, 2))
    }
  }

  @Test(
    "whatever order, repetition and cut the chunks come in, the log is what was printed", arguments: 1...12)
  func anyOrder(seed: UInt64) async throws {
    try await LogWorld.run { world in
      var random = SeededGenerator(seed: seed)
      var logs = world.store(maxOpenFiles: 16)
      let tasks = (1...30).map { TaskID(rawValue: Int64($0 * 700)) }
      var printed: [TaskID: [LogStream: [UInt8]]] = [:]
      for task in tasks {
        for stream in LogStream.allCases {
          printed[task, default: [:]][stream] = (0..<Int.random(in: 0...5000, using: &random)).map { _ in
            UInt8.random(in: 0...255, using: &random)
          }
        }
      }
      var open = Set(tasks)
      while let task = open.randomElement(using: &random) {
        let stream = LogStream.allCases.randomElement(using: &random)!
        let all = printed[task]![stream]!
        let lengths = try await logs.lengths(task: task)
        let stored = Int(stream == .out ? lengths.out : lengths.err)
        let from = max(0, min(all.count, stored + Int.random(in: -800...400, using: &random)))
        let to = min(all.count, from + Int.random(in: 0...1500, using: &random))
        let now = await logs.append(task: task, stream: stream, offset: Int64(from), bytes: all[from..<to])
        #expect(now == Int64(from <= stored ? max(stored, to) : stored), "seed \(seed)")
        if Int.random(in: 0..<200, using: &random) == 0 { logs = world.store(maxOpenFiles: 16) }
        let (out, err) = try await logs.lengths(task: task)
        if out == Int64(printed[task]![.out]!.count), err == Int64(printed[task]![.err]!.count) {
          open.remove(task)
        }
      }
      for task in tasks {
        let (out, err) = (printed[task]![.out]!, printed[task]![.err]!)
        #expect(await logs.seal(task: task, out: Int64(out.count), err: Int64(err.count)))
        for stream in LogStream.allCases {
          var read: [UInt8] = []
          for try await piece in logs.merged(task: task, stream: stream) { read += piece.bytes }
          #expect(read == printed[task]![stream]!, "seed \(seed), task \(task)")
        }
      }
    }
  }

  @Test(
    "both streams read in the order in which they arrived, before and after a restart and compression",
    arguments: 1...8)
  func arrivalOrder(seed: UInt64) async throws {
    try await LogWorld.run { world in
      var random = SeededGenerator(seed: seed)
      var logs = world.store()
      var expected = ""
      for line in 0..<1200 {
        let stream: LogStream = Bool.random(using: &random) ? .out : .err
        let text =
          "\(stream.suffix) \(line) \(String(repeating: "x", count: Int.random(in: 0...80, using: &random)))\n"
        _ = try await logs.append(text, to: 5, stream)
        expected += text
        if line % 97 == 0 { logs = world.store() }
      }
      #expect(try await logs.text(5) == expected, "seed \(seed)")
      await logs.finish(task: 5)
      await logs.settle()
      #expect(try await logs.text(5) == expected, "seed \(seed)")
      #expect(world.exists(5, "out.gz") && !world.exists(5, "out"))
      logs = world.store()
      #expect(try await logs.text(5) == expected, "seed \(seed)")
    }
  }

  @Test("a task that printed nothing is sealed and finished without a file")
  func nothingPrinted() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      #expect(await logs.seal(task: 3, out: 0, err: 0))
      await logs.finish(task: 3)
      let files = try FileManager.default.contentsOfDirectory(atPath: world.path)
      #expect(files.isEmpty)
    }
  }

  @Test("a log is sealed only when its bytes have arrived")
  func sealWaitsForBytes() async throws {
    try await LogWorld.run { world in
      var logs = world.store()
      #expect(await logs.seal(task: 3, out: 4, err: 0) == false)
      _ = try await logs.append("abcd", to: 3)
      #expect(await logs.seal(task: 3, out: 4, err: 0))
      #expect(await logs.seal(task: 3, out: 4, err: 2) == false)
      logs = world.store()
      #expect(await logs.seal(task: 3, out: 4, err: 0))
      #expect(await logs.seal(task: 3, out: 5, err: 0) == false)
    }
  }

  @Test("many small tasks are written, sealed and finished side by side")
  func manySmallTasks() async throws {
    try await LogWorld.run { world in
      let logs = world.store(maxOpenFiles: 64)
      let most = Peak()
      await withTaskGroup(of: Void.self) { group in
        for number in 1...3000 {
          group.addTask {
            let task = TaskID(rawValue: Int64(number))
            let text = Array("line of task \(number)\n".utf8)
            _ = await logs.append(task: task, stream: .out, offset: 0, bytes: text)
            let open = logs.openFiles
            most.note(open)
            #expect(await logs.seal(task: task, out: Int64(text.count), err: 0))
            await logs.finish(task: task)
          }
        }
      }
      // Four threads may be at work, each on one task's three files.
      #expect(most.value <= 64 + 12)
      let text = try await logs.text(1234)
      #expect(text == "line of task 1234\n")
      let files = try FileManager.default.contentsOfDirectory(atPath: "\(world.path)/logs/1")
      #expect(files.count == 1000)
    }
  }

  @Test("fifty megabytes without one line end are stored, compressed, and read from any place")
  func fiftyMegabytes() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      let block = (0..<1 << 20).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 13 | 128) }
      for index in 0..<50 {
        #expect(
          await logs.append(task: 8, stream: .out, offset: Int64(index) << 20, bytes: block) == Int64(
            index + 1) << 20)
      }
      #expect(await logs.seal(task: 8, out: 50 << 20, err: 0))
      await logs.finish(task: 8)
      await logs.settle()
      #expect(world.exists(8, "out.gz") && !world.exists(8, "out"))
      #expect(try await logs.lengths(task: 8) == (50 << 20, 0))
      for place: Int64 in [0, 1, 262_143, 262_144, 13_000_001, (50 << 20) - 1] {
        let piece = try #require(try await logs.read(task: 8, stream: .out, from: place, max: 1000))
        #expect(piece.offset == place && !piece.bytes.isEmpty)
        #expect(
          piece.bytes.elementsEqual((0..<piece.bytes.count).map { block[(Int(place) + $0) % block.count] }))
      }
      #expect(try await logs.read(task: 8, stream: .out, from: 50 << 20) == nil)
      var total: Int64 = 0
      for try await piece in logs.merged(task: 8) {
        #expect(piece.offset == total && piece.bytes.count <= 256 * 1024)
        total = piece.next
      }
      #expect(total == 50 << 20)
    }
  }

  @Test("a finished log takes nothing more, also after compression and a restart")
  func finishedIsFinal() async throws {
    try await LogWorld.run { world in
      var logs = world.store()
      let text = String(repeating: "line\n", count: 10_000)
      _ = try await logs.append(text, to: 2)
      await logs.finish(task: 2)
      #expect(await logs.append(task: 2, stream: .out, offset: 50_000, bytes: Array("late".utf8)) == 50_000)
      await logs.settle()
      logs = world.store()
      #expect(await logs.append(task: 2, stream: .out, offset: 50_000, bytes: Array("late".utf8)) == 50_000)
      #expect(await logs.append(task: 2, stream: .err, offset: 0, bytes: Array("late".utf8)) == 0)
      #expect(try await logs.text(2) == text)
    }
  }

  @Test("the compressed file is one that gunzip reads")
  func gunzip() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      let text = (0..<90_000).map { "line number \($0)\n" }.joined()
      _ = try await logs.append(text, to: 2)
      await logs.finish(task: 2)
      await logs.settle()
      // zlib's own reader of files, which knows nothing of how this one was made.
      let file = try #require(gzopen(world.file(2, "out.gz"), "rb"))
      defer { gzclose(file) }
      var bytes = [UInt8](repeating: 0, count: text.utf8.count + 1)
      let count = gzread(file, &bytes, UInt32(bytes.count))
      #expect(String(decoding: bytes.prefix(Int(count)), as: UTF8.self) == text)
    }
  }

  @Test("a compressed file that was damaged is an error, never wrong bytes or a crash", arguments: 1...60)
  func damage(seed: UInt64) async throws {
    try await LogWorld.run { world in
      var random = SeededGenerator(seed: seed)
      let text = String(repeating: "0123456789abcdef\n", count: 40_000)
      let first = world.store()
      _ = try await first.append(text, to: 2)
      await first.finish(task: 2)
      await first.settle()
      let url = URL(fileURLWithPath: world.file(2, "out.gz"))
      var data = try Data(contentsOf: url)
      if Bool.random(using: &random) {
        data[Int.random(in: 0..<data.count, using: &random)] ^= UInt8.random(in: 1...255, using: &random)
      } else {
        data = data.prefix(Int.random(in: 0..<data.count, using: &random))
      }
      try data.write(to: url)
      if let read = try? await world.store().text(2) {
        #expect(text.hasPrefix(read), "seed \(seed)")
      }
    }
  }

  @Test("over the limit the middle is dropped and said so; head and tail stay", arguments: [false, true])
  func middleIsDropped(compress: Bool) async throws {
    try await LogWorld.run { world in
      var logs = world.store(maxBytes: 128 * 1024, compress: compress)
      var offset: Int64 = 0
      for line in 0..<100_000 {
        let text = Array("line \(String(line + 100_000))\n".utf8)
        offset = await logs.append(task: 4, stream: .out, offset: offset, bytes: text)
      }
      #expect(offset == 1_200_000)
      #expect(await logs.seal(task: 4, out: offset, err: 0))
      let size = try #require(
        try FileManager.default.attributesOfItem(atPath: world.file(4, "out"))[.size] as? Int)
      #expect(size == 1_200_000)
      #expect(allocated(world.file(4, "out")) <= 160 * 1024)
      await logs.finish(task: 4)
      await logs.settle()
      for _ in 0..<2 {
        let text = try await logs.text(4)
        #expect(text.count < 160 * 1024 && text.count > 64 * 1024)
        #expect(text.hasPrefix("line 100000\nline 100001\n"))
        #expect(text.hasSuffix("line 199998\nline 199999\n"))
        #expect(text.contains("bytes of log lost: longer than max_log_bytes]"))
        #expect(!text.contains("\0"))
        #expect(try await logs.lengths(task: 4).out == 1_200_000)
        logs = world.store(maxBytes: 1 << 30, compress: compress)
      }
    }
  }

  @Test("bytes that will never come are skipped, and readers see how many")
  func skipped() async throws {
    try await LogWorld.run { world in
      var logs = world.store()
      _ = try await logs.append("begin", to: 6)
      #expect(await logs.skip(task: 6, stream: .out, to: 105, because: "the worker lost\nits disk") == 105)
      #expect(await logs.append(task: 6, stream: .out, offset: 105, bytes: Array("end".utf8)) == 108)
      for _ in 0..<2 {
        #expect(
          try await logs.text(6) == "begin\n[scitq: 100 bytes of log lost: the worker lostits disk]\nend")
        logs = world.store()
      }
    }
  }

  @Test("a deleted log is gone, with all its files")
  func deleted() async throws {
    try await LogWorld.run { world in
      let logs = world.store()
      for text in ["a", "b", "c"] {
        _ = try await logs.append(text, to: 9, .err)
        _ = try await logs.append(text, to: 9, .out)
      }
      #expect(world.exists(9, "ord"))
      await logs.delete(task: 9)
      #expect(try FileManager.default.contentsOfDirectory(atPath: "\(world.path)/logs/0").isEmpty)
      #expect(try await logs.text(9) == "")
      _ = try await logs.append(String(repeating: "z", count: 4 << 20), to: 10)
      await logs.finish(task: 10)
      await logs.delete(task: 10)
      await logs.settle()
      #expect(try FileManager.default.contentsOfDirectory(atPath: "\(world.path)/logs/0").isEmpty)
    }
  }

  @Test("the last lines are found in both streams, raw and compressed", arguments: [10, 30_000])
  func tail(lines: Int) async throws {
    try await LogWorld.run { world in
      var logs = world.store()
      var all: [String] = []
      for batch in 0..<40 {
        let stream: LogStream = batch % 3 == 0 ? .err : .out
        let text = (0..<lines / 10).map { "\(stream.suffix) \(batch) \($0)\n" }
        all += text
        _ = try await logs.append(text.joined(), to: 11, stream)
      }
      for _ in 0..<2 {
        for wanted in [1, 2, 7, lines / 10, lines, all.count - 1, all.count, all.count + 5] {
          let position = try await logs.tail(task: 11, lines: wanted)
          #expect(try await logs.text(11, from: position) == all.suffix(wanted).joined(), "\(wanted) lines")
          let err = all.filter { $0.hasPrefix("err") }
          let start = try await logs.tail(task: 11, lines: wanted, stream: .err)
          #expect(
            try await logs.text(11, .err, from: start) == err.suffix(wanted).joined(), "\(wanted) lines")
        }
        #expect(try await logs.text(11, from: try await logs.tail(task: 11, lines: 0)) == "")
        await logs.finish(task: 11)
        await logs.settle()
        logs = world.store()
      }
    }
  }
}

/// How many bytes of the file lie outside its holes.
private func allocated(_ path: String) -> Int {
  // Linux: SEEK_DATA and SEEK_HOLE.
  let (seekData, seekHole): (Int32, Int32) = (3, 4)
  let file = open(path, O_RDONLY)
  guard file >= 0 else { return -1 }
  defer { close(file) }
  var total = 0
  var place: off_t = 0
  while true {
    let start = lseek(file, place, seekData)
    guard start >= 0 else { return total }
    place = lseek(file, start, seekHole)
    total += Int(place - start)
  }
}

/// The highest number that was noted.
private final class Peak: Sendable {
  private let highest = Mutex(0)
  func note(_ number: Int) { highest.withLock { $0 = max($0, number) } }
  var value: Int { highest.withLock { $0 } }
}
