package import ScitqProtocol
import Synchronization
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
  package func make(_ spares: SpareFolders) throws(Files.Problem) {
    if isPlain, spares.take(as: root) { return }
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

  /// Keeps them for another attempt if they are as they were made. Only where nobody is left who may write to them.
  /// False: they are still there.
  package func keep(_ spares: SpareFolders) -> Bool { isPlain && spares.keep(root) }

  /// They are the same as any other plain process's.
  private var isPlain: Bool { !isContainer && made.count == 4 }
}

/// Folders of ended processes that nobody has written to, for the next ones.
///
/// A file system takes its time over making folders where many were removed just before: short tasks would spend
/// more on their folders than on themselves.
package final class SpareFolders: Sendable {
  private struct State {
    var names: [FilePath] = []
    var last = 0
  }
  private let state = Mutex(State())
  private let home: FilePath
  private static let most = 256
  private static let parts: Set<String> = ["input", "output", "tmp"]

  /// What an earlier agent kept may be half kept: it goes.
  package init(_ store: StorePaths) {
    home = store.spare
    for name in Files.names(in: home) { Files.removeTree(home.appending(name)) }
  }

  func clear() {
    for name in state.withLock({ state in
      defer { state.names = [] }
      return state.names
    }) { Files.removeTree(name) }
  }

  func take(as root: FilePath) -> Bool {
    guard let spare = state.withLock({ $0.names.popLast() }) else { return false }
    return (try? Files.rename(spare, to: root)) != nil
  }

  func keep(_ root: FilePath) -> Bool {
    guard Files.isUntouched(root, holding: Self.parts),
      Self.parts.allSatisfy({ Files.isUntouched(root.appending($0), holding: []) })
    else { return false }
    let spare = state.withLock { state -> FilePath? in
      guard state.names.count < Self.most else { return nil }
      state.last += 1
      return home.appending(String(state.last))
    }
    guard let spare, (try? Files.rename(root, to: spare)) != nil else { return false }
    state.withLock { $0.names.append(spare) }
    return true
  }
}

/// Where things are in a worker's store.
package struct StorePaths: Sendable {
  package let root: FilePath
  package init(_ root: FilePath) { self.root = root }

  package var tasks: FilePath { root.appending("tasks") }
  package var spare: FilePath { root.appending("spare") }
  package var empty: FilePath { root.appending("empty") }
  package var resources: FilePath { root.appending("resources") }
  /// Outputs of earlier attempts, for the tasks that read them next.
  package var kept: FilePath { root.appending("kept") }
  package var transfer: FilePath { root.appending("transfer") }
  package var journal: FilePath { root.appending("journal") }
  package var lock: FilePath { root.appending("lock") }
  package var storeID: FilePath { root.appending("store-id") }
  package var credential: FilePath { root.appending("credential") }
  package var authority: FilePath { root.appending("authority.pem") }

  /// Makes what is missing. The store holds a credential and other people's data: it is its owner's alone.
  package func make() throws(Files.Problem) {
    try Files.makeFolders(root, mode: 0o700)
    for path in [tasks, spare, resources, kept, transfer] { try Files.makeFolder(path) }
    try Files.makeFolder(empty, mode: 0o555)
  }
}
