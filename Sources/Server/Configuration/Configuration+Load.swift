import Foundation
import Logging
import ScitqProtocol
import Transfer
import Yams

extension Configuration {
  /// Reads the configuration.
  ///
  /// - Parameters:
  ///   - path: the YAML file; nil: everything has its default.
  ///   - environment: where `${VAR}` and `${VAR:-default}` come from; `$$` stands for `$`.
  /// - Throws: on a file that cannot be read, an unknown key, a value of the wrong type or out of range, a variable
  ///   that is not set. Values are not repeated in errors where they may be secrets.
  package static func load(
    path: String?, environment: [String: String]
  ) throws(ConfigurationError) -> Configuration {
    guard let path else { return Configuration() }
    let text: String
    do {
      text = try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      let reason =
        FileManager.default.fileExists(atPath: path) ? "cannot be read as UTF-8 text" : "does not exist"
      throw ConfigurationError(file: path, key: "", message: "the file \(reason)")
    }
    return try parse(text, file: path, environment: environment)
  }

  /// Reads the configuration from its text.
  package static func parse(
    _ text: String, file: String? = nil, environment: [String: String] = [:]
  ) throws(ConfigurationError) -> Configuration {
    let source = ConfigurationSource(file: file, environment: environment)
    return try decode(source.section(try source.root(of: text), path: ""))
  }

  /// Every key there is, with those above it: `server.listen` and so on. `rclone` holds names of the operator's choice.
  package static let keys: [String] = {
    let recorder = ConfigurationSource(file: nil, environment: [:])
    let section = recorder.section(nil, path: "")
    // Nothing is given, so nothing can be wrong.
    _ = try? decode(section)
    return section.allKeys
  }()

  private static func decode(_ root: ConfigurationSection) throws(ConfigurationError) -> Configuration {
    var result = Configuration()

    let server = try root.section("server")
    try server.value("listen", &result.server.listen, "host:port, such as 0.0.0.0:50051") {
      ListenAddress($0)
    }
    try server.text("data_dir", &result.server.dataDir)
    try server.text("name", &result.server.name)
    try server.text("certificate", &result.server.certificate)
    try server.text("private_key", &result.server.privateKey)
    let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
    try server.value("log_level", &result.server.logLevel, "one of \(levels)") { Logger.Level(rawValue: $0) }
    try server.finish()
    if (result.server.certificate == nil) != (result.server.privateKey == nil) {
      let (given, missing) =
        result.server.certificate == nil ? ("private_key", "certificate") : ("certificate", "private_key")
      throw server.error(given, "\(missing) belongs to it and is not set; set both, or neither")
    }

    let admin = try root.section("admin")
    try admin.text("username", &result.admin.username)
    try admin.text("password", &result.admin.password)
    try admin.text("email", &result.admin.email, mayBeEmpty: true)
    try admin.finish()

    let tokens = try root.section("tokens")
    try tokens.duration("user_ttl", &result.tokens.userTTL, atLeast: .seconds(60))
    try tokens.finish()

    let workers = try root.section("workers")
    try workers.duration("offline_timeout", &result.workers.offlineTimeout, atLeast: .seconds(1))
    try workers.duration("beat_interval", &result.workers.beatInterval, atLeast: .milliseconds(100))
    try workers.duration("kill_grace", &result.workers.killGrace, atLeast: .zero)
    try workers.integer("max_losses", &result.workers.maxLosses, 1...1000)
    try workers.list(
      "allowed_container_options", &result.workers.allowedContainerOptions,
      "names of options with their hyphens and without values, such as --user"
    ) { $0.hasPrefix("-") && !$0.contains("=") && !$0.contains(" ") }
    try workers.finish()
    if result.workers.beatInterval * 2 > result.workers.offlineTimeout {
      throw workers.error(
        "offline_timeout",
        "is less than two beats; make it at least twice beat_interval, or one late beat loses a worker")
    }

    let logs = try root.section("logs")
    try logs.value(
      "max_log_bytes", &result.logs.maxLogBytes, "a size of at least 64KiB, such as 1GiB or 500MB"
    ) { ByteSize.parse($0).flatMap { $0 >= 64 * 1024 ? $0 : nil } }
    try logs.boolean("compress", &result.logs.compress)
    try logs.finish()

    let retention = try root.section("retention")
    try retention.duration("keep_finished_for", &result.retention.keepFinishedFor, atLeast: .seconds(60))
    try retention.duration("keep_events_for", &result.retention.keepEventsFor, atLeast: .seconds(60))
    try retention.finish()

    let limits = try root.section("limits")
    try limits.integer("max_tasks_per_call", &result.limits.maxTasksPerCall, 1...10_000_000)
    try limits.integer("max_connections", &result.limits.maxConnections, 1...1_000_000)
    try limits.finish()

    let fleet = try root.section("fleet")
    var address = ""
    try fleet.value("server_address", &address, "HOST or HOST:PORT, such as queue.example.org:50051") {
      isReachable($0) ? $0 : nil
    }
    if !address.isEmpty { result.fleet.serverAddress = address }
    try fleet.text("worker_binary", &result.fleet.workerBinary)
    try fleet.duration("idle_timeout", &result.fleet.idleTimeout, atLeast: .seconds(1))
    try fleet.duration("new_worker_idle_timeout", &result.fleet.newWorkerIdleTimeout, atLeast: .seconds(1))
    try fleet.duration("deploy_timeout", &result.fleet.deployTimeout, atLeast: .seconds(5))
    try fleet.duration("reconcile_interval", &result.fleet.reconcileInterval, atLeast: .seconds(1))
    try fleet.duration("refresh_interval", &result.fleet.refreshInterval, atLeast: .seconds(10))
    try fleet.duration("orphan_grace", &result.fleet.orphanGrace, atLeast: .seconds(1))
    try fleet.finish()
    result.providers = try providers(root.section("providers"))
    if let binary = result.fleet.workerBinary, !result.providers.isEmpty {
      var isFolder: ObjCBool = false
      guard FileManager.default.fileExists(atPath: binary, isDirectory: &isFolder) else {
        throw fleet.error(
          "worker_binary", "does not exist; write the path of the scitq-worker that hosts are to run")
      }
      guard !isFolder.boolValue, FileManager.default.isExecutableFile(atPath: binary) else {
        throw fleet.error(
          "worker_binary", "is no program that can be run; write the path of scitq-worker, and chmod +x it")
      }
    }

    let archive = try root.section("public_archive")
    try archive.text("report", &result.publicArchive.report)
    try archive.text("aws", &result.publicArchive.aws)
    try archive.finish()

    result.rclone = try remotes(root.section("rclone"))
    try root.finish()
    return result
  }

  /// Whether it can be the address that hosts are told: a name or a number, no URL. Without a port they are
  /// told the one that the server listens on, but for an IPv6 address, which must have its own.
  private static func isReachable(_ text: String) -> Bool {
    guard let address = ServerAddress(text), !text.hasSuffix("]") else { return false }
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
    return address.host.lowercased().allSatisfy {
      letters.contains($0) || (text.hasPrefix("[") && $0 == ":")
    }
  }

  /// Keys of a remote that are not rclone's.
  private static let ownKeys: Set<String> = [
    "users", "read_only", "checksums", "lend", "lend_role", "lend_endpoint",
  ]

  private static func lending(
    _ remote: ConfigurationSection
  ) throws(ConfigurationError) -> Remote.Lending? {
    var lending = Remote.Lending(duration: .zero)
    try remote.value("lend", &lending.duration, "a time of 15m to 36h") {
      DurationText.parse($0).flatMap { $0 >= .seconds(900) && $0 <= .seconds(129_600) ? $0 : nil }
    }
    try remote.text("lend_role", &lending.role)
    try remote.text("lend_endpoint", &lending.endpoint)
    if lending.duration > .zero { return lending }
    guard lending.role == nil, lending.endpoint == nil else {
      throw remote.error(
        lending.role == nil ? "lend_endpoint" : "lend_role",
        "says how keys are lent; add lend: 1h, or leave it out")
    }
    return nil
  }

  /// What URIs can begin with that is no remote.
  private static let reservedNames: Set<String> = [
    "file", "http", "https", "ftp", "ftps", "asp", "fasp", "fastq",
  ]

  private static func remotes(_ section: ConfigurationSection) throws(ConfigurationError) -> [String: Remote]
  {
    var remotes: [String: Remote] = [:]
    for name in section.givenKeys {
      let isName =
        !name.isEmpty
        && name.utf8.allSatisfy {
          switch $0 {
          case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
          default: false
          }
        }
      guard isName, !name.hasPrefix("-") else {
        throw section.error(
          name, "is no name for a remote; use letters, digits, - and _, and begin with none of - ")
      }
      guard !reservedNames.contains(name) else {
        throw section.error(name, "is a scheme of its own, \(name)://, so no remote can have this name")
      }
      let given = try section.section(name)
      var remote = Remote(settings: [:])
      if given.givenKeys.contains("users") {
        var users: [String] = []
        try given.list("users", &users, "names of users, or \"*\" for all") { !$0.isEmpty }
        remote.users = Set(users)
      }
      try given.boolean("read_only", &remote.isReadOnly)
      try given.value("checksums", &remote.checksums, "require, record or off") {
        ChecksumPolicy(rawValue: $0)
      }
      var settings: [String: String] = [:]
      remote.lending = try lending(given)
      for key in given.givenKeys where !ownKeys.contains(key) {
        settings[key] = try given.scalar(key)
      }
      guard let type = settings["type"], !type.isEmpty else {
        throw section.error(name, "has no type; add the kind of store as rclone calls it, such as type: s3")
      }
      remote.settings = settings
      remotes[name] = remote
    }
    return remotes
  }
}

/// Durations as people write them.
enum DurationText {
  /// `60` (seconds), `500ms`, `60s`, `5m`, `2h`, `7d`; nil for anything else.
  static func parse(_ text: String) -> Duration? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard !digits.isEmpty, digits.count <= 10, let number = Int64(digits) else { return nil }
    switch text.dropFirst(digits.count) {
    case "ms": return .milliseconds(number)
    case "", "s": return .seconds(number)
    case "m": return .seconds(number * 60)
    case "h": return .seconds(number * 3600)
    case "d": return .seconds(number * 86_400)
    default: return nil
    }
  }

  /// As `parse` reads it, to the millisecond: `60s`, `100ms`.
  static func format(_ duration: Duration) -> String {
    let milliseconds = duration / .milliseconds(1)
    return milliseconds.truncatingRemainder(dividingBy: 1000) == 0
      ? "\(Int(milliseconds / 1000))s" : "\(Int(milliseconds))ms"
  }
}

/// Sizes as people write them.
enum ByteSize {
  /// `1000`, `500MB` (powers of 1000), `1GiB` (powers of 1024); nil for anything else, `1G` included, which would be a guess.
  static func parse(_ text: String) -> Int64? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard !digits.isEmpty, let number = Int64(digits) else { return nil }
    let units: [String: Int64] = [
      "": 1, "b": 1, "kb": 1000, "mb": 1_000_000, "gb": 1_000_000_000, "tb": 1_000_000_000_000,
      "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    ]
    guard let unit = units[text.dropFirst(digits.count).trimmingCharacters(in: .whitespaces).lowercased()]
    else {
      return nil
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow ? nil : product
  }
}
