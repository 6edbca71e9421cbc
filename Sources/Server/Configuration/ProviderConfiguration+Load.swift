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
    var regions: [String] = []
    try section.list("regions", &regions, "names of regions, the default one first") { !$0.isEmpty }
    if regions.isEmpty {
      switch kind {
      case .aws, .azure, .gcp, .openstack:
        throw section.error(
          "regions", "is missing; name the regions to rent in, such as regions: [eu-west-1]")
      case .local, .ssh, .slurm, .exec: regions = [kind.rawValue]
      }
    }
    var provider = ProviderConfiguration(kind: kind, name: name, regions: regions)
    let keys = ProviderConfiguration.keys(of: kind)
    for key in keys.required + keys.optional {
      let text = try section.scalar(key)
      if !text.isEmpty {
        provider.settings[key] = text
      } else if keys.required.contains(key) {
        throw section.error(key, "is missing; \(kind.rawValue) cannot make a host without it")
      }
    }
    for key in keys.lists {
      var list: [String] = []
      try section.list(key, &list, "words") { !$0.isEmpty }
      if !list.isEmpty { provider.lists[key] = list }
    }
    let quotas = try section.section("quotas")
    for region in quotas.givenKeys {
      guard regions.contains(region) else {
        throw quotas.error(region, "is none of its regions: \(regions.joined(separator: ", "))")
      }
      let given = try quotas.section(region)
      var quota = ProviderConfiguration.Quota()
      quota.cpu = try number("cpu", in: given)
      quota.memory = try number("memory", in: given)
      if given.givenKeys.contains("instances") {
        var count = 0
        try given.integer("instances", &count, 0...1_000_000)
        quota.instances = count
      }
      try given.finish()
      provider.quotas[region] = quota
    }
    let prices = try section.section("prices")
    for flavor in prices.givenKeys { provider.prices[flavor] = try number(flavor, in: prices) }
    let flavors = try section.section("flavors")
    for flavor in flavors.givenKeys {
      let given = try flavors.section(flavor)
      for region in regions {
        var gpus = 0
        if given.givenKeys.contains("gpu_count") { try given.integer("gpu_count", &gpus, 0...1000) }
        var gpu = ""
        if given.givenKeys.contains("gpu") { try given.text("gpu", &gpu) }
        provider.flavors.append(
          Flavor(
            provider: name, region: region, name: flavor, cpu: try number("cpu", in: given) ?? 1,
            memory: try number("memory", in: given) ?? 1, disk: try number("disk", in: given) ?? 0, gpu: gpu,
            gpuCount: gpus, gpuMemory: try number("gpu_memory", in: given) ?? 0,
            price: try number("price", in: given) ?? 0))
      }
      try given.finish()
    }
    try section.finish()
    return provider
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
