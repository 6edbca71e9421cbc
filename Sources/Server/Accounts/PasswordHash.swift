import Crypto
import CryptoExtras
import Foundation
package import NIOPosix

/// Hashes passwords with scrypt and compares them, on a thread pool: one hash costs tens of milliseconds of a processor and
/// 32 MiB, so at most a few are worked on at once and the others wait their turn.
///
/// A hash is one line, `scrypt$N$r$p$salt$hash` (base64): what is stored today can be read when the cost has been raised.
package struct PasswordHash: Sendable {
  package enum Failure: Error, CustomStringConvertible {
    case empty
    case tooLong
    case damaged

    package var description: String {
      switch self {
      case .empty: "the password is empty; choose one of at least one character"
      case .tooLong: "the password is longer than 1,024 bytes; choose a shorter one"
      case .damaged: "the stored password is not in a form this server knows; set a new one"
      }
    }
  }

  /// What one hash costs: `rounds` is a power of two; memory is 128 · rounds · blockSize bytes.
  package struct Cost: Sendable, Equatable {
    package var rounds: Int
    package var blockSize: Int
    package var parallelism: Int

    package init(rounds: Int = 1 << 15, blockSize: Int = 8, parallelism: Int = 1) {
      self.rounds = rounds
      self.blockSize = blockSize
      self.parallelism = parallelism
    }

    /// Bounds for a stored hash, so that a damaged one cannot ask for all memory.
    var isSensible: Bool {
      rounds > 1 && rounds <= 1 << 20 && rounds & (rounds - 1) == 0 && (1...32).contains(blockSize)
        && (1...16).contains(parallelism) && 128 * rounds * blockSize <= 1 << 30
    }
  }

  private let pool: NIOThreadPool
  private let cost: Cost
  private let turns: Turnstile
  /// Compared with when the name is unknown, so that an answer takes as long as for a known one.
  private let decoy: String

  /// - Parameter parallel: how many hashes are worked on at once.
  package init(threadPool: NIOThreadPool, cost: Cost = Cost(), parallel: Int = 2) {
    pool = threadPool
    self.cost = cost
    turns = Turnstile(places: max(1, parallel))
    decoy = Self.encode(
      cost, salt: Secret.randomBytes(16), hash: Secret.randomBytes(32))
  }

  /// The line to store for a new password.
  package func hash(_ password: String) async throws -> String {
    guard !password.isEmpty else { throw Failure.empty }
    guard password.utf8.count <= 1024 else { throw Failure.tooLong }
    let (cost, pool) = (cost, pool)
    return try await turns.pass {
      try await pool.perform {
        Result {
          let salt = Secret.randomBytes(16)
          return Self.encode(
            cost, salt: salt, hash: try Self.derive(password, salt: salt, cost: cost, bytes: 32))
        }
      }.get()
    }
  }

  /// Whether the password is the one that was hashed. Takes as long for an unknown name, given as nil, as for a wrong password.
  package func verify(_ password: String, against stored: String?) async throws -> Bool {
    guard password.utf8.count <= 1024 else { return false }
    let line = stored ?? decoy
    guard let (cost, salt, expected) = Self.decode(line) else { throw Failure.damaged }
    let pool = pool
    let matches = try await turns.pass {
      try await pool.perform {
        Result {
          Secret.equal(try Self.derive(password, salt: salt, cost: cost, bytes: expected.count), expected)
        }
      }.get()
    }
    return matches && stored != nil
  }

  private static func derive(_ password: String, salt: [UInt8], cost: Cost, bytes: Int) throws -> [UInt8] {
    let key = try KDF.Scrypt.deriveKey(
      from: Array(password.utf8), salt: salt, outputByteCount: bytes, rounds: cost.rounds,
      blockSize: cost.blockSize, parallelism: cost.parallelism,
      maxMemory: 128 * cost.rounds * cost.blockSize + (64 << 20))
    return key.withUnsafeBytes { Array($0) }
  }

  private static func encode(_ cost: Cost, salt: [UInt8], hash: [UInt8]) -> String {
    "scrypt$\(cost.rounds)$\(cost.blockSize)$\(cost.parallelism)$\(Data(salt).base64EncodedString())$"
      + Data(hash).base64EncodedString()
  }

  private static func decode(_ line: String) -> (Cost, salt: [UInt8], hash: [UInt8])? {
    let parts = line.split(separator: "$", omittingEmptySubsequences: false)
    guard parts.count == 6, parts[0] == "scrypt", let rounds = Int(parts[1]), let blockSize = Int(parts[2]),
      let parallelism = Int(parts[3]), let salt = Data(base64Encoded: String(parts[4])),
      let hash = Data(base64Encoded: String(parts[5])), (16...64).contains(hash.count), salt.count >= 8
    else { return nil }
    guard rounds <= 1 << 20, blockSize <= 32 else { return nil }
    let cost = Cost(rounds: rounds, blockSize: blockSize, parallelism: parallelism)
    return cost.isSensible ? (cost, Array(salt), Array(hash)) : nil
  }
}

/// Lets a number of callers through at once; the others wait in order.
actor Turnstile {
  private var free: Int
  private var waiting: [CheckedContinuation<Void, Never>] = []

  init(places: Int) { free = places }

  func pass<T: Sendable>(_ body: @Sendable () async throws -> T) async rethrows -> T {
    if free > 0 {
      free -= 1
    } else {
      // Its place is handed over by the one that leaves.
      await withCheckedContinuation { waiting.append($0) }
    }
    defer {
      if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }
    return try await body()
  }
}
