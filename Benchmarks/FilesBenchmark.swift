import Foundation
import ScitqProtocol

/// Files from an object store to a worker and back, beside what rclone alone does with them.
struct FilesBenchmark {
  let rounds: Int
  private let smallFiles = 2000
  /// One process a file takes so long that a part of them must do.
  private let singly = 50

  func run() async throws {
    let report = Report(
      "files: an input of 1 GiB and its output, and an input of \(smallFiles) files of 20 kB")
    var down: [Double] = []
    var up: [Double] = []
    var plainDown: [Double] = []
    var plainUp: [Double] = []
    var small: [Double] = []
    var smallSingly: [Double] = []
    let store = try await ObjectStore.start()
    defer { store.end() }
    try store.fill("big/file", count: 1, bytes: 1 << 30)
    try store.fill("small/file", count: smallFiles, bytes: 20_000)
    try await Installation.run(configuration: store.configuration) { installation in
      try await installation.startWorker(slots: 1, prefetch: 0)
      let connection = try await installation.connect()
      for round in 0..<rounds {
        let local = installation.folder.appending(path: "plain").path
        plainDown.append(try await store.rclone("copyto", "s3:bench/big/file0", local))
        plainUp.append(try await store.rclone("copyto", local, "s3:bench/plain/\(round)"))
        try FileManager.default.removeItem(atPath: local)
        let big = try await connection.timedTask(
          input: "s3://bench/big/file0", output: "s3://bench/out/\(round)/", "mv $INPUT/file0 $OUTPUT/file")
        down.append(big.download)
        up.append(big.upload)
        var seconds = 0.0
        for number in 0..<singly {
          seconds += try await store.rclone(
            "copyto", "s3:bench/small/file\(number)",
            installation.folder.appending(path: "singly/\(number)").path)
        }
        smallSingly.append(Double(singly) / seconds)
        let many = try await connection.timedTask(input: "s3://bench/small/", output: "", "true")
        small.append(Double(smallFiles) / many.download)
      }
      await connection.close()
    }
    report.times("1 GiB down", down, beside: plainDown)
    report.times("1 GiB up", up, beside: plainUp)
    report.figure(
      "small files", small, unit: "files/s", floor: smallSingly, goal: "800 % of one process a file")
  }
}

extension Report {
  /// Seconds beside those of rclone alone.
  fileprivate func times(_ name: String, _ values: [Double], beside plain: [Double]) {
    let ratio = zip(values, plain).map { $0 / $1 }.median
    figure(name, values, unit: "s")
    print(
      "    " + String(format: "%.2f × the %.2f s of `rclone copyto`; goal: 1.2 ×", ratio, plain.median))
  }
}

extension Connection {
  /// Runs one bare task; how many seconds its download and its upload took.
  fileprivate func timedTask(
    input: String, output: String, _ command: String
  ) async throws -> (download: Double, upload: Double) {
    var tasks = newTasks(1, command: command)
    tasks.tasks[0].spec.shell = "sh"
    tasks.tasks[0].spec.inputs = [input]
    tasks.tasks[0].spec.output = output
    let task = try await task(try await runToTheEnd(tasks))
    func seconds(_ from: Int64, _ to: Int64) -> Double { Double(to - from) / 1e6 }
    return (seconds(task.downloadStartedAt, task.runStartedAt), seconds(task.runEndedAt, task.endedAt))
  }
}

/// rclone's own S3 server over a folder, with a bucket `bench`.
private struct ObjectStore {
  private let folder: URL
  private let program: Process
  private let endpoint: String
  private static let tool = ProcessInfo.processInfo.environment["SCITQ_RCLONE"] ?? "rclone"

  static func start() async throws -> ObjectStore {
    let folder = FileManager.default.temporaryDirectory.appending(
      path: "scitq-benchmark-s3-\(UUID().uuidString)")
    try FileManager.default.createDirectory(
      at: folder.appending(path: "bench"), withIntermediateDirectories: true)
    let log = folder.appending(path: "log")
    try Data().write(to: log)
    let program = process(["serve", "s3", folder.path, "--addr", "127.0.0.1:0", "--vfs-cache-mode", "off"])
    program.environment = ProcessInfo.processInfo.environment.merging(
      ["RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": "\"bench,bench-secret\""]) { $1 }
    program.standardError = try FileHandle(forWritingTo: log)
    try program.run()
    for _ in 0..<1000 {
      let text = try String(contentsOf: log, encoding: .utf8)
      if let found = text.firstMatch(of: /http:\/\/[0-9.]+:[0-9]+/) {
        return ObjectStore(folder: folder, program: program, endpoint: String(found.output))
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw Trouble("rclone serve s3 does not listen; \(log.path) has what it says")
  }

  private static func process(_ arguments: [String]) -> Process {
    let program = Process()
    program.executableURL = URL(filePath: "/usr/bin/env")
    program.arguments = [tool] + arguments
    program.standardInput = FileHandle.nullDevice
    program.standardOutput = FileHandle.nullDevice
    return program
  }

  /// For `scitq.yaml`.
  var configuration: String {
    """
    rclone:
      s3:
        type: s3
        provider: Rclone
        endpoint: \(endpoint)
        access_key_id: bench
        secret_access_key: bench-secret

    """
  }

  /// Makes files of random bytes, behind the store's back.
  func fill(_ name: String, count: Int, bytes: Int) throws {
    let random = try FileHandle(forReadingFrom: URL(filePath: "/dev/urandom"))
    for number in 0..<count {
      let file = folder.appending(path: "bench/\(name)\(number)")
      try FileManager.default.createDirectory(
        at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data().write(to: file)
      let handle = try FileHandle(forWritingTo: file)
      var left = bytes
      while left > 0 {
        let piece = try random.read(upToCount: min(left, 16 << 20)) ?? Data()
        try handle.write(contentsOf: piece)
        left -= piece.count
      }
      try handle.close()
    }
  }

  /// Runs rclone with the remote `s3`; the seconds it took.
  func rclone(_ arguments: String...) async throws -> Double {
    let program = Self.process(arguments)
    program.environment = ProcessInfo.processInfo.environment.merging([
      "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S3_TYPE": "s3", "RCLONE_CONFIG_S3_PROVIDER": "Rclone",
      "RCLONE_CONFIG_S3_ENDPOINT": endpoint, "RCLONE_CONFIG_S3_ACCESS_KEY_ID": "bench",
      "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": "bench-secret",
    ]) { $1 }
    program.standardError = FileHandle.nullDevice
    let start = ContinuousClock.now
    try program.run()
    program.waitUntilExit()
    guard program.terminationStatus == 0 else { throw Trouble("rclone \(arguments) failed") }
    return (ContinuousClock.now - start).seconds
  }

  func end() {
    program.terminate()
    program.waitUntilExit()
    try? FileManager.default.removeItem(at: folder)
  }
}
