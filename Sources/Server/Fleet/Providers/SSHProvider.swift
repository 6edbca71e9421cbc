import Foundation
import Scheduling
import SystemPackage

/// Machines from a list, reached by `ssh`.
///
/// A machine is taken when its folder holds a file `order`: key, region and flavor. It is made by `ln`, which
/// one of many succeeds in, and goes last. All that a machine is asked or told goes in by standard input, so
/// the ticket is in no list of processes there either.
///
/// Which machine an order is tried on is written down here before, and that it was taken after: an order that
/// was interrupted is looked for there even while that machine cannot be reached, what is taken there is not
/// given up meanwhile, and the others' silence holds nothing up.
struct SSHProvider: Provider {
  let configuration: ProviderConfiguration
  let keys: OwnKeys
  /// Where it is written down which machine an order is tried on.
  let notes: FilePath
  var environment: [String: String] = [:]
  var deadline: Duration = .seconds(90)
  /// Seconds, for connection and handshake.
  var connectTimeout = 10

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    keys = OwnKeys(server: server)
    notes = folder
  }

  /// The configured ones, which count for all machines, or for the one that bears the flavor's name; else
  /// what the machines say of themselves.
  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    if !configuration.flavors.isEmpty { return configuration.flavors.filter { $0.region == region } }
    let answers = await looks(at: hosts)
    let seen = answers.compactMap { try? $0.look.get() }
    if seen.isEmpty, case .failure(let error)? = answers.first?.look { throw error }
    var found: [String: Flavor] = [:]
    for look in seen {
      // A name may stand for machines of nearly one size: what it promises is what all of them have.
      var flavor = found[look.shape] ?? look.flavor(of: configuration, region: region)
      flavor.memory = min(flavor.memory, look.memory)
      flavor.disk = min(flavor.disk, look.disk)
      found[look.shape] = flavor
    }
    return found.values.sorted { $0.name < $1.name }
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let noted = noted(order.key)?.host
    let answers = await looks(at: hosts + (noted.map { hosts.contains($0) ? [] : [$0] } ?? []))
    // The one that has it comes first: its script is run again, which does nothing twice.
    var candidates: [String] = []
    for (host, look) in answers {
      switch look {
      case .success(let look) where look.key == order.key: candidates.insert(host, at: 0)
      case .success(let look) where look.key == nil && look.isEmpty && hosts.contains(host):
        if fits(order.flavor, host: host, look: look) { candidates.append(host) }
      case .success: break
      case .failure(let error): if host == noted { throw error }
      }
    }
    var broken: ProviderError?
    for host in candidates {
      try write(host, in: nil, for: order.key)
      let said: [String: String]
      do throws(ProviderError) { said = try await shell(on: host, taking(order)) } catch {
        // A machine that cannot be used keeps no other one from it.
        guard error.kind == .misconfigured else { throw error }
        broken = error
        remove(order.key)
        continue
      }
      if said["taken"] == order.key {
        try write(host, in: order.flavor.region, for: order.key)
        return Instance(
          key: order.key, id: host, region: order.flavor.region, state: .running,
          address: Self.parts(of: host).name)
      }
      // Somebody else was quicker.
      remove(order.key)
    }
    if let broken { throw broken }
    let failures = answers.compactMap { answer -> ProviderError? in
      if case .failure(let error) = answer.look { error } else { nil }
    }
    if let error = failures.first, failures.count == answers.count { throw error }
    let away = failures.isEmpty ? "" : ", and \(failures.count) of \(answers.count) cannot be reached"
    throw ProviderError(.capacity, "no machine for \(order.flavor.name) is free\(away)")
  }

  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    _ = try await shell(on: instance.id, head + "key=\(instance.key)\n" + Self.leaving)
    remove(instance.key)
  }

  /// Of a machine that cannot be reached nothing is known: what is noted here as taken there counts as there
  /// still. One that is switched off would otherwise keep all others from being used. Where none can be
  /// reached, nothing is told: who is missing counts as gone.
  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    let answers = await looks(at: hosts)
    let failures = answers.compactMap { answer -> ProviderError? in
      if case .failure(let error) = answer.look { error } else { nil }
    }
    if let error = failures.first, failures.count == answers.count { throw error }
    let taken = failures.isEmpty ? [] : allNoted()
    var found: [Instance] = []
    for (host, look) in answers {
      func tell(_ key: String, _ state: Instance.State) {
        found.append(
          Instance(key: key, id: host, region: region, state: state, address: Self.parts(of: host).name))
      }
      switch look {
      case .success(let look):
        guard let key = look.key, keys.contains(key), look.region == region else { continue }
        // The notes may be lost, and are needed when the machine is.
        let noted = noted(key)
        if noted?.host != host || noted?.region != region { try write(host, in: region, for: key) }
        tell(key, look.boots ? .pending : .running)
      case .failure:
        for note in taken where note.host == host && note.region == region { tell(note.key, .running) }
      }
    }
    return found
  }

  // MARK: - Notes

  /// `HOST`, and once it is taken `HOST REGION`.
  private func noted(_ key: String) -> (host: String, region: String?)? {
    guard let text = try? String(contentsOfFile: note(key).string, encoding: .utf8) else { return nil }
    let words = text.split(separator: " ", maxSplits: 1).map(String.init)
    return words.first.map { ($0, words.count > 1 ? words[1] : nil) }
  }

  private func allNoted() -> [(key: String, host: String, region: String?)] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: notes.string)) ?? []
    return names.sorted().compactMap { name in
      guard name.hasSuffix(".host") else { return nil }
      let key = String(name.dropLast(".host".count))
      guard keys.contains(key), let noted = noted(key) else { return nil }
      return (key, noted.host, noted.region)
    }
  }

  private func write(_ host: String, in region: String?, for key: String) throws(ProviderError) {
    do {
      try FileManager.default.createDirectory(atPath: notes.string, withIntermediateDirectories: true)
      try PrivateFolder.write(
        [host, region].compactMap(\.self).joined(separator: " "), to: note(key), mode: .ownerReadWrite)
    } catch {
      throw ProviderError(.misconfigured, "the folder \(notes) cannot be used: \(error)")
    }
  }

  private func remove(_ key: String) { try? FileManager.default.removeItem(atPath: note(key).string) }

  private func note(_ key: String) -> FilePath { notes.appending("\(key).host") }

  // MARK: - Machines

  private var hosts: [String] { configuration.lists["hosts"] ?? [] }

  /// What a machine says of itself.
  private struct Look: Sendable {
    var cpus = 0
    var memory = 0.0
    var disk = 0.0
    var key: String?
    var region: String?
    /// Its folder is not there or holds nothing: something else of that name is not ours to take.
    var isEmpty = false
    /// The boot script still runs.
    var boots = false

    var shape: String { "\(cpus)c-\(Int(memory.rounded()))g" }

    func flavor(of configuration: ProviderConfiguration, region: String) -> Flavor {
      Flavor(
        provider: configuration.name, region: region, name: shape, cpu: Double(cpus), memory: memory,
        disk: disk,
        price: configuration.prices[shape] ?? 0)
    }
  }

  private func fits(_ flavor: Flavor, host: String, look: Look) -> Bool {
    if configuration.flavors.isEmpty { return look.shape == flavor.name }
    let named = hosts.filter { $0 == flavor.name || Self.parts(of: $0).name == flavor.name }
    return named.isEmpty || named.contains(host)
  }

  private typealias Answer = (host: String, look: Result<Look, ProviderError>)

  /// All at once, and told in the order of the list.
  private func looks(at hosts: [String]) async -> [Answer] {
    await withTaskGroup(of: (Int, Result<Look, ProviderError>).self) { group in
      for (index, host) in hosts.enumerated() {
        group.addTask {
          do throws(ProviderError) { return (index, .success(try await look(at: host))) } catch {
            return (index, .failure(error))
          }
        }
      }
      var answers: [Int: Result<Look, ProviderError>] = [:]
      for await (index, answer) in group { answers[index] = answer }
      return hosts.indices.compactMap { index in answers[index].map { (hosts[index], $0) } }
    }
  }

  private func look(at host: String) async throws(ProviderError) -> Look {
    let said = try await shell(on: host, head + Self.looking)
    guard let cpus = said["cpus"].flatMap({ Int($0) }), let memory = said["memory"].flatMap({ Int($0) })
    else {
      throw ProviderError(.transient, "\(host) does not say what it has")
    }
    let order = said["order"]?.split(separator: " ").map(String.init) ?? []
    return Look(
      cpus: cpus, memory: Double(memory) / 1_048_576,
      disk: Double(said["disk"].flatMap { Int($0) } ?? 0) / 1_048_576,
      key: order.first, region: order.count > 1 ? order[1] : nil, isEmpty: said["empty"] != nil,
      boots: said["boots"] != nil)
  }

  /// `user@host:port`, `host`, `user@[address]:port`.
  static func parts(of host: String) -> (user: String?, name: String, port: String?) {
    var rest = Substring(host)
    var user: String?
    if let at = rest.lastIndex(of: "@") {
      user = String(rest[..<at])
      rest = rest[rest.index(after: at)...]
    }
    if rest.first == "[", let end = rest.lastIndex(of: "]") {
      let port = rest[end...].dropFirst()
      return (user, String(rest[..<end].dropFirst()), port.first == ":" ? String(port.dropFirst()) : nil)
    }
    // More than one colon is an address without a port.
    let words = rest.split(separator: ":", omittingEmptySubsequences: false)
    return words.count == 2 ? (user, String(words[0]), String(words[1])) : (user, String(rest), nil)
  }

  /// Runs a script on a machine, and returns the words it said: `scitq NAME VALUE`. What else a machine's
  /// shell prints at its start is passed over.
  private func shell(on host: String, _ script: String) async throws(ProviderError) -> [String: String] {
    let (user, name, port) = Self.parts(of: host)
    guard !name.isEmpty, !name.hasPrefix("-") else {
      throw ProviderError(.misconfigured, "\(host.debugDescription) is not the name of a machine")
    }
    var arguments = ["-T", "-o", "BatchMode=yes"]
    // ssh goes by what it is told first.
    for option in configuration.lists["options"] ?? [] { arguments += ["-o", option] }
    arguments += [
      "-o", "ConnectTimeout=\(connectTimeout)",
      "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3",
    ]
    if let file = configuration.settings["identity_file"] { arguments += ["-i", file] }
    if let port { arguments += ["-p", port] }
    if let user = user ?? configuration.settings["user"] { arguments += ["-l", user] }
    let answer = await ClientProgram(program: "ssh", environment: environment)
      .run(arguments + ["--", name, "sh", "-s"], input: script, deadline: deadline)
    switch answer.code {
    case 0: break
    case -1: throw ProviderError(.misconfigured, answer.error)
    case -2: throw ProviderError(.transient, "\(host) did not answer within \(deadline)")
    case 255: throw ProviderError(Self.classify(answer.error), "\(host): \(answer.sentence)")
    default: throw ProviderError(.misconfigured, "\(host): \(answer.sentence)")
    }
    var said: [String: String] = [:]
    for line in answer.text.split(whereSeparator: \.isNewline) where line.hasPrefix("scitq ") {
      let words = line.split(separator: " ", maxSplits: 2)
      if words.count > 1 { said[String(words[1])] = words.count > 2 ? String(words[2]) : "" }
    }
    guard said["end"] != nil else {
      throw ProviderError(.transient, "\(host) answered \(String(answer.text.prefix(200)).debugDescription)")
    }
    return said
  }

  /// What `ssh` itself complains of.
  static func classify(_ text: String) -> ProviderError.Class {
    if text.contains("Permission denied (") || text.contains("Too many authentication failures") {
      return .credentials
    }
    let wrong = [
      "Host key verification failed", "Bad configuration option", "command-line line", "Bad port",
      "no such identity",
    ]
    return wrong.contains { text.localizedCaseInsensitiveContains($0) } ? .misconfigured : .transient
  }

  // MARK: - What machines are told

  private var head: String {
    let folder = configuration.settings["folder"] ?? "/var/lib/scitq"
    let word =
      folder.hasPrefix("~/") ? "\"$HOME\"/" + String(folder.dropFirst(2)).shellWord : folder.shellWord
    return "SCITQ_FOLDER=\(word)\n" + Self.functions
  }

  private func taking(_ order: InstanceOrder) -> String {
    var boot = order.boot
    boot.folder = boot.pilot.folder
    let line = "\(order.key) \(order.flavor.region) \(order.flavor.name)"
    return head + "key=\(order.key)\nline=\(line.shellWord)\n" + Self.takes + """
      cat >boot.sh <<'SCITQ_BOOT_ENDS'
      \(boot.text)
      SCITQ_BOOT_ENDS
      setsid sh boot.sh >boot.log 2>&1 </dev/null &
      echo $! >boot.pid
      fi
      echo scitq taken "$owner"
      echo scitq end

      """
  }

  /// A number alone may have been given again: what is ours works in our folder.
  private static let functions = #"""
    set -eu
    umask 077
    export SCITQ_FOLDER
    runs() {
      [ -s "$1" ] && pid=$(cat "$1") && [ "$(readlink "/proc/$pid/cwd")" = "$(cd "$SCITQ_FOLDER" && pwd -P)" ]
    }
    unit=/etc/systemd/system/scitq-worker.service
    has_unit() { [ -d /run/systemd/system ] && grep -qsxF "WorkingDirectory=$SCITQ_FOLDER" "$unit"; }

    """#

  private static let looking = #"""
    echo scitq cpus "$(nproc)"
    echo scitq memory "$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
    place=$SCITQ_FOLDER
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    echo scitq disk "$(df -Pk "$place" | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p')"
    if [ -s "$SCITQ_FOLDER/order" ]; then
      echo scitq order "$(cat "$SCITQ_FOLDER/order")"
      if runs "$SCITQ_FOLDER/boot.pid" 2>/dev/null; then echo scitq boots; fi
    elif [ ! -d "$SCITQ_FOLDER" ] || [ -z "$(ls -A "$SCITQ_FOLDER")" ]; then
      echo scitq empty
    fi
    echo scitq end

    """#

  /// The script is run again only where neither it nor the worker runs.
  private static let takes = #"""
    mkdir -p "$SCITQ_FOLDER"
    cd "$SCITQ_FOLDER"
    printf '%s\n' "$line" >".order.$$"
    ln ".order.$$" order 2>/dev/null || true
    rm -f ".order.$$"
    read -r owner rest <order
    if [ "$owner" = "$key" ] && ! runs boot.pid 2>/dev/null && ! runs worker.pid 2>/dev/null &&
      ! has_unit; then

    """#

  /// The worker is asked, and killed 10 s later; then what its tasks run, which names the folder in its
  /// arguments; then all files, and the order last, so that nobody takes a machine that is still being left.
  private static let leaving = #"""
    [ -s "$SCITQ_FOLDER/order" ] || { echo scitq end; exit 0; }
    read -r owner rest <"$SCITQ_FOLDER/order"
    [ "$owner" = "$key" ] || { echo scitq end; exit 0; }
    cd "$SCITQ_FOLDER"
    here=$(pwd -P)
    if has_unit; then
      systemctl disable scitq-worker >/dev/null 2>&1 || true
      systemctl stop --no-block scitq-worker || true
    fi
    for file in boot.pid worker.pid; do
      if runs "$file" 2>/dev/null; then kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" || true; fi
    done
    alive() {
      for file in boot.pid worker.pid; do if runs "$file" 2>/dev/null; then return 0; fi; done
      has_unit && systemctl -q is-active scitq-worker
    }
    tries=100
    while [ "$tries" -gt 0 ] && alive; do sleep 0.1; tries=$((tries - 1)); done
    for file in boot.pid worker.pid; do
      if runs "$file" 2>/dev/null; then kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" || true; fi
    done
    if has_unit; then
      systemctl kill -s KILL scitq-worker >/dev/null 2>&1 || true
      rm -f "$unit"
      systemctl daemon-reload || true
    fi
    # Containers are the engine's, and are known by the store of the worker that was here.
    store=$(cat store/store-id 2>/dev/null || true)
    for engine in docker podman; do
      [ -n "$store" ] && command -v "$engine" >/dev/null 2>&1 || continue
      for container in $(timeout 30 "$engine" ps -aq --filter "label=scitq.store=$store" 2>/dev/null); do
        timeout 30 "$engine" rm -f "$container" >/dev/null 2>&1 || true
      done
    done
    end_tree() {
      kill -STOP "$1" 2>/dev/null || return 0
      for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do end_tree "$child"; done
      kill -KILL "$1" 2>/dev/null || true
    }
    for entry in /proc/[0-9]*; do
      case $(tr '\0' ' ' <"$entry/cmdline" 2>/dev/null || true) in
        *"$SCITQ_FOLDER/"* | *"$here/"*) end_tree "${entry#/proc/}" ;;
      esac
    done
    for name in * .[!.]*; do
      if [ "$name" != order ] && [ -e "$name" -o -L "$name" ]; then
        rm -rf "./$name" 2>/dev/null || { chmod -R u+rwX "./$name"; rm -rf "./$name"; }
      fi
    done
    cd /
    rm -f "$SCITQ_FOLDER/order"
    rmdir "$SCITQ_FOLDER" 2>/dev/null || true
    echo scitq end

    """#
}
