public import ArgumentParser
import Foundation
import ScitqProtocol
import SystemPackage

/// `scitq-server`.
public struct ServerCommand: AsyncParsableCommand {
  public static let configuration = CommandConfiguration(
    commandName: "scitq-server",
    abstract: "The coordinating server of scitq.",
    discussion: "Example: scitq-server --config /etc/scitq.yaml",
    version: Connection.software,
    subcommands: [ServeCommand.self, BackupCommand.self, RestoreCommand.self],
    defaultSubcommand: ServeCommand.self)

  public init() {}

  /// Runs the body; an error of it is one sentence on stderr and an exit status: 2 for misuse, 1 for the rest.
  static func complaining(_ body: () async throws -> Void) async throws {
    do {
      try await body()
    } catch let error as ConfigurationError {
      complain("\(error)")
      throw ExitCode(2)
    } catch let error as ExitCode {
      throw error
    } catch {
      complain("\(error)")
      throw ExitCode(1)
    }
  }

  static func complain(_ sentence: String) {
    FileHandle.standardError.write(Data("scitq-server: \(sentence)\n".utf8))
  }
}

/// Where a server has its configuration and its data.
struct ServerPlace: ParsableArguments {
  @Option(name: .long, help: "The configuration file; scitq.yaml.example lists every key.")
  var config: String?

  @Option(name: .long, help: "The folder of the database, the logs and the certificate.")
  var dataDir: String?

  func configuration() throws -> Configuration {
    var configuration = try Configuration.load(path: config, environment: ProcessInfo.processInfo.environment)
    if let dataDir { configuration.server.dataDir = dataDir }
    return configuration
  }

  /// The data directory, absolute.
  static func directory(_ configuration: Configuration) -> FilePath {
    absolute(configuration.server.dataDir)
  }

  static func absolute(_ path: String) -> FilePath {
    FilePath(FileManager.default.currentDirectoryPath).pushing(FilePath(path)).lexicallyNormalized()
  }
}

/// Why a backup or a restoration was not done. Nothing was changed.
struct BackupProblem: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}
