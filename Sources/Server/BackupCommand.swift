import ArgumentParser
import Foundation
import GRDB
import SystemPackage

/// `scitq-server backup`.
struct BackupCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup",
    abstract:
      "Copy the database, the authority and the join token of a server, which may be running, to one file.",
    discussion: """
      The copy is of one moment, and the server goes on meanwhile. What tasks printed is not in it: copy the folder
      logs beside it, with rsync or the like. The file holds the server's private key: keep it as you keep that.

      Example: scitq-server backup --data-dir /var/lib/scitq /backup/scitq-2026-11-21
      """)

  @OptionGroup var place: ServerPlace

  @Argument(help: "The file to be made; it must not exist.")
  var file: String

  func run() async throws {
    try await ServerCommand.complaining {
      let directory = ServerPlace.directory(try place.configuration())
      let bytes = try Backup.make(of: directory, at: ServerPlace.absolute(file))
      print("\(file): \(bytes) bytes")
    }
  }
}

/// `scitq-server restore`.
struct RestoreCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Put what a backup holds into an empty data folder.",
    discussion: """
      The server that is started on it goes on from the moment of the backup. Workers come back by themselves when
      they reach it under the old name; what they did since is done again. Nothing runs on the folder meanwhile.

      Example: scitq-server restore --data-dir /var/lib/scitq /backup/scitq-2026-11-21
      """)

  @OptionGroup var place: ServerPlace

  @Argument(help: "The file that a backup made.")
  var file: String

  func run() async throws {
    try await ServerCommand.complaining {
      let directory = ServerPlace.directory(try place.configuration())
      try Backup.restore(ServerPlace.absolute(file), to: directory)
      print("\(directory): restored; start the server on it")
    }
  }
}
