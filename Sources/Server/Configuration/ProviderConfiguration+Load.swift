import Scheduling

extension Configuration {
  /// `providers:` holds kinds, and each kind names of the operator's choice.
  static func providers(_ section: ConfigurationSection) throws(ConfigurationError) -> [ProviderConfiguration]
  {
    var providers: [ProviderConfiguration] = []
    for word in section.givenKeys {
      guard let kind = ProviderConfiguration.Kind(rawValue: word) else {
        let kinds = ProviderConfiguration.Kind.allCases.map(\.rawValue).joined(separator: ", ")
        throw section.error(word, "is no kind of provider; known: \(kinds)")
      }
      let named = try section.section(word)
      if named.givenKeys.isEmpty {
        throw section.error(word, "names no provider; add one below it, such as primary:")
      }
      for name in named.givenKeys {
        guard !name.isEmpty, name.utf8.allSatisfy(isNameLetter) else {
          throw named.error(name, "is no name for a provider; use lower-case letters, digits, - and _")
        }
        providers.append(try provider(kind, "\(word).\(name)", named.section(name)))
      }
    }
    return providers
  }

  private static func isNameLetter(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
      UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private static func provider(
    _ kind: ProviderConfiguration.Kind, _ name: String, _ section: ConfigurationSection
  ) throws(ConfigurationError) -> ProviderConfiguration {
    let keys = ProviderConfiguration.keys(of: kind)
    var known = ["regions"] + keys.required + keys.optional + keys.lists + ["quotas", "prices"]
    if kind.isToldFlavors {
      known.append("flavors")
    } else if section.givenKeys.contains("flavors") {
      throw section.error(
        "flavors",
        "is for local, ssh and slurm; \(kind.rawValue) says itself what it has: \(kind.choosesFlavorsBy)")
    }
    try section.refuseOthers(than: known)

    var provider = ProviderConfiguration(kind: kind, name: name, regions: try regions(of: kind, in: section))
    for key in keys.required + keys.optional {
      let text = try section.scalar(key)
      if text.isEmpty {
        guard let example = kind.examples[key], keys.required.contains(key) else { continue }
        throw section.error(
          key, "is missing; \(kind.rawValue) cannot make a host without it: add \(key): \(example)")
      }
      if let (wanted, isValid) = rule(for: key, of: kind), !isValid(text) {
        throw section.error(key, "must be \(wanted)")
      }
      provider.settings[key] = text
    }
    for key in keys.lists {
      var list: [String] = []
      if key == "options" {
        try section.list(key, &list, "words") { !$0.isEmpty }
      } else {
        try section.names(key, &list, "words")
      }
      if !list.isEmpty { provider.lists[key] = list }
    }
    if kind == .ssh, provider.lists["hosts"] == nil {
      throw section.error("hosts", "names no machine; add hosts: [ada, worker@babbage:2222]")
    }
    provider.quotas = try quotas(section.section("quotas"), regions: provider.regions)
    let prices = try section.section("prices")
    for flavor in prices.givenKeys { provider.prices[flavor] = try number(flavor, in: prices) }
    if kind.isToldFlavors {
      let flavors = try section.section("flavors")
      for name in flavors.givenKeys {
        let flavor = try flavor(name, of: provider, in: flavors)
        for region in provider.regions {
          provider.flavors.append(flavor)
          provider.flavors[provider.flavors.count - 1].region = region
        }
      }
    }
    try section.finish()
    return provider
  }

  private static func regions(
    of kind: ProviderConfiguration.Kind, in section: ConfigurationSection
  ) throws(ConfigurationError) -> [String] {
    var regions: [String] = []
    try section.names("regions", &regions, "names of regions, the default one first")
    if !regions.isEmpty { return regions }
    guard let example = kind.examples["regions"] else { return [kind.rawValue] }
    throw section.error(
      "regions", "names none; say in which regions to rent, the default one first: regions: [\(example)]")
  }

  private static func quotas(
    _ section: ConfigurationSection, regions: [String]
  ) throws(ConfigurationError) -> [String: ProviderConfiguration.Quota] {
    var quotas: [String: ProviderConfiguration.Quota] = [:]
    for region in section.givenKeys {
      guard regions.contains(region) else {
        throw section.error(region, "is none of its regions: \(regions.joined(separator: ", "))")
      }
      let given = try section.section(region)
      try given.refuseOthers(than: ["cpu", "memory", "instances"])
      var quota = ProviderConfiguration.Quota()
      quota.cpu = try number("cpu", in: given)
      quota.memory = try number("memory", in: given)
      if given.givenKeys.contains("instances") {
        var count = 0
        try given.integer("instances", &count, 0...1_000_000)
        quota.instances = count
      }
      quotas[region] = quota
    }
    return quotas
  }

  /// A configured flavor, without its region.
  private static func flavor(
    _ name: String, of provider: ProviderConfiguration, in section: ConfigurationSection
  ) throws(ConfigurationError) -> Flavor {
    let given = try section.section(name)
    try given.refuseOthers(than: ["cpu", "memory", "disk", "gpu", "gpu_count", "gpu_memory", "price"])
    func size(_ key: String) throws(ConfigurationError) -> Double {
      guard given.givenKeys.contains(key) else {
        throw given.error(
          key, "is missing; a flavor has both cpu and memory (GB), such as {cpu: 2, memory: 4}")
      }
      let size = try number(key, in: given) ?? 0
      guard size > 0 else { throw given.error(key, "must be a number above 0") }
      return size
    }
    var gpus = 0
    if given.givenKeys.contains("gpu_count") { try given.integer("gpu_count", &gpus, 0...1000) }
    var gpu = ""
    if given.givenKeys.contains("gpu") { try given.text("gpu", &gpu) }
    let flavor = Flavor(
      provider: provider.name, region: "", name: name, cpu: try size("cpu"), memory: try size("memory"),
      disk: try number("disk", in: given) ?? 0, gpu: gpu, gpuCount: gpus,
      gpuMemory: try number("gpu_memory", in: given) ?? 0,
      price: try number("price", in: given) ?? provider.prices[name] ?? 0)
    guard flavor.isSane else {
      throw section.error(
        name, "has a number that no host has; memory and disk are in GB, the price is an hour's")
    }
    return flavor
  }

  /// What a setting must be, where not every text will do.
  private static func rule(
    for key: String, of kind: ProviderConfiguration.Kind
  ) -> (wanted: String, isValid: (String) -> Bool)? {
    switch key {
    case "market": ("spot, on-demand or both", { ["spot", "on-demand", "both"].contains($0) })
    case "disk_gb": ("a whole number of GB, such as 50", { Int($0).map { $0 > 0 } ?? false })
    case "spot_eviction":
      ("a number of percent, from 0 to 100", { Double($0).map { (0...100).contains($0) } ?? false })
    case "time" where kind == .slurm:
      (
        "a time as Slurm writes it, such as 90 (minutes), 8:00:00 (hours) or 1-00:00:00 (a day)",
        { SlurmProvider.minutes($0) != nil || ["infinite", "unlimited"].contains($0.lowercased()) }
      )
    default: nil
    }
  }

  private static func number(
    _ key: String, in section: ConfigurationSection
  ) throws(ConfigurationError) -> Double? {
    guard section.givenKeys.contains(key) else { return nil }
    var value = 0.0
    try section.value(key, &value, "a number from 0 on") {
      Double($0).flatMap { $0.isFinite && $0 >= 0 ? $0 : nil }
    }
    return value
  }
}

extension ProviderConfiguration.Kind {
  /// Whether the configuration may say what flavors there are: no client does.
  fileprivate var isToldFlavors: Bool { self == .local || self == .ssh || self == .slurm }

  /// What to write instead of flavors.
  fileprivate var choosesFlavorsBy: String {
    switch self {
    case .openstack: "those below prices are used"
    case .exec: "its program lists them"
    default: "choose among them by families: [a, b]"
    }
  }

  /// What to write for a setting that is missing, `regions` among them where they must be said.
  fileprivate var examples: [String: String] {
    switch self {
    case .local, .ssh, .slurm: [:]
    case .aws:
      ["regions": "eu-west-1", "image": "resolve:ssm:/aws/service/debian/release/12/latest/amd64"]
    case .openstack: ["regions": "RegionOne", "image": "debian-12", "network": "private"]
    case .azure:
      ["regions": "westeurope", "resource_group": "scitq", "image": "Debian:debian-12:12-gen2:latest"]
    case .gcp:
      [
        "regions": "europe-west1", "project": "my-project", "image_family": "debian-12",
        "image_project": "debian-cloud",
      ]
    case .exec: ["program": "/opt/scitq/provider"]
    }
  }
}
