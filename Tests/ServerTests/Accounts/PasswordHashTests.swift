import Foundation
import NIOPosix
import Testing

@testable import ScitqServer

@Suite("Passwords and tokens")
struct PasswordHashTests {
  private let cheap = PasswordHash(threadPool: .singleton, cost: PasswordHash.Cost(rounds: 1 << 10))

  @Test("a password matches its own hash only, and two hashes of it differ")
  func roundTrip() async throws {
    let first = try await cheap.hash("correct horse")
    let second = try await cheap.hash("correct horse")
    #expect(first != second && first.hasPrefix("scrypt$1024$8$1$") && !first.contains("horse"))
    #expect(try await cheap.verify("correct horse", against: first))
    #expect(try await cheap.verify("correct horse", against: second))
    #expect(try await cheap.verify("correct horsf", against: first) == false)
    #expect(try await cheap.verify("", against: first) == false)
    #expect(try await cheap.verify("correct horse", against: nil) == false)
    #expect(try await cheap.verify(String(repeating: "a", count: 2000), against: first) == false)
  }

  @Test("a hash made at another cost is still read")
  func otherCost() async throws {
    let normal = PasswordHash(threadPool: .singleton)
    let line = try await normal.hash("pass")
    #expect(line.hasPrefix("scrypt$32768$8$1$"))
    #expect(try await cheap.verify("pass", against: line))
  }

  @Test("the hash is scrypt as its standard has it")
  func knownAnswer() async throws {
    // RFC 7914, section 12: password "pleaseletmein", salt "SodiumChloride", N = 16384, r = 8, p = 1.
    let hash =
      "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    var bytes = Data()
    var rest = hash[...]
    while !rest.isEmpty {
      bytes.append(UInt8(rest.prefix(2), radix: 16)!)
      rest = rest.dropFirst(2)
    }
    let line =
      "scrypt$16384$8$1$\(Data("SodiumChloride".utf8).base64EncodedString())$\(bytes.base64EncodedString())"
    #expect(try await cheap.verify("pleaseletmein", against: line))
    #expect(try await cheap.verify("pleaseletmeout", against: line) == false)
  }

  @Test(
    "a damaged hash is an error, and asks for no memory",
    arguments: [
      "", "scrypt", "scrypt$1024$8$1$AAAA$AAAA",
      "scrypt$1048576$32$16$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA==",
      "scrypt$9223372036854775807$9223372036854775807$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA==",
      "scrypt$-2$8$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA==",
      "scrypt$1000$8$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA==", "plain$secret",
    ])
  func damaged(line: String) async {
    await #expect(throws: PasswordHash.Failure.self) { try await cheap.verify("x", against: line) }
  }

  @Test("an empty password is refused")
  func empty() async {
    await #expect(throws: PasswordHash.Failure.self) { try await cheap.hash("") }
    await #expect(throws: PasswordHash.Failure.self) {
      try await cheap.hash(String(repeating: "a", count: 1025))
    }
  }

  @Test("no more hashes than allowed are worked on at once")
  func turnstile() async throws {
    let turnstile = Turnstile(places: 2)
    let counter = Counter()
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<50 {
        group.addTask {
          await turnstile.pass {
            await counter.enter()
            await Task.yield()
            await counter.leave()
          }
        }
      }
    }
    #expect(await counter.most <= 2)
    #expect(await counter.passed == 50)
  }

  private actor Counter {
    var inside = 0
    var most = 0
    var passed = 0
    func enter() {
      inside += 1
      most = max(most, inside)
    }
    func leave() {
      inside -= 1
      passed += 1
    }
  }

  @Test("tokens are random, of their kind, and stored as their hash", arguments: Secret.Kind.allCases)
  func tokens(kind: Secret.Kind) {
    let tokens = Set((0..<200).map { _ in Secret.make(kind) })
    #expect(tokens.count == 200)
    for token in tokens {
      #expect(Secret.isWellFormed(token, kind) && token.hasPrefix(kind.rawValue) && token.utf8.count == 51)
      #expect(Secret.hash(token).count == 64 && Secret.hash(token) == Secret.hash(token))
    }
    for other in Secret.Kind.allCases where other != kind {
      #expect(!Secret.isWellFormed(Secret.make(kind), other))
    }
    #expect(!Secret.isWellFormed("", kind) && !Secret.isWellFormed(kind.rawValue + "x", kind))
    #expect(Secret.hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(Secret.equal("abc", "abc") && !Secret.equal("abc", "abd") && !Secret.equal("abc", "abcd"))
    #expect(Secret.makePassword().count == 20 && Secret.makePassword() != Secret.makePassword())
  }
}
