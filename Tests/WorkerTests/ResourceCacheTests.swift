import Logging
import ScitqProtocol
import Synchronization
import SystemPackage
import Testing

@testable import ScitqWorker

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Files of this host as the source, and a count of what was asked of it.
private final class Source: Sendable {
  let fetches = Mutex(0)
  let failure = Mutex<ExecutionFailure?>(nil)
  let gate = Wakeup()
  let holdsBack: Bool
  init(holdsBack: Bool = false) { self.holdsBack = holdsBack }

  func cache(_ folder: FilePath, freshness: Duration = .seconds(10)) throws -> ResourceCache {
    try Files.makeFolders(folder)
    return ResourceCache(
      folder: folder, freshness: freshness, logger: quiet,
      fingerprint: { Files.text(FilePath($0)) },
      fetch: { uri, target in
        self.fetches.withLock { $0 += 1 }
        if self.holdsBack { await self.gate.wait() }
        if let failure = self.failure.withLock({ $0 }) { throw failure }
        try Task.checkCancellation()
        try write(Files.text(FilePath(uri))!, to: target.appending("file"))
      })
  }
}

@Suite struct ResourceCacheTests {
  @Test("forty at once want one resource: it is fetched once")
  func once() async throws {
    try await withFolder { folder in
      let file = folder.appending("source")
      try write("one", to: file)
      let source = Source()
      let cache = try source.cache(folder.appending("cache"))
      let leases = try await withThrowingTaskGroup(of: ResourceCache.Lease.self) { group in
        for _ in 0..<40 { group.addTask { try await cache.acquire(file.string) } }
        return try await group.reduce(into: []) { $0.append($1) }
      }
      #expect(source.fetches.withLock { $0 } == 1)
      #expect(Set(leases).count == 1)
      #expect(Files.text(leases[0].folder.appending("file")) == "one")
    }
  }

  @Test("a source that changed is fetched again, and those who use the old one keep it")
  func changed() async throws {
    try await withFolder { folder in
      let file = folder.appending("source")
      try write("one", to: file)
      let source = Source()
      let cache = try source.cache(folder.appending("cache"), freshness: .zero)
      let old = try await cache.acquire(file.string)
      try write("two", to: file)
      let new = try await cache.acquire(file.string)
      #expect(Files.text(old.folder.appending("file")) == "one")
      #expect(Files.text(new.folder.appending("file")) == "two")
      await cache.release(old)
      #expect(!Files.exists(old.folder))
      _ = try await cache.acquire(file.string)
      #expect(source.fetches.withLock { $0 } == 2)
    }
  }

  @Test("what is in use stays; of the rest the least recently used goes first")
  func eviction() async throws {
    try await withFolder { folder in
      let source = Source()
      let cache = try source.cache(folder.appending("cache"))
      var leases: [ResourceCache.Lease] = []
      for name in ["a", "b", "c"] {
        try write(String(repeating: name, count: 1000), to: folder.appending(name))
        leases.append(try await cache.acquire(folder.appending(name).string))
      }
      #expect(await cache.evict(1) == 0)
      await cache.release(leases[1])
      await cache.release(leases[2])
      #expect(await cache.evict(500) == 1000)
      #expect(!Files.exists(leases[1].folder))
      #expect(Files.exists(leases[2].folder))
      #expect(await cache.evict(.max) == 1000)
      #expect(Files.exists(leases[0].folder))
    }
  }

  @Test("a new agent finds what was finished and removes what was not")
  func restart() async throws {
    try await withFolder { folder in
      let file = folder.appending("source")
      try write("one", to: file)
      let source = Source()
      let place = folder.appending("cache")
      _ = try await source.cache(place).acquire(file.string)
      try Files.makeFolders(place.appending(".half").appending("data"))
      let cache = try source.cache(place)
      #expect(!Files.exists(place.appending(".half")))
      _ = try await cache.acquire(file.string)
      #expect(source.fetches.withLock { $0 } == 1)
    }
  }

  @Test("a failure is told to all who wait, and is not kept")
  func failure() async throws {
    try await withFolder { folder in
      let file = folder.appending("source")
      try write("one", to: file)
      let source = Source()
      source.failure.withLock { $0 = ExecutionFailure(.network, "no way") }
      let cache = try source.cache(folder.appending("cache"))
      await withTaskGroup(of: Void.self) { group in
        for _ in 0..<8 {
          group.addTask {
            await #expect(throws: ExecutionFailure.self) { try await cache.acquire(file.string) }
          }
        }
      }
      source.failure.withLock { $0 = nil }
      _ = try await cache.acquire(file.string)
      #expect(Files.names(in: folder.appending("cache")).count == 1)
    }
  }

  @Test("when the one who fetches is canceled, the next in line fetches")
  func canceled() async throws {
    try await withFolder { folder in
      let file = folder.appending("source")
      try write("one", to: file)
      let source = Source(holdsBack: true)
      let cache = try source.cache(folder.appending("cache"))
      let first = Task { try await cache.acquire(file.string) }
      try await eventually("the first fetch") { source.fetches.withLock { $0 } == 1 }
      let second = Task { try await cache.acquire(file.string) }
      first.cancel()
      await #expect(throws: (any Error).self) { try await first.value }
      let lease = try await second.value
      #expect(Files.text(lease.folder.appending("file")) == "one")
    }
  }
}

@Suite struct DiskLedgerTests {
  private func id(_ task: Int64) -> AttemptID { AttemptID(task: TaskID(task), assignment: 1) }

  @Test("what never fits fails with the figures")
  func neverFits() async {
    let ledger = DiskLedger(margin: 0) { Files.Room(total: 1000, free: 500, used: 500) }
    let failure = await #expect(throws: ExecutionFailure.self) {
      try await ledger.reserve(800, for: id(1)) { _ in 0 }
    }
    #expect(failure?.reason == .disk)
    #expect(failure?.message.contains("800 B") == true)
  }

  @Test("what does not fit now waits for another to end")
  func waits() async throws {
    let ledger = DiskLedger(margin: 0) { Files.Room(total: 1000, free: 500, used: 500) }
    try await ledger.reserve(400, for: id(1)) { _ in 0 }
    let passed = Mutex(false)
    let other = id(2)
    async let second: Void = {
      try await ledger.reserve(300, for: other) { _ in 0 }
      passed.withLock { $0 = true }
    }()
    try await Task.sleep(for: .milliseconds(20))
    #expect(!passed.withLock { $0 })
    await ledger.leave(id(1))
    try await second
  }

  @Test("unused resources go before anybody waits")
  func evicts() async throws {
    let free = Mutex<Int64>(100)
    let ledger = DiskLedger(margin: 0) { Files.Room(total: 1000, free: free.withLock { $0 }, used: 0) }
    try await ledger.reserve(600, for: id(1)) { wanted in
      free.withLock { $0 += wanted }
      return wanted
    }
    #expect(free.withLock { $0 } == 600)
  }
}
