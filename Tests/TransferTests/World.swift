import FoundationEssentials
import Logging
import NIOCore
import NIOPosix
import ScitqProtocol
import Subprocess
import SystemPackage
import Testing

@testable import Transfer

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A temporary folder, removed at the end.
struct Sandbox: ~Copyable {
  let path: FilePath

  init() throws {
    path = FilePath("/tmp/scitq-transfer-\(UInt64.random(in: 0 ... .max))")
    try FileManager.default.createDirectory(atPath: path.string, withIntermediateDirectories: true)
  }

  deinit { removeTree(path) }
}

func write(_ text: String, to path: FilePath) throws { try write(Array(text.utf8), to: path) }

func write(_ bytes: [UInt8], to path: FilePath) throws {
  try FileManager.default.createDirectory(
    atPath: path.removingLastComponent().string, withIntermediateDirectories: true)
  try Data(bytes).write(to: URL(filePath: path.string))
}

func text(_ path: FilePath) throws -> String {
  String(decoding: try Data(contentsOf: URL(filePath: path.string)), as: UTF8.self)
}

/// Everything below a folder that is not a folder, by relative path, sorted.
func names(_ folder: FilePath) -> [String] {
  func below(_ path: FilePath) -> [String] {
    ((try? namesIn(path)) ?? []).flatMap { name -> [String] in
      let full = path.appending(name)
      let isFolder = fileStatus(full).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
      return isFolder ? below(full).map { "\(name)/\($0)" } : [name]
    }
  }
  return below(folder).sorted()
}

/// Runs a program of this machine for a test's preparations.
@discardableResult
func tool(_ name: String, _ arguments: [String], in folder: FilePath) async throws -> String {
  let result = try await Subprocess.run(
    name.contains("/") ? .path(FilePath(name)) : .name(name), arguments: Arguments(arguments),
    workingDirectory: folder, output: .string(limit: 1 << 20),
    error: .string(limit: 1 << 20))
  guard result.terminationStatus.isSuccess else {
    throw TransferFailure(.input, "\(name) \(arguments): \(result.standardError)")
  }
  return result.standardOutput
}

/// An S3, http or ftp server (`anonymous`: without a password) on a free port of this machine: rclone's own, over a folder.
struct Store {
  let port: Int
  let root: FilePath

  static let key = "AKIAEXAMPLE"
  static let secret = "secretsecret"

  /// Its settings as an rclone remote.
  var remote: [String: String] {
    [
      "type": "s3", "provider": "Rclone", "endpoint": "http://127.0.0.1:\(port)", "access_key_id": Self.key,
      "secret_access_key": Self.secret,
    ]
  }

  func remotes(_ name: String = "s3") -> Remotes { Remotes([name: remote]) }

  /// Serves `root` while `body` runs.
  static func serving<T: Sendable>(
    _ root: FilePath, as kind: String = "s3", port: Int? = nil,
    _ body: @escaping @Sendable (Store) async throws -> T
  ) async throws -> T {
    let chosen: Int
    if let port { chosen = port } else { chosen = try await freePort() }
    let store = Store(port: chosen, root: root)
    let program = try RcloneProgram.locate(in: ProcessInfo.processInfo.environment)
    try FileManager.default.createDirectory(atPath: root.string, withIntermediateDirectories: true)
    var arguments = [
      "serve", kind == "anonymous" ? "ftp" : kind, root.string, "--addr", "127.0.0.1:\(store.port)",
      "--dir-cache-time", "1s",
    ]
    switch kind {
    case "s3": arguments += ["--auth-key", "\(key),\(secret)"]
    case "ftp", "sftp", "webdav": arguments += ["--user", "u", "--pass", "p%w"]
    default: break
    }
    return try await Subprocess.run(
      .path(FilePath(program)), arguments: Arguments(arguments),
      environment: RcloneProgram.environment(adding: ["RCLONE_CONFIG": "/dev/null"]), input: .none,
      output: .discarded, error: .discarded
    ) { execution in
      let result: Result<T, any Error>
      do {
        try await answers(store.port)
        result = .success(try await body(store))
      } catch {
        result = .failure(error)
      }
      try? execution.send(signal: .kill)
      return result
    }.closureResult.get()
  }

  /// A port that stays free until it is used: below those that the system hands out to others meanwhile.
  static func freePort() async throws -> Int {
    for _ in 0..<100 {
      let channel = try? await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .bind(host: "127.0.0.1", port: .random(in: 10_000..<32_000)).get()
      guard let channel, let port = channel.localAddress?.port else { continue }
      try await channel.close()
      return port
    }
    throw TransferFailure(.network, "no port of this machine is free")
  }

  static func answers(_ port: Int) async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while ContinuousClock.now < deadline {
      let channel = try? await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .connect(host: "127.0.0.1", port: port).get()
      if let channel {
        try await channel.close()
        return
      }
      try await Task.sleep(for: .milliseconds(20))
    }
    throw TransferFailure(.network, "nothing listens on port \(port) after 20 s")
  }
}

/// A `Transfer` in its own folder, stopped at the end.
func withTransfer<T: Sendable>(
  _ remotes: Remotes = Remotes([:]), limits: UnpackLimits = .standard, retry: RetryPolicy = .standard,
  archive: PublicArchive = PublicArchive(),
  environment: [String: String] = ProcessInfo.processInfo.environment,
  _ body: @Sendable (Transfer, FilePath) async throws -> T
) async throws -> T {
  let sandbox = try Sandbox()
  let transfer = Transfer(
    remotes: remotes, directory: sandbox.path.appending("rc"), logger: Logger(label: "test"), limits: limits,
    retry: retry, archive: archive, environment: environment)
  do {
    let value = try await body(transfer, sandbox.path)
    await transfer.stop()
    return value
  } catch {
    await transfer.stop()
    throw error
  }
}

/// Puts a script in the place of a program that is not to be had here, and gives an environment in which it is found.
func standIn(
  for program: String, _ script: String, in folder: FilePath, _ values: [String: String] = [:]
) throws -> [String: String] {
  let path = folder.appending("bin/\(program)")
  try write("#!/bin/sh\n" + script, to: path)
  chmodForTest(path, 0o755)
  return values.merging(["PATH": "\(folder.appending("bin")):/usr/bin:/bin"]) { $1 }
}

/// What stands for Aspera's client: it takes from the folder `REMOTE`, and notes in `RECORD` how it was called.
let ascpScript = """
  for argument; do echo "$argument"; done >"$RECORD/arguments"
  echo "$ASPERA_SCP_PASS" >"$RECORD/password"
  while [ $# -gt 2 ]; do shift; done
  path=${1#*:}
  if [ -e "$REMOTE$path" ]; then exec cp -r "$REMOTE$path" "$2"; fi
  echo "ascp: no such file or directory, $ASPERA_SCP_PASS" >&2
  exit 1
  """

/// The failure that the body ends in.
func failure(_ body: () async throws -> Void) async -> TransferFailure? {
  do {
    try await body()
    return nil
  } catch {
    return error as? TransferFailure
  }
}

/// Numbers that are the same for the same seed.
struct SeededNumbers: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

func chmodForTest(_ path: FilePath, _ mode: mode_t) { chmod(path.string, mode) }
