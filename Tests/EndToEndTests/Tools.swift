import Foundation

/// The programs that the tests start.
enum Tools {
  /// A program of this package, built beside the tests.
  static func built(_ name: String) throws -> URL {
    let folder = try buildFolder.get()
    return folder.appending(path: name)
  }

  private static let buildFolder: Result<URL, Trouble> = {
    let arguments = CommandLine.arguments.map { URL(filePath: $0) }
    #if os(Linux)
      let own = [URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()]
    #else
      let own: [URL] = []
    #endif
    for start in own + arguments {
      var folder = start.deletingLastPathComponent()
      for _ in 0..<5 {
        if FileManager.default.isExecutableFile(atPath: folder.appending(path: "scitq-server").path) {
          return .success(folder)
        }
        folder = folder.deletingLastPathComponent()
      }
    }
    return .failure(Trouble("scitq-server is not built: run scripts/test, or swift build first"))
  }()

  /// rclone: the one that SCITQ_RCLONE names, or the one on PATH.
  static let rclone: URL =
    ProcessInfo.processInfo.environment["SCITQ_RCLONE"].map { URL(filePath: $0) }
    ?? (try? onPath("rclone")) ?? URL(filePath: "/usr/bin/rclone")

  /// Whether all of these are there to be run.
  static func has(_ names: String...) -> Bool { names.allSatisfy { (try? onPath($0)) != nil } }

  static func onPath(_ name: String) throws -> URL {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    for folder in path.split(separator: ":") {
      let file = URL(filePath: String(folder)).appending(path: name)
      if FileManager.default.isExecutableFile(atPath: file.path) { return file }
    }
    throw Trouble("\(name) is not installed: run scripts/test, which installs what the tests need")
  }
}

/// What is still there of a world that has ended: the processes and containers that outlive an agent by design.
enum Leftovers {
  /// Ends everything that names the folder in its arguments, or was started with it as its TMPDIR.
  static func remove(_ folder: URL) async {
    let path = folder.path
    for _ in 0..<100 {
      let pids = processes(of: path)
      if pids.isEmpty { break }
      for pid in pids { kill(pid, SIGKILL) }
      try? await Task.sleep(for: .milliseconds(20))
    }
    await removeContainers(of: path)
  }

  private static func processes(of path: String) -> [pid_t] {
    let needle = Data(path.utf8)
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { pid_t($0) }.filter { pid in
      guard pid != getpid(), !isZombie(pid) else { return false }
      return ["cmdline", "environ"].contains { file in
        let bytes = try? Data(contentsOf: URL(filePath: "/proc/\(pid)/\(file)"))
        return bytes?.range(of: needle) != nil
      }
    }
  }

  private static func isZombie(_ pid: pid_t) -> Bool {
    let stat = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    guard let end = stat.lastIndex(of: ")") else { return true }
    return stat[end...].dropFirst(2).hasPrefix("Z")
  }

  private static func removeContainers(of path: String) async {
    guard let docker = try? Tools.onPath("docker") else { return }
    let list = await run(
      docker, ["ps", "-a", "--no-trunc", "--filter", "label=scitq.store", "--format", "{{.ID}} {{.Mounts}}"])
    let ids = list.split(separator: "\n").filter { $0.contains(path) }
      .compactMap { $0.split(separator: " ").first.map(String.init) }
    if !ids.isEmpty { _ = await run(docker, ["rm", "-f"] + ids) }
  }

  private static func run(_ program: URL, _ arguments: [String]) async -> String {
    let file = FileManager.default.temporaryDirectory.appending(path: "scitq-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: file) }
    let started = try? Program(
      program.lastPathComponent, program, arguments, environment: ProcessInfo.processInfo.environment,
      out: file,
      err: file)
    await started?.ended(within: .seconds(30))
    return (try? String(contentsOf: file, encoding: .utf8)) ?? ""
  }
}
