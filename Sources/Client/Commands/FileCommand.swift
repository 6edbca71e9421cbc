import ArgumentParser
import Foundation
import Logging
import ScitqProtocol
import SwiftProtobuf
import SystemPackage
import Transfer

/// `scitq file`: on this machine, with the remotes of the server's configuration.
struct FileCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration.command(
    "file", "List and copy files, here and on the remotes of the server's configuration.",
    example: "scitq file copy results/ s3://bucket/results/",
    subcommands: [List.self, Copy.self, RemoteList.self])

  struct List: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "list", "List files and folders.",
      example: "scitq file list aznorth://rnd/test/\nscitq file list /data/results/")

    @OptionGroup var globals: Globals
    @Argument(help: "A URI or a local path.") var src: String

    func run(_ client: Client) async throws {
      let uri = try TransferURI(parsing: src)
      let remotes = try await client.remotes(for: [uri])
      let entries = try await Moving.with(remotes) { try await $0.list(uri) }
      try client.put(entries)
    }
  }

  struct RemoteList: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "remote-list", "List a remote as the server sees it: for what cannot be reached, or read, from here.",
      example: "scitq file remote-list aznorth://rnd/test/ --timeout 30")

    // The time limit is the server's here.
    @OptionGroup var globals: Globals
    @Argument(help: "The URI of a remote.") var uri: String

    func run(_ client: Client) async throws {
      _ = try TransferURI(parsing: uri)
      var request = WireRemoteList()
      request.uri = uri
      request.timeoutMs = globals.timeout?.wholeMilliseconds ?? 0
      let asked = request
      let entries = try await client.connected { session in
        var entries: [Entry] = []
        for try await entry in session.connection.feed(.remoteList, asked) {
          entries.append(
            Entry(
              uri: entry.uri, isFolder: entry.folder, bytes: entry.bytes,
              modified: entry.modifiedAt == 0
                ? nil : Date(timeIntervalSince1970: Double(entry.modifiedAt) / 1_000_000)))
        }
        return entries
      }
      try client.put(entries)
    }
  }

  struct Copy: ClientCommand {
    static let configuration = CommandConfiguration.command(
      "copy", "Copy files between local paths, remotes, and http or ftp sources.",
      example:
        "scitq file copy mybinary s3://bucket/resource/mybinary\nscitq file copy azure://rnd/in.fq.gz s3://results/tmp/"
    )

    @OptionGroup var globals: Globals
    @Argument(help: "A URI or a local path: a file, a folder/ or a pattern.") var src: String
    @Argument(help: "A URI or a local path.") var dst: String
    @Flag(name: .customLong("dry-run"), help: "Say what would be copied, and copy nothing.") var dryRun =
      false

    func run(_ client: Client) async throws {
      let uris = [try TransferURI(parsing: src), try TransferURI(parsing: dst)]
      let remotes = try await client.remotes(for: uris, writingTo: uris[1])
      let (src, dst, dryRun) = (src, dst, dryRun)
      let report = dryRun ? nil : ProgressReport()
      let files: [MovedFile]
      do {
        files = try await Moving.with(remotes) { transfer in
          try await transfer.copy(src, to: dst, dryRun: dryRun) { report?.update($0) }
        }
      } catch {
        report?.finish()
        throw error
      }
      report?.finish()
      switch client.format {
      case .text:
        if dryRun {
          try client.put(
            files.map { "would copy \(Escaping.printable($0.uri)) (\(Quantity.bytes($0.bytes)))\n" }.joined())
        }
        let what =
          "\(files.count == 1 ? "1 file" : "\(files.count) files"), \(Quantity.bytes(files.reduce(0) { $0 + $1.bytes }))"
        try client.put(dryRun ? "nothing copied: \(what)\n" : "copied \(what) to \(uris[1])\n")
      case .json: try client.put(JSON.lines(files.map(FileRendering.json)) + "\n")
      case .quiet: try client.put(files.map { Escaping.printable($0.uri) + "\n" }.joined())
      }
    }
  }
}

extension Client {
  fileprivate func put(_ entries: [Entry]) throws {
    switch format {
    case .text: try put(FileRendering.table(entries, style).rendered(style))
    case .json: try put(JSON.lines(entries.map(FileRendering.json)) + "\n")
    case .quiet: try put(entries.map { Escaping.printable($0.uri) + "\n" }.joined())
    }
  }

  /// The remotes that these URIs need; the server is asked only when one of them names a remote.
  func remotes(
    for uris: [TransferURI], writingTo destination: TransferURI? = nil
  ) async throws -> WireRemotes {
    guard uris.contains(where: { !$0.isLocal && !$0.isWeb }) else { return WireRemotes() }
    let answer = try await connected { try await $0.call(.remotes, WireEmpty()) }
    for uri in uris { try uri.checkRemote(known: answer.remotes.map(\.name)) }
    if let destination, answer.remotes.contains(where: { $0.name == destination.scheme && $0.readOnly }) {
      throw Failure("\(destination): the remote \(destination.scheme) is read-only; name another")
    }
    return answer
  }
}

/// Lends a `Transfer` out, and takes it down whatever happens, ^C included.
enum Moving {
  static func with<R: Sendable>(
    _ remotes: WireRemotes, _ body: @escaping @Sendable (Transfer) async throws -> R
  ) async throws -> R {
    let folder = FileManager.default.temporaryDirectory.appending(path: "scitq-\(UUID().uuidString)")
    try FileManager.default.createDirectory(
      at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    defer { try? FileManager.default.removeItem(at: folder) }
    var logger = Logger(label: "scitq.file") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .error
    let transfer = Transfer(
      remotes: Remotes(remotes), directory: FilePath(folder.path), logger: logger,
      archive: PublicArchive(remotes))
    do {
      let result = try await Interruption.during { try await body(transfer) }
      await transfer.stop()
      return result
    } catch {
      await transfer.stop()
      throw error
    }
  }
}
