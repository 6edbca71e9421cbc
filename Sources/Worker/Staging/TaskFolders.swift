package import ScitqProtocol
package import SystemPackage

/// The folders of one attempt under `tasks/` in the store.
package struct TaskFolders: Sendable {
  package let root: FilePath
  package let launch: Launch.Folders
  /// What holds no scripts and no resources shares one empty folder with all others: a folder that nobody writes
  /// need not be made for every task.
  private let made: [FilePath]
  private let isContainer: Bool

  package init(_ id: AttemptID, spec: WireTaskSpec, in store: StorePaths) {
    root = store.tasks.appending("\(id)")
    launch = Launch.Folders(
      input: root.appending("input"), output: root.appending("output"), temp: root.appending("tmp"),
      resource: spec.resources.isEmpty ? store.empty : root.appending("resource"),
      scripts: spec.shell.isEmpty ? store.empty : root.appending("scripts"))
    isContainer = !Engines.isBare(spec.container)
    made =
      [root, launch.input, launch.output, launch.temp]
      + (spec.resources.isEmpty ? [] : [launch.resource]) + (spec.shell.isEmpty ? [] : [launch.scripts])
  }

  /// Makes them; what is there already stays.
  package func make() throws(Files.Problem) {
    for path in made { try Files.makeFolder(path) }
    // An image's command may run as any user; the store itself is closed to others on the host.
    if isContainer {
      for path in [launch.input, launch.output, launch.temp] { try Files.changeMode(path, 0o1777) }
    }
  }

  /// Removes them if there is nothing in them, which costs a few calls and no look inside. False: something is.
  package func removeIfEmpty() -> Bool {
    for path in made.reversed() where !Files.removeEmptyFolder(path) { return false }
    return true
  }
}

/// Where things are in a worker's store.
package struct StorePaths: Sendable {
  package let root: FilePath
  package init(_ root: FilePath) { self.root = root }

  package var tasks: FilePath { root.appending("tasks") }
  package var empty: FilePath { root.appending("empty") }
  package var resources: FilePath { root.appending("resources") }
  package var transfer: FilePath { root.appending("transfer") }
  package var journal: FilePath { root.appending("journal") }
  package var lock: FilePath { root.appending("lock") }
  package var storeID: FilePath { root.appending("store-id") }
  package var credential: FilePath { root.appending("credential") }
  package var authority: FilePath { root.appending("authority.pem") }

  /// Makes what is missing. The store holds a credential and other people's data: it is its owner's alone.
  package func make() throws(Files.Problem) {
    try Files.makeFolders(root, mode: 0o700)
    for path in [tasks, resources, transfer] { try Files.makeFolder(path) }
    try Files.makeFolder(empty, mode: 0o555)
  }
}
