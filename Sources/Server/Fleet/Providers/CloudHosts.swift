import Foundation
import Scheduling
import SystemPackage

extension ProviderConfiguration {
  /// What is bought, by `market`: true for spot. Spot alone where nothing else is said: it is the cheaper one, and a
  /// host that is taken back costs its tasks an attempt at most.
  var spotMarkets: [Bool] {
    get throws(ProviderError) {
      switch settings["market"] ?? "spot" {
      case "spot": [true]
      case "on-demand": [false]
      case "both": [true, false]
      case let other:
        throw ProviderError(
          .misconfigured, "\(name): market is \(other.debugDescription), not spot, on-demand or both")
      }
    }
  }

  /// How many of 100 spot hosts are taken back, where no client tells.
  var spotEviction: Double { settings["spot_eviction"].flatMap(Double.init) ?? 5 }

  /// The disk of a host, where the operator said one.
  var diskSize: Int? {
    get throws(ProviderError) {
      guard let text = settings["disk_gb"] else { return nil }
      guard let size = Int(text), size > 0 else {
        throw ProviderError(
          .misconfigured, "\(name): disk_gb is \(text.debugDescription), not a number of GB")
      }
      return size
    }
  }

  /// Whether a type belongs to what may be had: all, or those of the listed families (`c5` before `.` or `-`).
  func isOffered(_ type: String, separator: String) -> Bool {
    let families = lists["families"] ?? []
    return families.isEmpty || families.contains { type.hasPrefix($0 + separator) || type == $0 }
  }

  /// A listed flavor, once for each market in which there is a price for it.
  func offers(of flavor: Flavor, price: (_ isSpot: Bool) -> Double?) throws(ProviderError) -> [Flavor] {
    var offers: [Flavor] = []
    for isSpot in try spotMarkets {
      guard let price = price(isSpot), price > 0 else { continue }
      var offer = flavor
      offer.isSpot = isSpot
      offer.eviction = isSpot ? spotEviction : 0
      offer.price = price
      offers.append(offer)
    }
    return offers
  }
}

extension BootScript {
  /// Removes what a server that was killed has left in the folder.
  static func sweep(_ folder: FilePath) {
    for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.string)) ?? []
    where name.hasPrefix("boot-") {
      try? FileManager.default.removeItem(atPath: folder.appending(name).string)
    }
  }

  /// Puts the script where only this user can read it, for a client that takes user data by file. It holds a ticket:
  /// it is gone when `body` has ended.
  func handedOver<Value>(
    in folder: FilePath, _ body: (FilePath) async throws(ProviderError) -> Value
  ) async throws(ProviderError) -> Value {
    let path = folder.appending("boot-\(name)")
    do {
      try PrivateFolder.make(folder)
      try PrivateFolder.write(text, to: path, mode: .ownerReadWrite)
    } catch {
      try? FileManager.default.removeItem(atPath: path.string)
      throw ProviderError(.misconfigured, "\(path) could not be written: \(error)")
    }
    defer { try? FileManager.default.removeItem(atPath: path.string) }
    return try await body(path)
  }
}
