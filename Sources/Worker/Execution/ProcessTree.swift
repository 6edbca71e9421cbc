import Glibc
import ScitqProtocol

/// Everything that an attempt runs on this host: its group, what descends from it, and what has slipped out of both
/// and become the supervisor's child.
struct ProcessTree {
  /// Leads the attempt's session; a child of this process that has not been reaped.
  let leader: pid_t
  let task: TaskID
  /// Leaders of other attempts are children of this process too, and none of this one's.
  let others: Set<pid_t>

  /// So often it is looked for what was started between a look and the signal; whoever stands still starts nothing.
  private static let rounds = 100

  /// Makes all of it stand still.
  func stop() {
    kill(-leader, SIGSTOP)
    var stopped: Set<pid_t> = []
    var quiet = 0
    for _ in 0..<Self.rounds {
      let fresh = members().filter { !stopped.contains($0) }
      if fresh.isEmpty {
        // One that was becoming another program has no variables for a moment, and is seen by the second look.
        quiet += 1
        if quiet == 2 { return }
        usleep(1000)
        continue
      }
      quiet = 0
      for pid in fresh { kill(pid, SIGSTOP) }
      stopped.formUnion(fresh)
    }
  }

  /// Lets all of it go on: those who wait for others last, so that none finds its child standing still.
  func resume() {
    for pid in members().reversed() { kill(pid, SIGCONT) }
    kill(-leader, SIGCONT)
  }

  /// Parents before their children.
  private func members() -> [pid_t] {
    let all = Self.processes()
    var children: [pid_t: [pid_t]] = [:]
    for one in all { children[one.parent, default: []].append(one.pid) }
    let own = getpid()
    var found = [leader]
    // An attempt's own variables are known by every process it starts, unless that clears them.
    let mark = "SCITQ_TASK_ID=\(task)"
    for one in all where one.pid != leader && one.parent == own && !others.contains(one.pid) {
      if one.session == leader || Supervisor.environment(of: one.pid).contains(mark) { found.append(one.pid) }
    }
    var known = Set(found)
    var next = 0
    while next < found.count {
      for child in children[found[next]] ?? [] where known.insert(child).inserted { found.append(child) }
      next += 1
    }
    return found
  }

  private struct Process {
    var pid: pid_t
    var parent: pid_t
    var session: pid_t
  }

  private static func processes() -> [Process] {
    guard let folder = opendir("/proc") else { return [] }
    defer { closedir(folder) }
    var found: [Process] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if let pid = pid_t(name), let process = process(pid) { found.append(process) }
    }
    return found
  }

  /// Nil: it has ended.
  private static func process(_ pid: pid_t) -> Process? {
    let stat = Supervisor.contents(of: "/proc/\(pid)/stat")
    // The name of the program stands in parentheses and may hold anything; state, parent, group and session follow.
    guard let name = stat.lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let fields = stat[(name + 1)...].split(separator: UInt8(ascii: " "), maxSplits: 4)
    guard fields.count >= 4, let parent = pid_t(String(decoding: fields[1], as: UTF8.self)),
      let session = pid_t(String(decoding: fields[3], as: UTF8.self))
    else { return nil }
    return Process(pid: pid, parent: parent, session: session)
  }
}
