import ArgumentParser
import Foundation
import Logging
import NIOPosix
import NIOSSL
import ScitqProtocol
import ServiceLifecycle
import SystemPackage
import Transfer
import UnixSignals

/// `scitq-server serve`, which is what `scitq-server` does.
struct ServeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Run the server (the default).",
    discussion: """
      Without a configuration file every key has its default: the server listens on port 50051, keeps its data in
      ./scitq-data, and makes its own authority, an admin (whose password is printed once) and a join token for workers.

      Example: scitq-server --config /etc/scitq.yaml
      """)

  @OptionGroup var place: ServerPlace

  @Option(name: .long, help: "Where to listen, as host:port; port 0 takes a free one.")
  var listen: String?

  func run() async throws { try await ServerCommand.complaining { try await serve() } }

  private func configuration() throws -> Configuration {
    var configuration = try place.configuration()
    if let listen {
      guard let address = ListenAddress(listen) else {
        throw ConfigurationError(
          file: "--listen", key: "", message: "\"\(listen)\" is not host:port, such as 0.0.0.0:50051")
      }
      configuration.server.listen = address
    }
    return configuration
  }

  private func serve() async throws {
    let configuration = try configuration()
    var logger = Logger(label: "scitq-server") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = configuration.server.logLevel
    let directory = ServerPlace.directory(configuration)
    try PrivateFolder.make(directory)
    let lock = try DataLock(directory)
    defer { lock.release() }

    let names =
      [configuration.server.name ?? ProcessInfo.processInfo.hostName]
      // Hosts that boot believe only who is what they call it.
      + [configuration.fleet.serverAddress.flatMap(ServerAddress.init)?.host].compactMap(\.self)
    var own: (certificate: FilePath, privateKey: FilePath)?
    if let certificate = configuration.server.certificate, let key = configuration.server.privateKey {
      own = (FilePath(certificate), FilePath(key))
    }
    let identity = try Authority.load(directory: directory.appending("tls"), names: names, configured: own)
    let joinToken = try Self.joinToken(in: directory, fingerprint: identity.fingerprint)

    let store = try Store(directory: directory)
    let threads = NIOThreadPool(numberOfThreads: max(4, ProcessInfo.processInfo.activeProcessorCount * 2))
    threads.start()
    let logs = LogStore(
      directory: directory, maxBytes: configuration.logs.maxLogBytes, compress: configuration.logs.compress,
      threadPool: threads, logger: logger)
    let watch = TaskWatch()
    let events = EventWatch()
    let registry = WorkerRegistry()
    let engine = Engine(
      store: store, logs: logs, watch: watch, events: events, registry: registry,
      configuration: configuration,
      logger: logger)
    let accounts = Accounts(
      store: store, engine: engine, passwords: PasswordHash(threadPool: threads),
      configuration: configuration,
      joinToken: joinToken)
    let transfer = Transfer(
      remotes: Remotes(
        configuration.rclone.mapValues(\.settings), checksums: configuration.rclone.mapValues(\.checksums)),
      directory: directory.appending("transfer"),
      logger: logger, archive: configuration.publicArchive)
    let tickets = Tickets(secret: joinToken)
    let context = SessionContext(
      configuration: configuration, store: store, engine: engine, logs: logs, accounts: accounts,
      watch: watch, events: events,
      workers: registry, cleanings: Cleanings(), tickets: tickets, transfer: transfer,
      authorityPEM: identity.authorityPEM,
      startedAt: microsecondsNow(), logger: logger)
    var tls = TLSConfiguration.makeServerConfiguration(
      certificateChain: try identity.certificateChainPEM.flatMap {
        try NIOSSLCertificate.fromPEMBytes(Array($0.utf8)).map { .certificate($0) }
      },
      privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(identity.privateKeyPEM.utf8), format: .pem)))
    tls.minimumTLSVersion = .tlsv13
    let boot = BootSource(
      configuration: configuration.fleet, name: names[0], port: configuration.server.listen.port,
      addressFile: directory.appending("address"),
      authority: identity.authorityPEM, fingerprint: identity.fingerprint)
    let listener = Listener(
      context: context,
      boot: BootSession(engine: engine, tickets: tickets, source: boot, logger: logger),
      tls: try NIOSSLContext(configuration: tls), host: configuration.server.listen.host,
      port: configuration.server.listen.port, addressFile: directory.appending("address"), logger: logger)
    let opening = Opening(
      accounts: accounts, listener: listener, directory: directory, configuration: configuration)
    // Stopped in the reverse order: nobody is let in any more while the engine finishes what it has.
    let checks = OutputChecks(
      store: store, transfer: transfer, engine: engine, queue: engine.checks, logger: logger)
    let retention = Retention(
      store: store, engine: engine, configuration: configuration.retention, logger: logger)
    let fleet = Fleet(
      engine: engine, configuration: configuration, server: try await store.serverID(),
      folder: directory.appending("fleet"), tickets: tickets, boot: boot, logger: logger)
    let services: [any Service] = [engine, Leases(engine: engine), checks, retention, fleet, opening]
    var group = ServiceGroupConfiguration(
      services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    group.maximumGracefulShutdownDuration = .seconds(10)
    try await ServiceGroup(configuration: group).run()
    await transfer.stop()
    await logs.settle()
    try await threads.shutdownGracefully()
  }

  /// The token by which workers join, with the fingerprint by which they know this server.
  private static func joinToken(in directory: FilePath, fingerprint: String) throws -> String {
    let path = directory.appending("join-token")
    let kept = try PrivateFolder.readIfPresent(path).map { text in
      String(text.prefix { !$0.isNewline }.split(separator: ".").first ?? "")
    }
    let secret = kept.flatMap { Secret.isWellFormed($0, .join) ? $0 : nil } ?? Secret.make(.join)
    try PrivateFolder.write("\(secret).\(fingerprint)\n", to: path, mode: .ownerReadWrite)
    return secret
  }
}

/// What happens once the engine runs: the first account, the greeting, the port.
private struct Opening: Service {
  let accounts: Accounts
  let listener: Listener
  let directory: FilePath
  let configuration: Configuration

  func run() async throws {
    if let password = try await accounts.makeAdmin() {
      let text = """
        This server is new. Its admin is "\(configuration.admin.username)"; the password is shown this once:

            \(password)

        Workers join with the token in \(directory.appending("join-token")).

        """
      FileHandle.standardError.write(Data(text.utf8))
    }
    try await listener.run()
  }
}

/// Looks at the leases every second.
private struct Leases: Service {
  let engine: Engine

  func run() async throws {
    try? await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        try await Task.sleep(for: .seconds(1))
        engine.send(.tick)
      }
    }
  }
}
