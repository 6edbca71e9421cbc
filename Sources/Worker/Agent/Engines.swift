package import ScitqProtocol

/// What can run commands on this host.
package struct Engines: Sendable {
  /// docker or podman; nil: this host runs no containers.
  package var container: (any ExecutionEngine)?
  package var process: any ExecutionEngine
  /// As the host is described to the server.
  package var names: [String]

  package init(container: (any ExecutionEngine)?, process: any ExecutionEngine, names: [String]) {
    self.container = container
    self.process = process
    self.names = names
  }

  package static func isBare(_ container: String) -> Bool { container.isEmpty || container == "bare" }

  /// Nil when the task wants a container and this host runs none.
  package func engine(for spec: WireTaskSpec) -> (any ExecutionEngine)? {
    Self.isBare(spec.container) ? process : container
  }

  var all: [any ExecutionEngine] { (container.map { [$0] } ?? []) + [process] }
}

/// Which extra options a task may give to the container engine.
package enum ContainerOptions {
  /// The first word that is not allowed, or nil. Options are matched by name, words that are not options are taken
  /// as the value of the one before. A short option must stand alone: what is glued to it could be anything.
  package static func refused(_ words: [String], allowed: [String]) -> String? {
    var mayBeValue = false
    for word in words {
      if word.hasPrefix("--"), word.count > 2 {
        let name = word.prefix { $0 != "=" }
        guard allowed.contains(String(name)) else { return word }
        mayBeValue = !word.contains("=")
      } else if word.hasPrefix("-") {
        guard word.count == 2, allowed.contains(word) else { return word }
        mayBeValue = true
      } else {
        guard mayBeValue else { return word }
        mayBeValue = false
      }
    }
    return nil
  }
}
