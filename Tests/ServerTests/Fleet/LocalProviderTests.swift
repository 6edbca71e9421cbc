import Foundation
import Scheduling
import SystemPackage
import Testing

@testable import ScitqServer

@Suite(
  "Hosts of the server's own machine", .serialized,
  .enabled(
    if: HostWorld.has("curl", "openssl", "python3", "setsid"), "needs curl, openssl, python3 and setsid"))
struct LocalProviderTests {
  private func provider(_ world: HostWorld, server: String = "test") -> LocalProvider {
    LocalProvider(
      ProviderConfiguration(kind: .local, name: "local.here", regions: ["local"]), server: server,
      folder: world.folder.appending("local"))
  }

  private func flavor(of provider: LocalProvider) async throws -> Flavor {
    try #require(try await provider.flavors(in: "local").first)
  }

  @Test("the machine itself is the flavor, for nothing, unless others are configured")
  func flavors() async throws {
    var configuration = ProviderConfiguration(kind: .local, name: "local.here", regions: ["local"])
    let folder = FilePath("/tmp/not-there/\(UUID().uuidString)")
    let machine = try await LocalProvider(configuration, server: "test", folder: folder).flavors(in: "local")
    let flavor = try #require(machine.first)
    #expect(
      machine.count == 1 && flavor.name == "local" && flavor.price == 0 && flavor.provider == "local.here")
    #expect(flavor.cpu == Double(ProcessInfo.processInfo.activeProcessorCount))
    #expect(flavor.memory > 0.5 && flavor.disk > 0)
    configuration.flavors = [
      Flavor(provider: "local.here", region: "local", name: "half", cpu: 1, memory: 2, price: 0.5),
      Flavor(provider: "local.here", region: "other", name: "else", cpu: 1, memory: 2),
    ]
    let told = try await LocalProvider(configuration, server: "test", folder: folder).flavors(in: "local")
    #expect(told.map(\.name) == ["half"])
  }

  @Test("a host boots for nobody else to read, is found by a new server, and is made once")
  func life() async throws {
    try await HostWorld.run { world in
      let provider = provider(world)
      let order = world.order(1, try await flavor(of: provider))
      let home = world.folder.appending("local/\(order.key)")
      let made = try await provider.deploy(order)
      #expect(made.key == order.key && made.state == .running)
      let process = try #require(HostProcess(at: home.appending("process")))
      #expect(process.runs && getsid(process.number) == process.number && getsid(0) != process.number)
      async let again = provider.deploy(order)
      async let meanwhile = provider.deploy(order)
      #expect(try await [again, meanwhile] == [made, made])
      #expect(HostProcess(at: home.appending("process")) == process)
      try await HostWorld.until("the worker joins") { world.joined(home) }
      #expect(
        world.contents(home.appending("joined")).contains(
          "--store \(home)/store --name \(order.key) --concurrency 2"))
      #expect(world.progress.contains("fetched") && world.progress.contains("joining"))
      let modes = try ["", "boot.sh", "order"].map {
        try FileManager.default.attributesOfItem(atPath: home.appending($0).string)[.posixPermissions] as? Int
      }
      #expect(modes == [0o700, 0o600, 0o600])
      // A server that starts anew sees its own, and no other server does.
      #expect(try await self.provider(world).instances(in: "local") == [made])
      #expect(try await self.provider(world).instances(in: "elsewhere").isEmpty)
      #expect(try await self.provider(world, server: "te").instances(in: "local").isEmpty)
      let other = self.provider(world, server: "te")
      #expect(await failure { try await other.terminate(made) }?.kind == .misconfigured)
      try await provider.terminate(made)
      #expect(!process.runs && !FileManager.default.fileExists(atPath: home.string))
      #expect(world.contents(FilePath(home.string + ".said")) == "asked\n")
      try await provider.terminate(made)
      #expect(try await provider.instances(in: "local").isEmpty)
    }
  }

  @Test("who takes no notice is killed, and so is what its tasks run in sessions of their own")
  func stubborn() async throws {
    try await HostWorld.run(stubborn: true) { world in
      var provider = provider(world)
      provider.grace = .milliseconds(500)
      let order = world.order(2, try await flavor(of: provider))
      let home = world.folder.appending("local/\(order.key)")
      let made = try await provider.deploy(order)
      try await HostWorld.until("the worker joins") { world.joined(home) }
      // As a supervisor does: it names the store, and its task names nothing.
      let supervisor = try world.program("supervisor", "#!/bin/sh\nsleep 1234.5 &\nwait\n")
      try await HostWorld.call(
        "setsid", "--fork", "sh", "-c", "exec \(supervisor) --store \(home)/store >/dev/null 2>&1")
      try await HostWorld.until("the task runs") { HostProcess.tree(naming: "\(home)/store").count >= 2 }
      let tree = HostProcess.tree(naming: "\(home)/")
      let locked = home.appending("store/readonly").string
      try FileManager.default.createDirectory(atPath: locked, withIntermediateDirectories: true)
      try "x".write(toFile: locked + "/x", atomically: false, encoding: .utf8)
      try FileManager.default.setAttributes([.posixPermissions: 0o500], ofItemAtPath: locked)
      let process = try #require(HostProcess(at: home.appending("process")))
      try await provider.terminate(made)
      #expect(!process.runs && !FileManager.default.fileExists(atPath: home.string))
      try await HostWorld.until("all of it is gone", seconds: 5) {
        tree.allSatisfy { number in
          let stat = try? String(contentsOfFile: "/proc/\(number)/stat", encoding: .utf8)
          return stat == nil || stat?.contains(") Z ") == true
        }
      }
    }
  }

  @Test("a host that has ended is gone, also where its number is another's now")
  func gone() async throws {
    try await HostWorld.run { world in
      let provider = provider(world)
      let order = world.order(3, try await flavor(of: provider))
      let home = world.folder.appending("local/\(order.key)")
      let made = try await provider.deploy(order)
      try await HostWorld.until("the worker joins") { world.joined(home) }
      let process = try #require(HostProcess(at: home.appending("process")))
      kill(-process.number, SIGKILL)
      try await HostWorld.until("it ends", seconds: 5) { !process.runs }
      #expect(try await provider.instances(in: "local").isEmpty)
      // This process has lived longer than that.
      try "\(getpid()) \(process.started)\n"
        .write(toFile: home.appending("process").string, atomically: true, encoding: .utf8)
      #expect(try await provider.instances(in: "local").isEmpty)
      // The same order makes it again, in the same folder.
      #expect(try await provider.deploy(order) == made)
      #expect(try await provider.instances(in: "local") == [made])
      try await provider.terminate(made)
    }
  }

  @Test("keys that are not an order's, and a folder that cannot be had, are for a person to look at")
  func wrong() async throws {
    try await HostWorld.run { world in
      let provider = provider(world)
      let flavor = try await flavor(of: provider)
      for key in ["scitq-test-", "scitq-test-1/../../x", "scitq-test-1x", "scitq-other-1", "scitq-test-x-1"] {
        var order = world.order(1, flavor)
        order.key = key
        let odd = order
        #expect(await failure { _ = try await provider.deploy(odd) }?.kind == .misconfigured)
      }
      try "".write(toFile: world.folder.appending("local").string, atomically: true, encoding: .utf8)
      let order = world.order(1, flavor)
      #expect(await failure { _ = try await provider.deploy(order) }?.kind == .misconfigured)
    }
  }
}
