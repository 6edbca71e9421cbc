package import Logging
import NIOCore
package import NIOPosix
package import ScitqProtocol
import SystemPackage
package import Transfer

extension TransferFailure: TransientProblem {}

/// Brings what a task wants to this host, and its outputs home.
package struct Stager: Sendable {
  package let store: StorePaths
  package let transfer: Transfer
  package let cache: ResourceCache
  let kept: KeptOutputs
  package let ledger: DiskLedger
  package let spares: SpareFolders
  private let pool: NIOThreadPool
  private let logger: Logger
  /// How many inputs of one task are fetched side by side.
  private static let width = 4

  package init(store: StorePaths, transfer: Transfer, pool: NIOThreadPool = .singleton, logger: Logger) {
    self.store = store
    self.transfer = transfer
    self.pool = pool
    self.logger = logger
    spares = SpareFolders(store)
    let root = store.root
    kept = KeptOutputs(folder: store.kept, transfer: transfer, pool: pool, logger: logger)
    ledger = DiskLedger { Files.room(at: root) }
    cache = ResourceCache(
      folder: store.resources, pool: pool, logger: logger,
      fingerprint: { try await transfer.fingerprint(of: TransferURI(parsing: $0)) },
      fetch: { uri, folder in
        _ = try await transfer.fetch(TransferURI(parsing: uri), into: folder, progress: nil)
      })
  }

  /// What an attempt was given: leases that are to be given to `clear`, and the files that are its own.
  package struct Staged: Sendable {
    package var leases: [ResourceCache.Lease] = []
    package var inputs: [MovedFile] = []
  }

  /// Something to bring, or what of it is here.
  private struct Input: Sendable {
    var uri: TransferURI
    var reading: KeptOutputs.Reading?
  }

  /// Fills the folders, which are there and empty. `offers`: outputs of others that may still be here.
  package func stage(
    _ id: AttemptID, _ spec: WireTaskSpec, _ folders: TaskFolders, offers: [WireKeptOutput] = []
  ) async throws(ExecutionFailure) -> Staged {
    var leases: [ResourceCache.Lease] = []
    var inputs: [Input] = []
    defer { for input in inputs { input.reading.map(kept.end) } }
    do {
      for text in spec.inputs {
        let uri = try TransferURI(parsing: text)
        inputs.append(Input(uri: uri, reading: await kept.read(uri, from: offers)))
      }
      try await reserve(id, spec, inputs)
      for resource in spec.resources { leases.append(try await cache.acquire(resource)) }
      try await present(leases, in: folders)
      let files = try await fetch(inputs, folders)
      await ledger.settle(id)
      return Staged(leases: leases, inputs: files)
    } catch {
      await ledger.settle(id)
      for lease in leases { await cache.release(lease) }
      throw ExecutionFailure(staging: error)
    }
  }

  /// Everything in the output folder, to the places the task has for it.
  package func upload(_ places: [String], _ folders: TaskFolders) async throws(TransferFailure) -> [Upload] {
    var uploads: [Upload] = []
    for place in places {
      let uri = try TransferURI.parseOutput(place)
      let files = try await transfer.store(folders.launch.output, to: uri, progress: nil)
      uploads.append(Upload(place: uri.description, files: files))
    }
    return uploads
  }

  /// The names of the attempts' folders that are on the disk.
  package func folders() async -> [String] {
    let tasks = store.tasks
    return (try? await pool.runIfActive { Files.names(in: tasks) }) ?? []
  }

  /// Removes resources and kept outputs that no task uses, spare folders, and these folders of attempts. How many bytes
  /// of the first two, and how many of all but the spares.
  package func clean(strays: [String]) async -> (bytes: Int64, removed: Int) {
    let (bytes, resources) = await cache.clear()
    let outputs = await kept.clear()
    spares.clear()
    let tasks = store.tasks
    try? await pool.runIfActive { for name in strays { Files.removeTree(tasks.appending(name)) } }
    return (bytes + outputs.bytes, resources + outputs.count + strays.count)
  }

  /// Removes what is left of an attempt on the disk. `isQuiet`: nobody is left who may still write there.
  package func clear(
    _ id: AttemptID, _ folders: TaskFolders, _ leases: [ResourceCache.Lease], hadFiles: Bool,
    isQuiet: Bool = false
  ) async {
    if !(isQuiet && folders.keep(spares)), !folders.removeIfEmpty() {
      let root = folders.root
      try? await pool.runIfActive { Files.removeTree(root) }
    }
    for lease in leases { await cache.release(lease) }
    if hadFiles { await ledger.leave(id) }
  }

  /// The sizes of what is not here yet, summed and promised before the first byte is fetched.
  private func reserve(_ id: AttemptID, _ spec: WireTaskSpec, _ inputs: [Input]) async throws {
    var bytes: Int64 = 0
    for input in inputs {
      if let reading = input.reading {
        bytes += reading.bytes
      } else {
        bytes += try await expected(input.uri)
      }
    }
    for resource in Set(spec.resources) where await !cache.has(resource) {
      bytes += try await expected(TransferURI(parsing: resource))
    }
    let readings = inputs.compactMap(\.reading)
    try await ledger.reserve(max(bytes, spec.needs.diskBytes), for: id) { wanted in
      var freed = await kept.evict(wanted)
      if freed < wanted { freed += await cache.evict(wanted - freed) }
      if freed > 0 { return freed }
      // What this very task would read here is in its own way, and can be downloaded as well.
      for reading in readings { kept.end(reading) }
      return await kept.evict(wanted)
    }
  }

  /// An archive is on the disk beside what comes out of it, which is about three times as big.
  private func expected(_ uri: TransferURI) async throws -> Int64 {
    let bytes = try await transfer.size(of: uri)
    return uri.actions.isEmpty ? bytes : bytes * 4
  }

  private func present(_ leases: [ResourceCache.Lease], in folders: TaskFolders) async throws {
    guard !leases.isEmpty else { return }
    let sources = leases.map(\.folder)
    let target = folders.launch.resource
    try await pool.runIfActive { () throws -> Void in
      for source in sources {
        do { try Files.linkTree(source, at: target) } catch let error as Files.Problem {
          guard error.code == .fileExists else { throw error }
          throw ExecutionFailure(
            .input,
            "two resources have a file of one name, \(error.path); give one a folder of its own with |mv:FOLDER"
          )
        }
      }
    }
  }

  /// Into an empty folder.
  private func bring(_ input: Input, into folder: FilePath) async throws -> [MovedFile] {
    if let reading = input.reading, let files = try await kept.copy(reading, into: folder) {
      logger.info("\(files.count) files of \(input.uri) were here already")
      return files
    }
    return try await transfer.fetch(input.uri, into: folder, progress: nil)
  }

  private func fetch(_ inputs: [Input], _ folders: TaskFolders) async throws -> [MovedFile] {
    if inputs.isEmpty { return [] }
    if inputs.count == 1 { return try await bring(inputs[0], into: folders.launch.input) }
    // Each in a place of its own first: so no input can take another's name unseen.
    let files = try await withThrowingTaskGroup(of: [MovedFile].self) { group in
      var files: [MovedFile] = []
      for (index, input) in inputs.enumerated() {
        if index >= Self.width { files += try await group.next() ?? [] }
        let place = folders.root.appending("input.\(index)")
        group.addTask {
          try Files.makeFolder(place)
          return try await bring(input, into: place)
        }
      }
      for try await more in group { files += more }
      return files
    }
    let root = folders.root
    let target = folders.launch.input
    let count = inputs.count
    try await pool.runIfActive { () throws -> Void in
      for index in 0..<count {
        do { try Files.mergeTree(root.appending("input.\(index)"), into: target) } catch let error
          as Files.Problem
        {
          guard error.code == .fileExists else { throw error }
          throw ExecutionFailure(
            .input,
            "two inputs have a file of one name, \(error.path); give one a folder of its own with |mv:FOLDER")
        }
      }
    }
    return files
  }
}

/// What was uploaded to one of an attempt's places.
package struct Upload: Sendable {
  package var place: String
  package var files: [MovedFile]
}

extension ExecutionFailure {
  init(staging error: any Error) {
    switch error {
    case let error as ExecutionFailure: self = error
    case let error as TransferFailure: self.init(error.reason, error.message)
    case let error as Files.Problem: self.init(error.isDiskFull ? .disk : .engine, error.description)
    case is CancellationError: self.init(.canceled, "the staging was stopped")
    default: self.init(.engine, "\(error)")
    }
  }
}
