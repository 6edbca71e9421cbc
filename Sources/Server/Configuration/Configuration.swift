package import Logging
package import Transfer

/// What the operator sets, from `scitq.yaml`; every key has a default.
package struct Configuration: Sendable, Equatable {
  package struct Server: Sendable, Equatable {
    /// Where to listen. Port 0 asks the system for a free one.
    package var listen = ListenAddress(host: "0.0.0.0", port: 50051)
    /// The folder of the database, the logs and the server's certificate.
    package var dataDir = "./scitq-data"
    /// The name by which clients reach the server, for its certificate; nil: the host's name.
    package var name: String?
    /// PEM files of the operator's own certificate chain and its key; nil: the server makes its own.
    package var certificate: String?
    package var privateKey: String?
    package var logLevel = Logger.Level.info
  }

  package struct Admin: Sendable, Equatable {
    package var username = "admin"
    /// The first password of the first account; nil: a random one, printed once.
    package var password: String?
    package var email = ""
  }

  package struct Tokens: Sendable, Equatable {
    /// How long a login is good for.
    package var userTTL = Duration.seconds(7 * 86_400)
  }

  package struct Workers: Sendable, Equatable {
    /// A worker that was not heard of for so long is lost.
    package var offlineTimeout = Duration.seconds(60)
    package var beatInterval = Duration.seconds(5)
    /// Between SIGTERM and SIGKILL.
    package var killGrace = Duration.seconds(10)
    /// Losses in a row that end a task.
    package var maxLosses = 5
    /// Options for the container engine that tasks may use. None of the default ones reaches out of the container.
    package var allowedContainerOptions = [
      "--add-host", "--cap-drop", "--entrypoint", "--hostname", "--init", "--platform", "--read-only",
      "--shm-size",
      "--stop-signal", "--tmpfs", "--ulimit", "--user", "--workdir",
    ]
  }

  package struct Logs: Sendable, Equatable {
    /// How much of one stream of one task is kept; of more, the beginning and the end.
    package var maxLogBytes: Int64 = 1 << 30
    /// Whether finished logs of 16 KiB and more are compressed.
    package var compress = true
  }

  package struct Retention: Sendable, Equatable {
    /// How long tasks and workflows are kept once they have ended; nil: for ever.
    package var keepFinishedFor: Duration?
    /// How long events are kept; nil: for ever.
    package var keepEventsFor: Duration?
    /// How often it is looked.
    package var interval = Duration.seconds(60)
  }

  package struct Fleet: Sendable, Equatable {
    /// Where hosts reach this server: HOST or HOST:PORT; nil: its name and the port it listens on.
    package var serverAddress: String?
    /// The worker's program that hosts are given; nil: `scitq-worker` beside the server's own.
    package var workerBinary: String?
    /// A rented worker that had nothing to do for so long is returned.
    package var idleTimeout = Duration.seconds(300)
    /// One that has never had anything to do.
    package var newWorkerIdleTimeout = Duration.seconds(900)
    /// A host that has not reported after so long is returned.
    package var deployTimeout = Duration.seconds(900)
    /// How often providers are asked which hosts there are.
    package var reconcileInterval = Duration.seconds(120)
    /// How often they are asked for their flavors.
    package var refreshInterval = Duration.seconds(3600)
    /// A host with our tag that no order knows is returned after so long.
    package var orphanGrace = Duration.seconds(120)
  }

  package struct Limits: Sendable, Equatable {
    package var maxTasksPerCall = 1_000_000
    package var maxConnections = 10_000
  }

  package var server = Server()
  package var admin = Admin()
  package var tokens = Tokens()
  package var workers = Workers()
  package var logs = Logs()
  package var retention = Retention()
  package var limits = Limits()
  package var fleet = Fleet()
  /// Who rents hosts out to us, by name.
  package var providers: [ProviderConfiguration] = []
  /// The remotes of rclone by name. Their settings hold secrets: they are given to workers and to users with the right
  /// to them, and are never logged.
  package var rclone: [String: Remote] = [:]
  /// Where public sequencing runs are looked up.
  package var publicArchive = PublicArchive()

  package init() {}
}

/// Where the server listens.
package struct ListenAddress: Sendable, Equatable, CustomStringConvertible {
  package var host: String
  package var port: Int

  package init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  /// `host:port` or `[v6]:port`, port within 0…65535.
  package init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
      (0...65535).contains(port), text[text.index(after: colon)...].utf8.allSatisfy({ $0 >= 48 && $0 <= 57 })
    else { return nil }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    guard !host.isEmpty, !host.contains(where: { $0.isWhitespace || $0 == "/" || $0 == "[" || $0 == "]" })
    else {
      return nil
    }
    self.init(host: String(host), port: port)
  }

  package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// One sentence on what is wrong in the configuration, and where.
package struct ConfigurationError: Error, Equatable, CustomStringConvertible {
  /// The file, or nil for text that came from none.
  package var file: String?
  /// 1 for the first; nil where no line is at fault.
  package var line: Int?
  /// The key with those above it, as in `server.listen`; empty where none is at fault.
  package var key: String
  package var message: String

  package var description: String {
    let place = [file ?? "configuration", line.map(String.init)].compactMap { $0 }.joined(separator: ":")
    return key.isEmpty ? "\(place): \(message)" : "\(place): \(key): \(message)"
  }
}
