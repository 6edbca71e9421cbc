package import ScitqProtocol
import Subprocess
package import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What this host has.
package enum HostProbe {
  /// Asks the system. Figures respect the control group the agent runs in, what its batch job has, and the
  /// limits its user gave: the least of them counts.
  package static func describe(
    store: FilePath, maxCPU: Double?, maxMemory: Int64?, job: BatchJob = BatchJob(environment: [:]),
    engines: [String]
  ) async -> WireHostDescription {
    var host = WireHostDescription()
    host.cpu = min(cpuCount(), job.cpu ?? .infinity, maxCPU ?? .infinity)
    host.memoryBytes = min(memoryBytes(), job.memoryBytes ?? .max, maxMemory ?? .max)
    host.diskBytes = Files.room(at: store)?.total ?? 0
    host.gpu = await gpuCount()
    host.engines = engines
    (host.ipv4, host.ipv6) = addresses()
    return host
  }

  package static func hostname() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard gethostname(&buffer, buffer.count - 1) == 0 else { return "localhost" }
    let name = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    return name.isEmpty ? "localhost" : name
  }

  private static func cpuCount() -> Double {
    var count = Double(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    let status = Files.text("/proc/self/status")?.split(separator: "\n")
    if let mask = status?.first(where: { $0.hasPrefix("Cpus_allowed:") })?.dropFirst("Cpus_allowed:".count) {
      let allowed = mask.reduce(0) { $0 + ($1.hexDigitValue?.nonzeroBitCount ?? 0) }
      if allowed > 0 { count = min(count, Double(allowed)) }
    }
    if let quota = Files.text("/sys/fs/cgroup/cpu.max")?.split(separator: " "), quota.count == 2,
      let limit = Double(quota[0]), let period = Double(quota[1]), period > 0
    {
      count = min(count, limit / period)
    } else if let limit = Files.text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").flatMap(Double.init), limit > 0,
      let period = Files.text("/sys/fs/cgroup/cpu/cpu.cfs_period_us").flatMap(Double.init), period > 0
    {
      count = min(count, limit / period)
    }
    return max(count, 0.1)
  }

  private static func memoryBytes() -> Int64 {
    var bytes = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))
    for file in ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"] {
      if let limit = Files.text(FilePath(file)).flatMap(Int64.init), limit > 0 { bytes = min(bytes, limit) }
    }
    return bytes
  }

  private static func gpuCount() async -> UInt32 {
    guard
      let listed = try? await Subprocess.run(
        .name("nvidia-smi"), arguments: ["-L"], output: .string(limit: 1 << 16), error: .discarded),
      listed.terminationStatus.isSuccess
    else { return 0 }
    return UInt32(listed.standardOutput.split(separator: "\n").filter { $0.hasPrefix("GPU ") }.count)
  }

  /// The first address of each kind that others may reach; loopback and link-local ones are not.
  private static func addresses() -> (ipv4: String, ipv6: String) {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return ("", "") }
    defer { freeifaddrs(first) }
    var found = (ipv4: "", ipv6: "")
    var next = first
    while let entry = next?.pointee {
      next = entry.ifa_next
      guard let address = entry.ifa_addr, entry.ifa_flags & UInt32(IFF_UP) != 0,
        entry.ifa_flags & UInt32(IFF_LOOPBACK) == 0
      else { continue }
      let family = Int32(address.pointee.sa_family)
      guard family == AF_INET || family == AF_INET6 else { continue }
      let size = family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
      var buffer = [CChar](repeating: 0, count: Int(NI_MAXHOST))
      guard
        getnameinfo(
          address, socklen_t(size), &buffer, socklen_t(buffer.count), nil, 0, NI_NUMERICHOST) == 0
      else { continue }
      let text = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
      if family == AF_INET, found.ipv4.isEmpty, !text.hasPrefix("169.254.") { found.ipv4 = text }
      if family == AF_INET6, found.ipv6.isEmpty, !text.hasPrefix("fe80") { found.ipv6 = text }
    }
    return found
  }
}
