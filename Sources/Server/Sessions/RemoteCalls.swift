import FoundationEssentials
import ScitqProtocol
import Transfer

/// What users and workers ask of the remotes in the configuration.
struct RemoteCalls {
  let context: SessionContext

  /// For a worker: all of them.
  func all() -> WireRemotes { list { _ in true } }

  /// For a user's own machine: those whose settings the user may have.
  func handed(to user: User) async throws(CallError) -> WireRemotes {
    var remotes = list { $0.mayBeHandedTo(user) }
    for (index, wire) in remotes.remotes.enumerated() {
      guard let remote = context.configuration.rclone[wire.name], let lending = remote.lending else {
        continue
      }
      remotes.remotes[index].settings = try await LentCredentials(
        name: wire.name, remote: remote, lending: lending
      ).settings(for: user)
    }
    return remotes
  }

  private func list(_ isChosen: (Remote) -> Bool) -> WireRemotes {
    var remotes = WireRemotes()
    remotes.archiveReport = context.configuration.publicArchive.report
    remotes.archiveAws = context.configuration.publicArchive.aws
    remotes.remotes = context.configuration.rclone.sorted { $0.key < $1.key }.filter { isChosen($0.value) }
      .map {
        name, remote in
        var wire = WireRemote()
        wire.name = name
        wire.settings = remote.settings
        wire.checksums = remote.checksums.rawValue
        wire.readOnly = remote.isReadOnly
        return wire
      }
    return remotes
  }

  /// Lists a remote from here, for who cannot reach the store or may not have its keys.
  func list(_ request: WireRemoteList, for user: User, on stream: OpenStream) async throws(CallError) {
    let entries: [Entry]
    do throws(TransferFailure) {
      let uri = try TransferURI(parsing: request.uri)
      guard !uri.isLocal, !uri.isWeb else {
        throw TransferFailure(
          .input, "\(uri): the server lists remotes only; `scitq file list` lists the rest")
      }
      let usable = context.configuration.rclone.filter { $0.value.mayBeUsed(by: user) }
      try uri.checkRemote(known: Array(usable.keys))
      entries = try await within(request.timeoutMs) { () async throws(TransferFailure) in
        try await context.transfer.list(uri)
      }
    } catch {
      throw CallError(error.isTransient ? .unavailable : .invalid, error.message, field: "uri")
    }
    for entry in entries {
      var wire = WireFileEntry()
      wire.uri = entry.uri
      wire.folder = entry.isFolder
      wire.bytes = entry.bytes
      wire.modifiedAt = entry.modified.map { Int64($0.timeIntervalSince1970 * 1_000_000) } ?? 0
      guard await stream.send(wire) else { return }
    }
  }

  private func within<T: Sendable>(
    _ milliseconds: Int64, _ body: @escaping @Sendable () async throws(TransferFailure) -> T
  ) async throws(TransferFailure) -> T {
    let limit = Duration.milliseconds(milliseconds > 0 ? milliseconds : 30_000)
    let late = TransferFailure(
      .timeout, "the remote did not answer the server within \(limit); --timeout allows it longer",
      isTransient: true)
    let result = await withTaskGroup(of: Result<T, TransferFailure>.self) { group in
      group.addTask {
        do throws(TransferFailure) { return .success(try await body()) } catch { return .failure(error) }
      }
      group.addTask {
        try? await Task.sleep(for: limit)
        return .failure(late)
      }
      defer { group.cancelAll() }
      return await group.next() ?? .failure(late)
    }
    return try result.get()
  }
}
