import Foundation
import ScitqProtocol
import Testing

@testable import ScitqClient

@Suite("Trust")
struct TrustTests {
  private let address = ServerAddress(host: "Queue.example.org")
  private let one = PresentedCertificate(der: Array("one".utf8))
  private let two = PresentedCertificate(der: Array("two".utf8))

  private func withFolder(_ body: (URL) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "scitq-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try body(folder)
  }

  @Test("what is pinned is found again, for this server and port alone, and only its owner can read it")
  func pinning() throws {
    try withFolder { folder in
      let known = try #require(
        KnownServers(environment: ["XDG_CONFIG_HOME": folder.path, "HOME": "/nowhere"]))
      #expect(try known.pinned(for: address) == nil)
      try known.pin(one.pem, for: address)
      #expect(try known.pinned(for: address) == one.pem)
      #expect(try known.pinned(for: ServerAddress(host: "queue.example.org")) == one.pem)
      #expect(try known.pinned(for: ServerAddress(host: "queue.example.org", port: 1)) == nil)
      let file = folder.appending(path: "scitq/known_servers/queue.example.org_50051.pem")
      #expect(known.file(for: address).path == file.path)
      let attributes = try FileManager.default.attributesOfItem(atPath: file.path)
      #expect((attributes[.posixPermissions] as? Int) == 0o600)
      try known.pin(two.pem, for: address)
      #expect(try known.pinned(for: address) == two.pem)
      #expect(try FileManager.default.contentsOfDirectory(atPath: known.folder.path).count == 1)
    }
  }

  @Test("a server's name cannot lead out of the folder")
  func names() throws {
    try withFolder { folder in
      let known = KnownServers(folder: folder)
      let file = known.file(for: ServerAddress(host: "../../etc/passwd"))
      #expect(file.deletingLastPathComponent().path == folder.path)
      #expect(known.file(for: ServerAddress(host: "::1")).lastPathComponent == "::1_50051.pem")
    }
  }

  @Test("a pinned file that is no certificate is an error, never a reason to ask anew")
  func damaged() throws {
    try withFolder { folder in
      let known = KnownServers(folder: folder)
      try known.pin("nonsense", for: address)
      #expect(throws: Failure.self) { try known.pinned(for: address) }
    }
  }

  @Test("without XDG_CONFIG_HOME the folder is below ~/.config, and without a home there is none")
  func homes() {
    #expect(
      KnownServers(environment: ["HOME": "/home/a"])?.folder.path == "/home/a/.config/scitq/known_servers")
    #expect(KnownServers(environment: [:]) == nil)
  }

  @Test("a fingerprint is the certificate's, however the text around it looks")
  func fingerprints() {
    #expect(Certificates.fingerprint(pem: one.pem) == one.fingerprint)
    #expect(
      Certificates.fingerprint(pem: "remark\n" + one.pem.replacing("\n", with: "\r\n")) == one.fingerprint)
    #expect(Certificates.fingerprint(pem: "nonsense") == nil)
    #expect(Certificates.normalized("SHA256:AB:cd ") == "abcd")
    #expect(Certificates.spaced("abcdef") == "ab:cd:ef")
  }

  @Test(
    "an unknown server is asked about where somebody can answer, and refused elsewhere with the two ways out")
  func unknown() {
    var facts = TrustDecision.Facts(address: address, presented: one.fingerprint, hasTerminal: true)
    #expect(TrustDecision.about(facts) == .ask)
    facts.hasTerminal = false
    guard case .refuse(let why) = TrustDecision.about(facts) else {
      Issue.record("not refused")
      return
    }
    #expect(why.contains("SCITQ_SSL_CERTIFICATE") && why.contains("SCITQ_SSL_FINGERPRINT"))
  }

  @Test("a fingerprint from the environment decides, in both directions")
  func expected() {
    let spelled = Certificates.spaced(one.fingerprint).uppercased()
    var facts = TrustDecision.Facts(
      address: address, presented: one.fingerprint, expected: spelled, hasTerminal: false)
    #expect(TrustDecision.about(facts) == .accept)
    facts.presented = two.fingerprint
    facts.hasTerminal = true
    guard case .refuse = TrustDecision.about(facts) else {
      Issue.record("a wrong fingerprint was not refused")
      return
    }
  }

  @Test("a certificate that has changed is refused loudly, also where somebody could say yes")
  func changed() {
    let facts = TrustDecision.Facts(
      address: address, presented: two.fingerprint, pinned: (one.fingerprint, "/k/file.pem"),
      hasTerminal: true)
    guard case .refuse(let why) = TrustDecision.about(facts) else {
      Issue.record("not refused")
      return
    }
    #expect(why.contains("HAS CHANGED") && why.contains("/k/file.pem"))
    #expect(
      why.contains(Certificates.spaced(one.fingerprint)) && why.contains(Certificates.spaced(two.fingerprint))
    )
  }
}
