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

extension Transfer {
  /// One try: the ways to fetch a run, one after the other, until one has worked.
  nonisolated func fetchRun(
    _ uri: TransferURI, through staging: FilePath, into arrivals: FilePath,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> Delivered {
    let report = try await selector.report(of: uri)
    if !report.files.isEmpty {
      try Unpacking.check(uri.actions, on: report.files.count, name: uri.withoutActions.description)
    }
    var failures: [(method: RunMethod, failure: TransferFailure)] = []
    for method in RunMethod.chosen(by: uri.options) {
      // What another way has left behind is not what this one brings.
      removeTree(arrivals)
      try createFolder(arrivals)
      do throws(TransferFailure) {
        switch method {
        case .enaAspera:
          return try await fetchByAspera(uri, report, through: staging, into: arrivals, progress: progress)
        case .sraAWS:
          return try await fetchObject(uri, through: staging, into: arrivals, progress: progress)
        case .enaFTP:
          let selection = try selector.files(of: uri, report)
          let moved = try await deliverOnce(selection, to: try .folder(at: arrivals), progress: progress)
          return Delivered(selection, moved)
        }
      } catch  where error.reason != .canceled && error.reason != .disk {
        failures.append((method, error))
      }
    }
    let worst = failures.first { $0.failure.isTransient } ?? failures[0]
    let said = failures.map { "\($0.method.rawValue): \($0.failure.message)" }.joined(separator: "; ")
    throw TransferFailure(
      worst.failure.reason, "\(uri.withoutActions) could not be fetched; \(said)",
      isTransient: worst.failure.isTransient)
  }

  private nonisolated func fetchByAspera(
    _ uri: TransferURI, _ report: RunReport, through staging: FilePath, into arrivals: FilePath,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> Delivered {
    var selection = try selector.files(of: uri, report)
    var links: [String: TransferURI] = [:]
    for file in report.files {
      guard let colon = file.aspera.firstIndex(of: ":") else {
        throw TransferFailure(
          .inputMissing, "\(uri.withoutActions): the archive does not give \(file.name) by Aspera")
      }
      let path = Selector.trimmed(file.aspera[file.aspera.index(after: colon)...])
      links[file.name] = try TransferURI(
        parsing: "asp://\(Aspera.archiveUser)@\(file.aspera[..<colon])/\(path)")
    }
    let aspera = try Aspera(environment, archive)
    guard aspera.key != nil else {
      throw TransferFailure(
        .input,
        "\(uri.withoutActions): the archive's Aspera wants a key; name its file in SCITQ_ASPERA_KEY on this machine"
      )
    }
    selection.base = .links(links)
    var done = TransferProgress(
      bytes: 0, totalBytes: selection.totalBytes, files: 0, totalFiles: selection.items.count)
    progress?(done)
    let scratch = staging.appending("aspera")
    try createFolder(scratch)
    for item in selection.items {
      guard let link = links[item.path] else { continue }
      try await gate.through { () throws(TransferFailure) in try await aspera.fetch(link, into: scratch) }
      let file = scratch.appending(link.lastName)
      do throws(TransferFailure) {
        try await compare(file, with: item, describedAs: link.description)
        try moveIntoPlace(file, arrivals.appending(item.arrival), replacing: false)
      } catch {
        // Aspera's client would take a whole file of the right size for done.
        unlink(file.string)
        throw error
      }
      done.files += 1
      done.bytes += max(item.bytes, 0)
      progress?(done)
    }
    let moved = selection.items.map { MovedFile(uri: "", bytes: $0.bytes, hash: $0.hash) }
    return Delivered(selection, moved)
  }

  /// SRA's own object, and the fastq files that its tools make of it.
  private nonisolated func fetchObject(
    _ uri: TransferURI, through staging: FilePath, into arrivals: FilePath,
    progress: (@Sendable (TransferProgress) -> Void)?
  ) async throws(TransferFailure) -> Delivered {
    let name = uri.withoutActions.description
    guard let program = findProgram("fasterq-dump", path: environment["PATH"]) else {
      throw TransferFailure(
        .input,
        "\(name): SRA's objects are unpacked by fasterq-dump, which this machine does not have; install sra-tools on it"
      )
    }
    let objects = staging.appending("sra")
    removeTree(objects)
    try createFolder(objects)
    // The report's size and MD5 are of ENA's copy, which need not be the same object.
    let selection = try selector.object(of: uri, bytes: -1, hash: "")
    let moved = try await deliverOnce(selection, to: try .folder(at: objects), progress: progress)
    do {
      let result = try await Subprocess.run(
        .path(program),
        arguments: [
          objects.appending(selection.items[0].arrival).string, "--outdir", arrivals.string, "--temp",
          objects.string,
        ], environment: .custom(environment.asSubprocessEnvironment), workingDirectory: objects, input: .none,
        output: .discarded, error: .string(limit: 64 << 10))
      if Task.isCancelled { throw TransferFailure.interrupted }
      guard result.terminationStatus.isSuccess else {
        let said = result.standardError.split(separator: "\n").last ?? "it ended in failure"
        let isDisk = said.contains("disk") || said.contains("space")
        throw TransferFailure(
          isDisk ? .disk : .checksum, "\(name): fasterq-dump: \(said)", isTransient: !isDisk)
      }
    } catch let failure as TransferFailure {
      throw failure
    } catch {
      if Task.isCancelled { throw .interrupted }
      throw TransferFailure(.input, "\(name): \(program) could not be run: \(error)")
    }
    removeTree(objects)
    var paths = try namesIn(arrivals)
    if uri.options.contains(.onlyRead1), paths.count > 1 {
      for path in paths where !path.hasSuffix("_1.fastq") { unlink(arrivals.appending(path).string) }
      paths = try namesIn(arrivals)
    }
    guard !paths.isEmpty else {
      throw TransferFailure(.inputMissing, "\(name): fasterq-dump made no fastq file of it")
    }
    // What it makes is not compressed, so that |gunzip has nothing to do on it.
    return Delivered(selection, moved, paths: paths, isLenient: true)
  }
}
