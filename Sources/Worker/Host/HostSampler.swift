package import ScitqProtocol
package import SystemPackage

/// How the host is doing, from `/proc`. Rates are over the time since the sample before; the first has none.
package struct HostSampler: Sendable {
  private struct Counters {
    var busy: Double = 0
    var iowait: Double = 0
    var total: Double = 0
    var read: Int64 = 0
    var written: Int64 = 0
    var received: Int64 = 0
    var sent: Int64 = 0
    var throttled: Int64 = 0
    var at = ContinuousClock.now
  }

  private let store: FilePath
  private var last: Counters?

  package init(store: FilePath) { self.store = store }

  /// One sample, and what people should know about the host.
  package mutating func sample(running: Int) -> (stats: WireHostStats, warnings: [String]) {
    let now = Self.counters()
    var stats = WireHostStats()
    var warnings: [String] = []
    stats.running = UInt32(clamping: running)
    stats.at = Clock.microseconds()
    stats.load = Self.text("/proc/loadavg").split(separator: " ").first.flatMap { Double($0) } ?? 0
    stats.memoryPercent = Self.memoryPercent()
    stats.diskReadBytes = now.read
    stats.diskWrittenBytes = now.written
    stats.networkReceivedBytes = now.received
    stats.networkSentBytes = now.sent
    if let last {
      let span = max(now.total - last.total, 1)
      stats.cpuPercent = max(0, min(100, 100 * (now.busy - last.busy) / span))
      stats.iowaitPercent = max(0, min(100, 100 * (now.iowait - last.iowait) / span))
      let seconds = max((now.at - last.at) / .seconds(1), 0.001)
      func rate(_ a: Int64, _ b: Int64) -> Double { Double(max(0, a - b)) / seconds }
      stats.diskReadBytesPerSecond = rate(now.read, last.read)
      stats.diskWriteBytesPerSecond = rate(now.written, last.written)
      stats.networkReceivedBytesPerSecond = rate(now.received, last.received)
      stats.networkSentBytesPerSecond = rate(now.sent, last.sent)
      if now.throttled > last.throttled {
        warnings.append(
          "the host's cpu limit holds tasks back (throttled \(now.throttled - last.throttled) times)")
      }
    }
    for (mount, room) in disks() {
      var disk = WireDiskStats()
      disk.mount = mount
      disk.totalBytes = room.total
      disk.usedBytes = room.used
      stats.disks.append(disk)
      let usable = room.used + room.free
      if usable > 0, room.used * 10 > usable * 9 {
        warnings.append("the disk at \(mount) is \(room.used * 100 / usable) % full")
      }
    }
    last = now
    return (stats, warnings)
  }

  private func disks() -> [(String, Files.Room)] {
    var seen: Set<Substring> = []
    var found: [(String, Files.Room)] = []
    for line in Self.text("/proc/self/mounts").split(separator: "\n") {
      let parts = line.split(separator: " ")
      guard parts.count > 1, parts[0].hasPrefix("/dev/"), !parts[0].hasPrefix("/dev/loop") || parts[1] == "/",
        seen.insert(parts[0]).inserted
      else { continue }
      let mount = String(parts[1])
      if let room = Files.room(at: FilePath(mount)), room.total > 0 { found.append((mount, room)) }
    }
    if let room = Files.room(at: store), !found.contains(where: { $0.1 == room }) {
      found.append((store.string, room))
    }
    return found
  }

  private static func text(_ path: FilePath) -> String { Files.text(path) ?? "" }

  private static func memoryPercent() -> Double {
    var total = 0.0
    var available = 0.0
    for line in text("/proc/meminfo").split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count > 1, let value = Double(words[1]) else { continue }
      if words[0] == "MemTotal:" { total = value }
      if words[0] == "MemAvailable:" { available = value }
    }
    return total > 0 ? 100 * (total - available) / total : 0
  }

  private static func counters() -> Counters {
    var counters = Counters()
    if let line = text("/proc/stat").split(separator: "\n").first {
      // user nice system idle iowait irq softirq steal
      let ticks = line.split(separator: " ").dropFirst().prefix(8).map { Double($0) ?? 0 }
      if ticks.count == 8 {
        counters.total = ticks.reduce(0, +)
        counters.iowait = ticks[4]
        counters.busy = counters.total - ticks[3] - ticks[4]
      }
    }
    for line in text("/proc/diskstats").split(separator: "\n") {
      let words = line.split(separator: " ")
      // Whole devices only: a partition's bytes are its device's too.
      guard words.count > 9, Files.exists(FilePath("/sys/block/\(words[2])")), !words[2].hasPrefix("loop"),
        !words[2].hasPrefix("ram"), !words[2].hasPrefix("dm-"), !words[2].hasPrefix("md")
      else { continue }
      counters.read += (Int64(words[5]) ?? 0) * 512
      counters.written += (Int64(words[9]) ?? 0) * 512
    }
    for line in text("/proc/net/dev").split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let name = line[..<colon].drop { $0 == " " }
      let words = line[line.index(after: colon)...].split(separator: " ")
      guard words.count >= 9, name != "lo", !name.hasPrefix("veth"), !name.hasPrefix("docker"),
        !name.hasPrefix("br-")
      else { continue }
      counters.received += Int64(words[0]) ?? 0
      counters.sent += Int64(words[8]) ?? 0
    }
    for line in text("/sys/fs/cgroup/cpu.stat").split(separator: "\n") where line.hasPrefix("nr_throttled ") {
      counters.throttled = line.split(separator: " ").last.flatMap { Int64($0) } ?? 0
    }
    return counters
  }
}
