import Foundation
import Scheduling
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Workers on the server's own machine: each order is a folder, and a process in a session of its own, which
/// outlives the server.
///
/// In the folder lie `order` (region and flavor), `boot.sh` with its `boot.log`, and `process`: the number of
/// the process and the moment it started, which together are never given again.
struct LocalProvider: Provider {
  let configuration: ProviderConfiguration
  let keys: OwnKeys
  /// The folder of all the hosts' folders.
  let base: FilePath
  /// Between asking a worker to end and ending it.
  var grace: Duration = .seconds(10)

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    keys = OwnKeys(server: server)
    base = configuration.settings["store"].map { FilePath($0) } ?? folder
  }

  /// The machine itself, where nothing else is configured: it costs nothing.
  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    if !configuration.flavors.isEmpty { return configuration.flavors.filter { $0.region == region } }
    let machine = ProcessInfo.processInfo
    // A folder that is not there yet has the disk of the nearest that is.
    var place = base
    while !FileManager.default.fileExists(atPath: place.string), place.removeLastComponent() {}
    let system = try? FileManager.default.attributesOfFileSystem(forPath: place.string)
    let disk = system?[.systemFreeSize] as? Int64
    return [
      Flavor(
        provider: configuration.name, region: region, name: "local",
        cpu: Double(machine.activeProcessorCount), memory: Double(machine.physicalMemory) / Self.gigabyte,
        disk: Double(disk ?? 0) / Self.gigabyte,
        price: configuration.prices["local"] ?? 0)
    ]
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let home = base.appending(order.key)
    let instance = Instance(
      key: order.key, id: order.key, region: order.flavor.region, state: .running, address: "127.0.0.1")
    let lock = try writing { () throws in
      try FileManager.default.createDirectory(
        atPath: home.string, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
      return try FileDescriptor.open(
        home.appending("lock"), .readWrite, options: [.create, .closeOnExec], permissions: .ownerReadWrite)
    }
    defer { try? lock.close() }
    // The same order may be tried anew while a first try still runs: one of them makes the host, the other
    // finds it.
    while flock(lock.rawValue, LOCK_EX | LOCK_NB) != 0 {
      do { try await Task.sleep(for: .milliseconds(50)) } catch {
        throw ProviderError(.transient, "\(order.key) was given up")
      }
    }
    if HostProcess(at: home.appending("process"))?.runs == true { return instance }
    var boot = order.boot
    boot.folder = home.string
    boot.staysInForeground = true
    boot.installs = false
    try writing { () throws in
      for (name, text) in [
        ("boot.sh", boot.text), ("start.sh", Self.starter),
        ("order", "\(order.flavor.region)\n\(order.flavor.name)\n"),
      ] {
        try PrivateFolder.write(text, to: home.appending(name), mode: .ownerReadWrite)
      }
    }
    // It writes down which process it is, which may be a moment after its starter has ended.
    let process = home.appending("process")
    try? FileManager.default.removeItem(atPath: process.string)
    let start = ["--fork", "sh", home.appending("start.sh").string]
    try await ClientProgram(program: "setsid").checked(start, deadline: .seconds(30)) { _ in .misconfigured }
    let end = ContinuousClock.now.advanced(by: .seconds(30))
    while HostProcess(at: process) == nil {
      guard ContinuousClock.now < end, (try? await Task.sleep(for: .milliseconds(10))) != nil else {
        throw ProviderError(.transient, "no process was started in \(home)")
      }
    }
    return instance
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    let home = base.appending(instance.key)
    guard FileManager.default.fileExists(atPath: home.string) else { return }
    if let process = HostProcess(at: home.appending("process")), process.runs {
      kill(-process.number, SIGTERM)
      let clock = ContinuousClock()
      let end = clock.now.advanced(by: grace)
      while process.runs, clock.now < end { try? await Task.sleep(for: .milliseconds(50)) }
      kill(-process.number, SIGKILL)
    }
    // What its tasks run goes too: their supervisors live in sessions of their own, and name the folder.
    for _ in 0..<20 {
      let left = HostProcess.tree(naming: home.string + "/")
      if left.isEmpty { break }
      for number in left { kill(number, SIGKILL) }
      try? await Task.sleep(for: .milliseconds(50))
    }
    await removeContainers(of: home)
    if (try? FileManager.default.removeItem(atPath: home.string)) == nil {
      // Tasks may leave folders that even their owner may not write to.
      _ = await ClientProgram(program: "chmod").run(["-R", "u+rwX", home.string])
      try writing { () throws in try FileManager.default.removeItem(atPath: home.string) }
    }
  }

  /// Those of a worker that could not end them itself any more. They belong to the engine, not to a process of the
  /// worker's, and are known by its store.
  private func removeContainers(of home: FilePath) async {
    let file = home.appending("store").appending("store-id").string
    guard let text = try? String(contentsOfFile: file, encoding: .utf8) else { return }
    let store = text.trimmingCharacters(in: .whitespacesAndNewlines)
    for engine in ["docker", "podman"] where !store.isEmpty {
      let program = ClientProgram(program: engine)
      let found = await program.run(
        ["ps", "-aq", "--filter", "label=scitq.store=\(store)"], deadline: .seconds(30))
      let containers = found.text.split(whereSeparator: \.isWhitespace).map(String.init)
      guard found.isSuccess, !containers.isEmpty else { continue }
      _ = await program.run(["rm", "-f"] + containers, deadline: .seconds(60))
    }
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: base.string)) ?? []
    return names.filter { keys.contains($0) }.sorted().compactMap { key in
      let home = base.appending(key)
      guard HostProcess(at: home.appending("process"))?.runs == true,
        let order = try? String(contentsOfFile: home.appending("order").string, encoding: .utf8),
        order.split(separator: "\n").first.map(String.init) == region
      else { return nil }
      return Instance(key: key, id: key, region: region, state: .running, address: "127.0.0.1")
    }
  }

  private func writing<R>(_ body: () throws -> R) throws(ProviderError) -> R {
    do { return try body() } catch {
      throw ProviderError(.misconfigured, "the hosts' folder \(base) cannot be used: \(error)")
    }
  }

  private static let gigabyte = Double(1 << 30)

  /// Writes down which process it is, and becomes the boot script, which becomes the worker.
  private static let starter = #"""
    set -eu
    umask 077
    cd "$(dirname "$0")"
    set -- $(sed 's/^.*) //' "/proc/$$/stat")
    echo "$$ ${20}" >process.new
    mv process.new process
    exec sh boot.sh >>boot.log 2>&1 </dev/null

    """#
}

/// A process by its number and the moment it started (ticks since the machine did, field 22 of its `stat`).
struct HostProcess: Sendable, Equatable {
  let number: pid_t
  let started: UInt64

  /// As `process` in a host's folder has it.
  init?(at path: FilePath) {
    guard let text = try? String(contentsOfFile: path.string, encoding: .utf8) else { return nil }
    let words = text.split(whereSeparator: \.isWhitespace)
    // A signal to a number below 2 would go to more than one process.
    guard words.count == 2, let number = pid_t(words[0]), number > 1, let started = UInt64(words[1])
    else { return nil }
    self.number = number
    self.started = started
  }

  /// One that has ended and waits for its parent to look does not run.
  var runs: Bool {
    guard let fields = Self.fields(of: number) else { return false }
    return fields.count > 19 && !["Z", "X"].contains(fields[0]) && UInt64(fields[19]) == started
  }

  /// Of `stat`, from the third on: the second is the program's name, and may hold anything.
  private static func fields(of number: pid_t) -> [Substring]? {
    guard let text = try? String(contentsOfFile: "/proc/\(number)/stat", encoding: .utf8),
      let end = text.lastIndex(of: ")")
    else { return nil }
    return text[end...].dropFirst(2).split(separator: " ")
  }

  /// All that run with a text in their arguments, and all that these started.
  static func tree(naming text: String) -> [pid_t] {
    let numbers = ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [])
      .compactMap { pid_t($0) }
    var found: Set<pid_t> = []
    var children: [pid_t: [pid_t]] = [:]
    for number in numbers where number > 1 && number != getpid() {
      guard let fields = fields(of: number), fields.count > 1, fields[0] != "Z", let parent = pid_t(fields[1])
      else { continue }
      children[parent, default: []].append(number)
      let arguments = (try? Data(contentsOf: URL(filePath: "/proc/\(number)/cmdline"))) ?? Data()
      if arguments.range(of: Data(text.utf8)) != nil { found.insert(number) }
    }
    var todo = Array(found)
    while let parent = todo.popLast() {
      for child in children[parent] ?? [] where found.insert(child).inserted { todo.append(child) }
    }
    return found.sorted()
  }
}
