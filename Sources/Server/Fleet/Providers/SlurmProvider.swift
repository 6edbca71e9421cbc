import Foundation
import Scheduling
import SystemPackage

/// Pilots in a cluster's own queue: each is a batch job that runs a worker until it is ended, or its time is
/// over.
///
/// The order's key is the job's name. Slurm knows no token that makes a submission happen once, so the name
/// is looked for first, and `singleton` keeps a second job of the name, sent by a server that died in the
/// middle, from running beside the first; ending goes by the name as well and takes both.
struct SlurmProvider: Provider {
  let configuration: ProviderConfiguration
  let keys: OwnKeys
  /// Times as seconds, whatever the site has set.
  var environment: [String: String] = ["SLURM_TIME_FORMAT": "%s"]
  var deadline: Duration = .seconds(60)

  init(_ configuration: ProviderConfiguration, server: String, folder: FilePath) {
    self.configuration = configuration
    keys = OwnKeys(server: server)
  }

  /// The region of a cluster that is not told apart by its partitions.
  static let wholeCluster = "slurm"

  /// A flavor for each partition and shape of nodes, `PARTITION/CPUSc-MEMORYg[-GPUS]`: the whole node.
  /// Configured ones take their place: parts of nodes wait less.
  func flavors(in region: String) async throws(ProviderError) -> [Flavor] {
    if !configuration.flavors.isEmpty { return configuration.flavors.filter { $0.region == region } }
    var arguments = ["-h", "--exact", "-o", "%R|%c|%m|%d|%l|%a|%t|%G"]
    if let partition = partition(in: region) { arguments += ["-p", partition] }
    let wanted = settings["time"].flatMap(Self.minutes)
    var found: [String: Flavor] = [:]
    for line in try await lines("sinfo", arguments) {
      let words = line.split(separator: "|", maxSplits: 7, omittingEmptySubsequences: false)
      guard words.count == 8, !words[0].isEmpty, let cpus = Int(words[1]), let megabytes = Int(words[2]),
        let disk = Int(words[3])
      else { throw misunderstood("sinfo", line) }
      // Nodes that cannot be had, and partitions whose jobs end before ours would: Slurm lets those wait for
      // ever.
      let state = words[6].prefix { $0.isLetter || $0 == "_" }
      if words[5] != "up" || Self.outOfService.contains(String(state)) { continue }
      if let wanted, let limit = Self.minutes(String(words[4])), limit < wanted { continue }
      let (gpu, count) = Self.gpus(words[7])
      let partition = String(words[0])
      var name = "\(partition)/\(cpus)c-\(megabytes / 1024)g"
      if count > 0 { name += "-\(count)\(gpu)" }
      found[name] = Flavor(
        provider: configuration.name, region: region, name: name, cpu: Double(cpus),
        memory: Double(megabytes) / 1024,
        disk: Double(disk) / 1024, gpu: gpu, gpuCount: count,
        price: configuration.prices[name] ?? configuration.prices[partition] ?? 0)
    }
    return found.values.sorted { $0.name < $1.name }
  }

  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance {
    try keys.check(order.key)
    let flavor = order.flavor
    if let found = try await jobs(["--name", order.key], in: flavor.region).first { return found }
    var arguments = [
      "--parsable", "--job-name", order.key, "--comment", "scitq \(flavor.region) \(flavor.name)",
      "--nodes", "1", "--ntasks", "1", "--cpus-per-task", "\(max(1, Int(flavor.cpu)))",
      "--mem", "\(max(1, Int((flavor.memory * 1024).rounded())))M",
      // Nothing of the server's environment, which has credentials; nothing of its working folder.
      "--export", "NIL", "--chdir", "/", "--output", "/dev/null",
      "--requeue", "--dependency", "singleton", "--signal", "B:USR1@60",
    ]
    if flavor.gpuCount > 0 {
      let type = flavor.gpu == "gpu" || flavor.gpu.isEmpty ? "" : ":\(flavor.gpu)"
      arguments += ["--gres", "gpu\(type):\(flavor.gpuCount)"]
    }
    if let partition = partition(in: flavor.region) ?? Self.partition(of: flavor.name) {
      arguments += ["--partition", partition]
    }
    for key in ["time", "account", "qos"] {
      if let value = settings[key] { arguments += ["--\(key)", value] }
    }
    arguments += configuration.lists["options"] ?? []
    let text = try await client("sbatch", arguments, input: pilot(order)).text
    let id = text.prefix { $0.isNumber }
    guard !id.isEmpty else { throw misunderstood("sbatch", text) }
    return Instance(key: order.key, id: String(id), region: flavor.region, state: .pending)
  }

  /// By the name, and only among this user's jobs: numbers begin anew where a controller has lost its state.
  func terminate(_ instance: Instance) async throws(ProviderError) {
    try keys.check(instance.key)
    do throws(ProviderError) {
      _ = try await client("scancel", ["--me", "--name", instance.key])
    } catch {
      // It may have gone before us.
      if !error.message.contains("Invalid job id") && !error.message.contains("already completing") {
        throw error
      }
    }
  }

  func instances(in region: String) async throws(ProviderError) -> [Instance] {
    try await jobs(partition(in: region).map { ["--partition", $0] } ?? [], in: region)
  }

  // MARK: - Asking

  private var settings: [String: String] { configuration.settings }

  /// A region is a partition, but for the one that is the whole cluster.
  private func partition(in region: String) -> String? {
    region == Self.wholeCluster ? settings["partition"] : region
  }

  /// Ours that are not over. Those that are, Slurm tells of for some minutes more.
  private func jobs(_ filter: [String], in region: String) async throws(ProviderError) -> [Instance] {
    // The name comes last: only there may it hold what separates.
    let arguments = ["-h", "--me", "--states", "all", "-o", "%i|%T|%e|%N|%j"] + filter
    var found: [Instance] = []
    for line in try await lines("squeue", arguments) {
      let words = line.split(separator: "|", maxSplits: 4, omittingEmptySubsequences: false).map(String.init)
      guard words.count == 5, words[0].first?.isNumber == true else { throw misunderstood("squeue", line) }
      guard keys.contains(words[4]), let state = Self.state(words[1]) else { continue }
      var instance = Instance(key: words[4], id: words[0], region: region, state: state, address: words[3])
      // A job that waits has at best a guess, and one that stands still ends later than it says.
      if state == .running { instance.endsAt = Int64(words[2]).flatMap(Instance.moment) }
      found.append(instance)
    }
    return found
  }

  private static func state(_ word: String) -> Instance.State? {
    switch word {
    case "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT":
      .pending
    case "RUNNING", "SIGNALING", "RESIZING": .running
    case "SUSPENDED", "STOPPED": .suspended
    case "COMPLETING", "STAGE_OUT": .leaving
    default: nil
    }
  }

  private func lines(_ program: String, _ arguments: [String]) async throws(ProviderError) -> [Substring] {
    try await client(program, arguments).text.split(whereSeparator: \.isNewline)
  }

  private func client(
    _ program: String, _ arguments: [String], input: String = ""
  ) async throws(ProviderError) -> ClientProgram.Answer {
    try await ClientProgram(program: program, environment: environment)
      .checked(arguments, input: input, deadline: deadline, classify: Self.classify)
  }

  /// Slurm has no codes in its messages but the messages themselves. A controller that does not answer is
  /// none of these: it is `transient`, and says nothing of any job.
  static func classify(_ text: String) -> ProviderError.Class? {
    let classes: [(ProviderError.Class, [String])] = [
      (.quota, ["accounting/QOS policy", "QOSMax", "QOSGrp", "AssocGrp", "AssocMax", "MaxSubmit"]),
      (
        .credentials,
        [
          "Access/permission denied", "Munge decode failed", "Protocol authentication error",
          "User's group not",
          "Invalid user", "Invalid account",
        ]
      ),
      (
        .unsupported,
        [
          "node configuration is not available", "Memory specification can not be satisfied",
          "time limit is invalid",
          "Invalid generic resource", "CPU count per node can not be satisfied", "More processors requested",
        ]
      ),
      (.capacity, ["partition not available", "Required node not available"]),
      (
        .misconfigured,
        [
          "invalid partition", "Invalid qos", "configuration source", "unrecognized option",
          "Unable to open file",
          "Invalid --", "Invalid directive", "Munge encode failed",
        ]
      ),
    ]
    return classes.first { $0.1.contains { text.localizedCaseInsensitiveContains($0) } }?.0
  }

  private func misunderstood(_ program: String, _ text: some StringProtocol) -> ProviderError {
    ProviderError(
      .transient,
      "\(program) answered what cannot be understood: \(String(text.prefix(200)).debugDescription)")
  }

  // MARK: - Words of Slurm's

  private static let outOfService: Set = ["down", "drain", "drng", "fail", "failg", "inval", "unk", "futr"]

  private static func partition(of flavor: String) -> String? {
    let words = flavor.split(separator: "/", maxSplits: 1)
    return words.count == 2 ? String(words[0]) : nil
  }

  /// `gpu:a100:4(S:0-1),gpu:2` → the first kind there is.
  static func gpus(_ resources: Substring) -> (String, Int) {
    for resource in resources.split(separator: ",") {
      let words = resource.prefix { $0 != "(" }.split(separator: ":")
      guard words.first == "gpu", let count = words.last.flatMap({ Int($0) }), count > 0 else { continue }
      return (words.count > 2 ? String(words[1]) : "gpu", count)
    }
    return ("", 0)
  }

  /// `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`; nil: no bound.
  static func minutes(_ time: String) -> Double? {
    let halves = time.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    let parts = halves.last?.split(separator: ":", omittingEmptySubsequences: false) ?? []
    let numbers = parts.compactMap { Int($0) }
    guard (1...3).contains(parts.count), numbers.count == parts.count, numbers.allSatisfy({ $0 >= 0 })
    else { return nil }
    // What the first number counts, in seconds.
    var unit = halves.count == 2 || numbers.count == 3 ? 3600.0 : 60.0
    var seconds = 0.0
    if halves.count == 2 {
      guard let days = Int(halves[0]), days >= 0 else { return nil }
      seconds = Double(days) * 86_400
    }
    for number in numbers {
      seconds += Double(number) * unit
      unit /= 60
    }
    return seconds / 60
  }

  /// The job's script. It has a folder for each job and each time it is started again, and takes it away at
  /// the end, or when it is started again after it was killed; the log stays beside where the worker failed.
  ///
  /// Only newer versions of Slurm tell a job when its time is over (`SLURM_JOB_END_TIME`): elsewhere it asks.
  ///
  /// Before the time is over Slurm tells this script alone (USR1), which tells the worker to drain. `scancel`
  /// tells every process (TERM), so it is not passed on: to a worker, a second TERM means to leave at once.
  private func pilot(_ order: InstanceOrder) -> String {
    let base = settings["folder"].map(\.shellWord) ?? #""${SLURM_TMPDIR:-${TMPDIR:-/tmp}}""#
    return #"""
      #!/bin/sh
      umask 077
      PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
      HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
      SCITQ_FOLDER=\#(base)/\#(order.key)-$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
      export PATH HOME SCITQ_FOLDER
      for left in \#(base)/\#(order.key)-"$SLURM_JOB_ID".*; do
        chmod -R u+rwX "$left"
        rm -rf "$left"
      done
      mkdir -p "$SCITQ_FOLDER" || exit 1
      exec >"$SCITQ_FOLDER.log" 2>&1 </dev/null
      if [ -z "${SLURM_JOB_END_TIME:-}" ]; then
        SLURM_JOB_END_TIME=$(SLURM_TIME_FORMAT=%s timeout 30 squeue -h -j "$SLURM_JOB_ID" -o %e)
        export SLURM_JOB_END_TIME
      fi
      cat >"$SCITQ_FOLDER/boot.sh" <<'SCITQ_BOOT_ENDS'
      \#(order.boot.pilot.text)
      SCITQ_BOOT_ENDS
      child=
      trap : TERM
      trap '[ -z "$child" ] || kill -TERM "$child"' USR1
      sh "$SCITQ_FOLDER/boot.sh" &
      child=$!
      while :; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
      done
      # What tidies up is not ended by it: who is told to go may have gone already.
      trap '' TERM USR1
      cd /
      chmod -R u+rwX "$SCITQ_FOLDER"
      rm -rf "$SCITQ_FOLDER"
      [ "$status" != 0 ] || rm -f "$SCITQ_FOLDER.log"
      exit "$status"

      """#
  }
}
