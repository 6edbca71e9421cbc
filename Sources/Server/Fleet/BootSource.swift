import Crypto
import Foundation
import ScitqProtocol
import SystemPackage

/// Where boot scripts have their parts from: the worker's program, this server's address and authority.
actor BootSource {
  private let configuration: Configuration.Fleet
  private let name: String
  private let port: Int
  private let addressFile: FilePath
  private let authority: String
  private let fingerprint: String
  /// Of the program, by the state of its file: it may be replaced while the server runs.
  private var hash: (modified: Date, bytes: Int, sha256: String)?

  /// - Parameters:
  ///   - name: by which the server is known, where nothing else is configured.
  ///   - port: that it listens on; 0: the one that `addressFile` tells.
  init(
    configuration: Configuration.Fleet, name: String, port: Int, addressFile: FilePath, authority: String,
    fingerprint: String
  ) {
    self.configuration = configuration
    self.name = name
    self.port = port
    self.addressFile = addressFile
    self.authority = authority
    self.fingerprint = fingerprint
  }

  /// The program that hosts are given: as configured, or the one beside the server's own.
  nonisolated var program: String {
    configuration.workerBinary
      ?? FilePath(Self.ownProgram()).removingLastComponent().appending("scitq-worker").string
  }

  private static func ownProgram() -> String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
  }

  func script(
    for instance: InstanceRow, ticket: String, concurrency: Int, prefetch: Int, isLocal: Bool
  ) throws(ProviderError) -> BootScript {
    BootScript(
      server: server(isLocal: isLocal), authority: authority, authorityFingerprint: fingerprint,
      ticket: ticket,
      sha256: try sha256(), name: instance.key, concurrency: concurrency, prefetch: prefetch, installs: true)
  }

  /// Where hosts reach this server: HOST:PORT. Those on its own machine need no name of it.
  private func server(isLocal: Bool) -> String {
    let given = configuration.serverAddress
    if !isLocal, let given, given.contains(":") { return given }
    return "\(isLocal ? "127.0.0.1" : given ?? name):\(ownPort())"
  }

  private func ownPort() -> Int {
    if port != 0 { return port }
    let address = (try? String(contentsOfFile: addressFile.string, encoding: .utf8)).flatMap {
      ServerAddress($0.trimmingCharacters(in: .whitespacesAndNewlines))
    }
    return address?.port ?? ServerAddress.defaultPort
  }

  /// Of the worker's program as it is now, in hexadecimal.
  func sha256() throws(ProviderError) -> String {
    do {
      let attributes = try FileManager.default.attributesOfItem(atPath: program)
      let modified = attributes[.modificationDate] as? Date ?? .distantPast
      let bytes = (attributes[.size] as? Int) ?? 0
      if let hash, hash.modified == modified, hash.bytes == bytes { return hash.sha256 }
      let data = try Data(contentsOf: URL(filePath: program), options: .mappedIfSafe)
      let sum = Secret.hexadecimal(Array(SHA256.hash(data: data)))
      hash = (modified, bytes, sum)
      return sum
    } catch {
      throw ProviderError(
        .misconfigured,
        "the worker's program \(program) cannot be read; say where it is by fleet.worker_binary")
    }
  }
}
