import Foundation
import Testing

/// Recruiters on three machines that are reached by ssh: network namespaces with a real sshd each.
@Suite(
  "Machines by ssh", .serialized,
  .enabled(
    if: geteuid() == 0
      && Tools.has("ssh", "sshd", "ssh-keygen", "unshare", "taskset", "ip", "iptables", "curl"),
    "needs root, openssh-server, util-linux, iproute2, iptables and curl"))
struct SSHTests {
  @Test("machines are taken, work, are not given up while nobody reaches them, and are left clean")
  func life() async throws {
    try await Machines.run { machines in
      try await World.server().configured(machines.configuration).reachable().run { world in
        try await world.scitq("workflow", "create", "--name", "w")
        try await world.scitq("step", "create", "--workflow-id", "1", "--name", "a")
        try await until("flavors are known") {
          try await world.scitq("flavor", "list", "--quiet").text.split(separator: "\n").count == 1
        }
        try await world.scitq(
          "recruiter", "create", "--step-id", "1", "--filter", "cpu>=1", "--concurrency", "1",
          "--max-workers", "3", "--timeout", "0")
        let first = try await hold(world, "first")
        let one = try #require(try await world.task(first, reaches: "R").workerName)
        let second = try await hold(world, "second")
        let two = try #require(try await world.task(second, reaches: "R").workerName)

        // One is cut off, and one takes connections and says nothing.
        let (cut, frozen) = (try machines.index(of: one), try machines.index(of: two))
        try await machines.cables[cut].cut()
        machines.daemons[frozen].signal(SIGSTOP)
        try await until("the silence is noticed") { try await world.happened("worker", "silent") }
        // The third is there to be had.
        let third = try await hold(world, "third")
        let three = try #require(try await world.task(third, reaches: "R").workerName)
        #expect(try Set([cut, frozen, machines.index(of: three)]) == [0, 1, 2])
        #expect(try await world.task(first).status == "R")
        #expect(try await world.task(second).status == "R")
        machines.daemons[frozen].signal(SIGCONT)
        try await machines.cables[cut].mend()
        try await until("it is heard again") { try await world.happened("worker", "heard") }
        try release(world, "first")
        try await world.succeeded(first)
        #expect(try await world.history(first) == "PACRUS")
        #expect(try await world.sql("SELECT count(*) FROM event WHERE to_status = 'boot: fetched'") == "3")
        for trouble in ["lost", "gone"] { #expect(try await !world.happened("worker", trouble)) }
        #expect(try await !world.happened("region", "troubled"))

        // One is deleted with what it runs, which begins elsewhere.
        let place = try machines.index(of: three)
        try #require(try await machines.cables[place].processes().count > 2)
        let number = try #require(try await world.worker(three)?.id)
        try await world.scitq("worker", "delete", "--worker-id", "\(number)")
        let clone = try #require(try await world.task(third, reaches: "F").nextTaskId)
        try await machines.isClean(place)
        for name in ["second", "third"] { try release(world, name) }
        for id in [second, clone] { try await world.succeeded(id) }
        #expect(try await world.history(second) == "PACRUS")
        // The others are returned when nothing is left for them.
        try await until("all were returned", within: .seconds(60)) {
          try await world.sql("SELECT count(*) FROM instance WHERE state <> 'ended'") == "0"
        }
        for index in 0..<3 { try await machines.isClean(index) }
      }
    }
  }

  /// A task that runs until it is released.
  private func hold(_ world: World, _ name: String) async throws -> Int64 {
    try await world.create(
      "--step-id", "1", "--container", "bare", "--shell", "sh", "--command",
      "until [ -e '\(gate(world, name).path)' ]; do sleep 0.1; done")
  }

  private func release(_ world: World, _ name: String) throws { try Data().write(to: gate(world, name)) }

  private func gate(_ world: World, _ name: String) -> URL { world.folder.appending(path: "gate-\(name)") }
}

/// Three machines at the ends of three cables, each with a home of its own.
private final class Machines: Sendable {
  let folder: URL
  let cables: [Cable]
  let daemons: [Program]

  static func run(_ body: (Machines) async throws -> Void) async throws {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let folder = URL(filePath: "\(parent)/ssh-\(UUID().uuidString.prefix(8))")
    var cables: [Cable] = []
    do {
      for _ in 0..<3 { cables.append(try await Cable.lay()) }
      try await body(try await Machines(folder, cables))
    } catch {
      await end(folder, cables)
      throw error
    }
    await end(folder, cables)
  }

  private init(_ folder: URL, _ cables: [Cable]) async throws {
    let programs = folder.appending(path: "bin")
    try FileManager.default.createDirectory(at: programs, withIntermediateDirectories: true)
    // There, so that nothing is installed on what is this machine's own disk after all.
    for name in ["docker", "rclone"] {
      let program = programs.appending(path: name)
      try "#!/bin/sh\nexit 1\n".write(to: program, atomically: true, encoding: .utf8)
      try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program.path)
    }
    try await Program.run([
      "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder.appending(path: "key").path,
    ])
    let script = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../ServerTests/Fleet/ssh_machine.sh").standardizedFileURL
    let cpus = "0-\(ProcessInfo.processInfo.processorCount - 1)"
    self.folder = folder
    self.cables = cables
    daemons = try cables.enumerated().map { index, cable in
      let log = folder.appending(path: "sshd\(index).log")
      return try Program(
        "sshd\(index)", try Tools.onPath("ip"),
        [
          "netns", "exec", cable.namespace, "sh", script.path, folder.path, "\(index)",
          folder.appending(path: "var").path, cable.address, "22", cpus,
          "PATH=\(programs.path):/usr/sbin:/usr/bin:/sbin:/bin",
          "HOME=\(folder.path)/disk\(index)",
        ], environment: ProcessInfo.processInfo.environment, out: log, err: log)
    }
    for index in cables.indices {
      try await until("machine \(index) listens") {
        let log = folder.appending(path: "sshd\(index).log")
        return ((try? String(contentsOf: log, encoding: .utf8)) ?? "").contains("Server listening")
      }
    }
  }

  private static func end(_ folder: URL, _ cables: [Cable]) async {
    for cable in cables {
      while let left = try? await cable.processes(), !left.isEmpty {
        for number in left { kill(number, SIGKILL) }
        try? await Task.sleep(for: .milliseconds(20))
      }
      await cable.remove()
    }
    try? FileManager.default.removeItem(at: folder)
  }

  var configuration: String {
    """
    workers:
      offline_timeout: 60s
      beat_interval: 1s
    fleet:
      server_address: \(cables[0].serverAddress)
      idle_timeout: 30s
      reconcile_interval: 1s
    providers:
      ssh:
        lab:
          hosts: [\(cables.map { "root@\($0.address)" }.joined(separator: ", "))]
          folder: ~/scitq
          identity_file: \(folder.path)/key
          options:
            - StrictHostKeyChecking=accept-new
            - UserKnownHostsFile=\(folder.path)/known
            - IdentitiesOnly=yes
            - IdentityAgent=none
            - ConnectTimeout=2
    """
  }

  private func home(_ index: Int) -> URL { folder.appending(path: "disk\(index)/scitq") }

  /// The machine that was taken for a worker.
  func index(of worker: String) throws -> Int {
    let index = cables.indices.first { index in
      let order = try? String(contentsOf: home(index).appending(path: "order"), encoding: .utf8)
      return order?.hasPrefix("\(worker) ") == true
    }
    return try #require(index, "no machine was taken for \(worker)")
  }

  /// Waits until nothing of the worker is left there, neither files nor processes.
  func isClean(_ index: Int) async throws {
    try await until("machine \(index) is clean") {
      let left = try await cables[index].processes()
      return !FileManager.default.fileExists(atPath: home(index).path) && left == [daemons[index].pid]
    }
    let names = try FileManager.default.contentsOfDirectory(
      atPath: folder.appending(path: "disk\(index)").path)
    #expect(names.isEmpty)
  }
}
