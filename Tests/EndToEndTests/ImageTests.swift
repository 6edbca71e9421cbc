import Foundation
import Testing

/// Images of a registry, which tags name and digests tell apart.
@Suite("Images", .serialized)
struct ImageTests {
  @Test("a tag that has moved in its registry is brought anew; a registry that is away stops nobody")
  func movedTag() async throws {
    try await World.server().dockerWorker(slots: 1).run { world in
      let registry = try await Registry.start(in: world)
      let image = "\(registry.address)/versioned:stable"
      let version = ["--container", image, "--shell", "sh", "--command", "echo $VERSION"]
      do {
        try await registry.push("one", as: image)
        try await world.succeeds(version, saying: "one")
        try await registry.push("two", as: image)
        // This host has the older one still.
        try await registry.docker("tag", "\(registry.address)/one", image)
        try await world.killWorker("worker")
        try await world.startWorker("worker")
        try await world.succeeds(version, saying: "two")
      } catch {
        await registry.end()
        throw error
      }
      await registry.stop()
      try await world.killWorker("worker")
      try await world.startWorker("worker")
      try await world.succeeds(version, saying: "two")
      await registry.end()
    }
  }
}

extension World {
  fileprivate func succeeds(_ arguments: [String], saying words: String) async throws {
    let id = try await create(arguments)
    try await succeeded(id)
    try #require(try await log(id).text == words)
  }
}

/// A registry of this machine; docker speaks plain http to it.
private struct Registry {
  let address: String
  private let program: Program
  private let world: World

  static func start(in world: World) async throws -> Registry {
    let folder = world.folder.appending(path: "registry")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    // Below the ports that the system hands out to others meanwhile.
    let address = "127.0.0.1:\(Int.random(in: 10_000..<32_000))"
    let configuration = folder.appending(path: "config.yml")
    try """
    version: 0.1
    log: {level: info}
    storage: {filesystem: {rootdirectory: \(folder.path)/data}}
    http: {addr: "\(address)"}

    """.write(to: configuration, atomically: true, encoding: .utf8)
    let program = try Program(
      "registry", try Tools.onPath("docker-registry"), ["serve", configuration.path],
      environment: world.baseEnvironment, out: folder.appending(path: "log"),
      err: folder.appending(path: "log"))
    let registry = Registry(address: address, program: program, world: world)
    try await until("the registry answers") {
      guard program.isRunning else { throw Trouble("docker-registry ended at its start") }
      return try String(contentsOf: program.err, encoding: .utf8).contains("listening on")
    }
    return registry
  }

  @discardableResult
  func docker(_ arguments: String...) async throws -> String {
    let log = await world.scratch("docker")
    let program = try Program(
      "docker", try Tools.onPath("docker"), arguments, environment: world.baseEnvironment, out: log, err: log)
    let status = await program.ended()
    let text = try String(contentsOf: log, encoding: .utf8)
    try #require(status == 0, "docker \(arguments): \(text)")
    return text
  }

  /// Makes an image that knows its version, and pushes it.
  func push(_ version: String, as image: String) async throws {
    let container = "scitq-registry-\(address.suffix(5))-\(version)"
    try await docker("create", "--name", container, "alpine", "true")
    try await docker(
      "commit", "--change", "ENV VERSION=\(version)", "--change", "LABEL scitq.test=\(address)", container,
      image)
    try await docker("rm", container)
    try await docker("tag", image, "\(address)/\(version)")
    try await docker("push", image)
  }

  func stop() async { await program.stop() }

  func end() async {
    await program.stop()
    let ids = try? await docker("images", "--quiet", "--filter", "label=scitq.test=\(address)")
    for id in Set((ids ?? "").split(separator: "\n")) { _ = try? await docker("rmi", "--force", String(id)) }
  }
}
