/// A type of host that can be had in one region of one provider.
///
/// Memory and disk are in GB as their providers sell them (GiB where they do), prices in the provider's currency.
package struct Flavor: Hashable, Sendable, Codable {
  /// As configured: `aws.primary`.
  package var provider: String
  package var region: String
  package var name: String
  package var cpu: Double
  package var memory: Double
  package var disk: Double
  /// Gbit/s; 0: not known.
  package var bandwidth: Double
  /// The description of its GPUs; empty: none.
  package var gpu: String
  package var gpuCount: Int
  /// Of all its GPUs, in GB.
  package var gpuMemory: Double
  package var hasQuickDisks: Bool
  /// Its provider may take it back at any time.
  package var isSpot: Bool
  /// How many of 100 are taken back, by its provider's figure.
  package var eviction: Double
  /// An hour's.
  package var price: Double

  package init(
    provider: String, region: String, name: String, cpu: Double, memory: Double, disk: Double = 0,
    bandwidth: Double = 0, gpu: String = "", gpuCount: Int = 0, gpuMemory: Double = 0,
    hasQuickDisks: Bool = false, isSpot: Bool = false, eviction: Double = 0, price: Double = 0
  ) {
    self.provider = provider
    self.region = region
    self.name = name
    self.cpu = cpu
    self.memory = memory
    self.disk = disk
    self.bandwidth = bandwidth
    self.gpu = gpu
    self.gpuCount = gpuCount
    self.gpuMemory = gpuMemory
    self.hasQuickDisks = hasQuickDisks
    self.isSpot = isSpot
    self.eviction = eviction
    self.price = price
  }

  /// Whether its figures can be those of a host: what providers print is not always.
  package var isSane: Bool {
    let sizes = [cpu, memory, disk, bandwidth, gpuMemory, price]
    return sizes.allSatisfy { $0.isFinite && (0...10_000_000).contains($0) } && cpu > 0 && memory > 0
      && (0...100).contains(eviction) && (0...1_000).contains(gpuCount)
  }
}
