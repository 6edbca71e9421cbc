package import Scheduling

/// One provider as the operator set it up: `providers: aws: primary:` is `aws.primary`.
package struct ProviderConfiguration: Sendable, Equatable {
  package enum Kind: String, Sendable, CaseIterable {
    case local, ssh, aws, openstack, azure, gcp, slurm, exec

    /// Whether a host may be pending for long, costs nothing until it runs, and may be suspended later: the queue of a
    /// cluster.
    var queues: Bool { self == .slurm }
  }

  /// At most so much at once, in one region; nil: no bound but the provider's own.
  package struct Quota: Sendable, Equatable {
    package var cpu: Double?
    /// GB.
    package var memory: Double?
    package var instances: Int?

    package init(cpu: Double? = nil, memory: Double? = nil, instances: Int? = nil) {
      self.cpu = cpu
      self.memory = memory
      self.instances = instances
    }
  }

  package var kind: Kind
  /// `aws.primary`.
  package var name: String
  /// The first is the default one. Never empty: a provider without regions has one of its kind's name.
  package var regions: [String]
  package var quotas: [String: Quota] = [:]
  /// What its kind asks for; see `keys(of:)`. All of it may be shown in logs: credentials come by the environment or the
  /// client's own files.
  package var settings: [String: String] = [:]
  package var lists: [String: [String]] = [:]
  /// Hosts that no client tells of (local, ssh), and prices where the client tells none: name to an hour's price.
  package var flavors: [Flavor] = []
  package var prices: [String: Double] = [:]

  package init(kind: Kind, name: String, regions: [String]) {
    self.kind = kind
    self.name = name
    self.regions = regions
  }

  /// How much of a host's time there is for tasks, with a minute for its start taken off; nil: it has no end.
  var secondsForTasks: Int32? {
    guard kind == .slurm, let time = settings["time"], let minutes = SlurmProvider.minutes(time) else {
      return nil
    }
    return Int32(clamping: Int64(max(0, minutes * 60 - 60)))
  }

  /// What a kind of provider is told, beside regions, quotas and prices.
  struct Keys {
    var required: [String] = []
    var optional: [String] = []
    /// Lists of words.
    var lists: [String] = []
  }

  static func keys(of kind: Kind) -> Keys {
    switch kind {
    case .local: Keys(optional: ["store"])
    case .ssh: Keys(optional: ["user", "identity_file", "folder"], lists: ["hosts", "options"])
    case .aws:
      // market: spot, on-demand or both.
      Keys(
        required: ["image"],
        optional: [
          "profile", "endpoint", "subnet", "key_name", "instance_profile", "disk_gb", "market",
          "spot_eviction",
        ],
        lists: ["security_groups", "families"])
    case .openstack:
      Keys(
        required: ["image", "network"], optional: ["cloud", "key_name", "endpoint"],
        lists: ["security_groups"])
    case .azure:
      Keys(
        required: ["resource_group", "image"],
        optional: [
          "subscription", "subnet", "admin_username", "ssh_key", "disk_gb", "market", "spot_eviction",
          "prices_url",
        ],
        lists: ["families"])
    case .gcp:
      Keys(
        required: ["project", "image_family", "image_project"],
        optional: [
          "endpoint", "network", "subnet", "service_account", "disk_gb", "market", "spot_eviction",
        ],
        lists: ["families"])
    case .slurm:
      Keys(
        optional: ["partition", "account", "qos", "time", "folder"], lists: ["options"])
    case .exec: Keys(required: ["program"])
    }
  }
}
