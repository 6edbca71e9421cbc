import Foundation
import Logging
import Scheduling
import Testing
import Transfer

@testable import ScitqServer

@Suite("The configuration")
struct ConfigurationTests {
  /// The error of a text that must have one.
  private func failure(_ text: String, _ environment: [String: String] = [:]) -> ConfigurationError? {
    do throws(ConfigurationError) {
      _ = try Configuration.parse(text, file: "scitq.yaml", environment: environment)
      return nil
    } catch {
      return error
    }
  }

  private static var root: URL {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
  }

  @Test("without a file, and with an empty one, everything has its default")
  func defaults() throws {
    #expect(try Configuration.load(path: nil, environment: [:]) == Configuration())
    for text in ["", "# nothing\n", "server:\n", "server: {}\nrclone:\n", "---\n"] {
      #expect(try Configuration.parse(text) == Configuration(), "\(text)")
    }
  }

  @Test("the example holds every key, and its values are the defaults")
  func example() throws {
    let path = Self.root.appending(path: "scitq.yaml.example").path
    #expect(try Configuration.load(path: path, environment: [:]) == Configuration())
    let text = try String(contentsOfFile: path, encoding: .utf8)
    #expect(Configuration.keys.count >= 20)
    for key in Configuration.keys {
      let name = key.split(separator: ".").last!
      #expect(
        text.split(separator: "\n").contains { $0.drop { $0 == " " || $0 == "#" }.hasPrefix("\(name):") },
        "scitq.yaml.example lacks \(key)")
    }
    // What is commented out parses, too.
    let uncommented = text.replacing("#  ", with: "  ").replacing("  # name:", with: "  name:")
      .replacing("  # certificate:", with: "  certificate:").replacing(
        "  # private_key:", with: "  private_key:"
      )
      .replacing("  # password:", with: "  password:").replacing("rclone: {}", with: "rclone:")
      .replacing("providers: {}", with: "providers:")
    let full = try Configuration.parse(
      uncommented,
      environment: ["SCITQ_ADMIN_PASSWORD": "p", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"])
    #expect(full.server.name == "queue.example.org" && full.admin.password == "p")
    #expect(Set(full.providers.map(\.kind)) == Set(ProviderConfiguration.Kind.allCases))
    #expect(full.providers.map(\.name).contains("aws.primary"))
    #expect(full.providers.first?.quotas["eu-west-1"]?.instances == 20)
    #expect(full.providers.first { $0.kind == .gcp }?.prices["n2-standard-8/spot"] == 0.1)
    #expect(full.rclone["s3"]?.settings["secret_access_key"] == "s")
    #expect(full.rclone["archive"]?.settings["type"] == "sftp" && full.rclone["archive"]?.isReadOnly == true)
    #expect(
      full.rclone["archive"]?.users == ["alice", "bob"]
        && full.rclone["archive"]?.checksums.rawValue == "require")
    #expect(full.rclone["archive"]?.settings.keys.contains("users") == false)
  }

  @Test("the page on the configuration holds every key")
  func documentation() throws {
    let page = try String(contentsOf: Self.root.appending(path: "docs/configuration.md"), encoding: .utf8)
    for key in Configuration.keys { #expect(page.contains("`\(key)`"), "docs/configuration.md lacks \(key)") }
  }

  @Test("the page on providers tells of every kind and of all it is told, and its examples are understood")
  func providersDocumentation() throws {
    let page = try String(contentsOf: Self.root.appending(path: "docs/providers.md"), encoding: .utf8)
    var sections: [String: Substring] = [:]
    for section in page.split(separator: "\n## ") {
      sections[String(section.prefix { $0.isLetter }).lowercased()] = section
    }
    for kind in ProviderConfiguration.Kind.allCases {
      let section = try #require(sections[kind.rawValue], "docs/providers.md lacks \(kind.rawValue)")
      let keys = ProviderConfiguration.keys(of: kind)
      // It is read, and nothing is done by it.
      for key in keys.required + keys.optional + keys.lists {
        #expect(section.contains("`\(key)`"), "docs/providers.md lacks \(key) of \(kind.rawValue)")
      }
    }
    let examples = page.split(separator: "```").filter { $0.hasPrefix("yaml\n") }.map { $0.dropFirst(5) }
    let kinds = try examples.flatMap { try Configuration.parse(String($0)).providers.map(\.kind) }
    #expect(Set(kinds) == Set(ProviderConfiguration.Kind.allCases))
  }

  @Test("every value is taken over")
  func values() throws {
    let text = """
      server: {listen: "[::1]:0", data_dir: /srv/scitq, name: q.example.org, log_level: debug}
      admin: {username: root, password: 12345, email: a@b.c}
      tokens: {user_ttl: 2h}
      workers:
        offline_timeout: 5m
        beat_interval: 500ms
        kill_grace: 0
        max_losses: 2
        allowed_container_options: [--user, --gpus]
      logs: {max_log_bytes: 500MB, compress: false}
      limits: {max_tasks_per_call: 10_000, max_connections: 7}
      rclone:
        my-s3: {type: s3, chunk_size: 64, no_check_bucket: true, secret: "a$$b"}
      """
    let configuration = try Configuration.parse(text)
    #expect(configuration.server.listen == ListenAddress(host: "::1", port: 0))
    #expect(configuration.server.dataDir == "/srv/scitq" && configuration.server.name == "q.example.org")
    #expect(configuration.server.logLevel == .debug)
    #expect(configuration.admin.username == "root" && configuration.admin.password == "12345")
    #expect(configuration.tokens.userTTL == .seconds(7200))
    #expect(configuration.workers.offlineTimeout == .seconds(300))
    #expect(configuration.workers.beatInterval == .milliseconds(500))
    #expect(configuration.workers.killGrace == .zero && configuration.workers.maxLosses == 2)
    #expect(configuration.workers.allowedContainerOptions == ["--user", "--gpus"])
    #expect(configuration.logs.maxLogBytes == 500_000_000 && !configuration.logs.compress)
    #expect(configuration.limits.maxTasksPerCall == 10_000 && configuration.limits.maxConnections == 7)
    #expect(
      configuration.rclone == [
        "my-s3": Remote(settings: [
          "type": "s3", "chunk_size": "64", "no_check_bucket": "true", "secret": "a$b",
        ])
      ])
  }

  @Test("an unknown key is refused with its place and the nearest known one")
  func unknownKeys() throws {
    let misspelled = try #require(failure("server:\n  lisen: a:1\n"))
    #expect(misspelled.key == "server.lisen" && misspelled.line == 2)
    #expect(misspelled.description == "scitq.yaml:2: server.lisen: is no known key; did you mean listen?")
    #expect(failure("sever:\n  listen: a:1\n")?.message.contains("did you mean server?") == true)
    #expect(failure("colour: red\n")?.message.contains("known here: server, admin") == true)
    #expect(
      failure("logs:\n  max_log_bytes: 1GiB\n  max_log_bytes: 2GiB\n")?.message.contains("twice") == true)
  }

  @Test(
    "a value of the wrong type is refused with a sentence",
    arguments: [
      ("server: 5", "server", "must be a section"),
      ("server: [a]", "server", "must be a section"),
      ("server: {listen: 50051}", "server.listen", "host:port"),
      ("server: {listen: 'a:70000'}", "server.listen", "host:port"),
      ("server: {listen: '::1:5'}", "server.listen", "host:port"),
      ("server: {listen: {host: a}}", "server.listen", "not a section"),
      ("server: {data_dir: }", "server.data_dir", "has no value"),
      ("server: {data_dir: true}", "server.data_dir", "must be text"),
      ("server: {data_dir: ''}", "server.data_dir", "is empty"),
      ("server: {log_level: verbose}", "server.log_level", "one of trace, debug"),
      ("server: {certificate: a.pem}", "server.certificate", "private_key belongs to it"),
      ("tokens: {user_ttl: 7 days}", "tokens.user_ttl", "such as 30s, 5m, 2h or 7d"),
      ("tokens: {user_ttl: -5s}", "tokens.user_ttl", "such as"),
      ("workers: {max_losses: '5'}", "workers.max_losses", "without quotes"),
      ("workers: {max_losses: 0}", "workers.max_losses", "within 1…1000"),
      ("workers: {max_losses: 1.5}", "workers.max_losses", "whole number"),
      ("workers: {offline_timeout: 6s}", "workers.offline_timeout", "twice beat_interval"),
      ("workers: {allowed_container_options: --user}", "workers.allowed_container_options", "must be a list"),
      (
        "workers: {allowed_container_options: [user]}", "workers.allowed_container_options",
        "\"user\" is none"
      ),
      ("logs: {compress: yes}", "logs.compress", "true or false"),
      ("logs: {max_log_bytes: 1G}", "logs.max_log_bytes", "1GiB or 500MB"),
      ("logs: {max_log_bytes: 1KB}", "logs.max_log_bytes", "at least 64KiB"),
      ("logs: {max_log_bytes: 99999999999TB}", "logs.max_log_bytes", "a size"),
      ("server: {certificat: a.pem, private_key: b}", "server.certificat", "did you mean certificate?"),
      ("public_archive: {reprot: a}", "public_archive.reprot", "did you mean report?"),
      ("fleet: {idle_timeout: 0}", "fleet.idle_timeout", "at least 1s, such as"),
      ("workers: {beat_interval: 1ms}", "workers.beat_interval", "at least 100ms, such as"),
      ("fleet: {server_address: 'http://foo:1'}", "fleet.server_address", "HOST or HOST:PORT"),
      ("fleet: {server_address: 'foo/bar'}", "fleet.server_address", "HOST or HOST:PORT"),
      ("fleet: {server_address: 'foo:'}", "fleet.server_address", "HOST or HOST:PORT"),
      ("fleet: {server_address: 'foo:70000'}", "fleet.server_address", "HOST or HOST:PORT"),
      ("fleet: {server_address: '[::1]'}", "fleet.server_address", "HOST or HOST:PORT"),
      ("fleet: {worker_binary: /none}\nproviders: {local: {a: {}}}", "fleet.worker_binary", "does not exist"),
      ("fleet: {worker_binary: /tmp}\nproviders: {local: {a: {}}}", "fleet.worker_binary", "chmod +x"),
      ("fleet: {worker_binary: /etc/passwd}\nproviders: {local: {a: {}}}", "fleet.worker_binary", "chmod +x"),
      ("rclone: {s3: {provider: AWS}}", "rclone.s3", "has no type"),
      ("rclone: {ftp: {type: ftp}}", "rclone.ftp", "scheme of its own"),
      ("rclone: {s3: {type: s3, users: alice}}", "rclone.s3.users", "must be a list"),
      ("rclone: {s3: {type: s3, checksums: never}}", "rclone.s3.checksums", "require, record or off"),
      ("rclone: {'s 3': {type: s3}}", "rclone.s 3", "no name for a remote"),
      ("rclone: {s3: {type: s3, more: [a]}}", "rclone.s3.more", "not a list"),
      ("rclone: {s3: s3}", "rclone.s3", "must be a section"),
      ("- a", "", "must hold sections"),
      ("server: {listen: a:1", "", "no valid YAML"),
    ])
  func wrongValues(text: String, key: String, part: String) throws {
    let error = try #require(failure(text), "\(text) was taken")
    #expect(error.key == key)
    #expect(error.description.contains(part), "\(error)")
  }

  /// Each has the key that is wrong, or the section that lacks one, in its second line.
  @Test(
    "what a provider is wrongly told is refused, with its line and what would be right",
    arguments: [
      ("providers:\n  awss: {a: {}}", "providers.awss", "known: local, ssh, aws,"),
      ("providers:\n  aws: {}", "providers.aws", "names no provider"),
      ("providers: {local:\n  {A: {}}}", "providers.local.A", "lower-case"),
      ("providers: {exec: {a:\n  {programme: /x}}}", "providers.exec.a.programme", "did you mean program?"),
      ("providers: {exec:\n  {a: {}}}", "providers.exec.a.program", "add program: /opt/scitq/provider"),
      (
        "providers: {aws: {a: {image: b,\n  region: [c]}}}", "providers.aws.a.region", "did you mean regions?"
      ),
      ("providers: {aws:\n  {a: {image: b}}}", "providers.aws.a.regions", "regions: [eu-west-1]"),
      ("providers: {gcp:\n  {a: {project: b}}}", "providers.gcp.a.regions", "regions: [europe-west1]"),
      ("providers: {azure:\n  {a: {image: b}}}", "providers.azure.a.regions", "regions: [westeurope]"),
      ("providers: {openstack:\n  {a: }}", "providers.openstack.a.regions", "regions: [RegionOne]"),
      ("providers: {aws: {a:\n  {regions: []}}}", "providers.aws.a.regions", "names none"),
      ("providers: {aws: {a:\n  {regions: [b, b]}}}", "providers.aws.a.regions", "names b twice"),
      ("providers: {aws:\n  {a: {regions: [b]}}}", "providers.aws.a.image", "add image: resolve:ssm:"),
      ("providers: {gcp:\n  {a: {regions: [b]}}}", "providers.gcp.a.project", "add project: my-project"),
      (
        "providers: {azure:\n  {a: {regions: [b]}}}", "providers.azure.a.resource_group",
        "add resource_group: scitq"
      ),
      (
        "providers: {openstack:\n  {a: {regions: [b], image: c}}}", "providers.openstack.a.network",
        "add network: private"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c,\n  market: sport}}}", "providers.aws.a.market",
        "must be spot, on-demand or both"
      ),
      (
        "providers: {gcp: {a: {regions: [b], project: c, image_family: d, image_project: e,\n  market: Spot}}}",
        "providers.gcp.a.market", "must be spot, on-demand or both"
      ),
      (
        "providers: {azure: {a: {regions: [b], resource_group: c, image: d,\n  market: true}}}",
        "providers.azure.a.market", "must be spot, on-demand or both"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c,\n  disk_gb: 10G}}}", "providers.aws.a.disk_gb",
        "whole number of GB"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c,\n  spot_eviction: 5%}}}",
        "providers.aws.a.spot_eviction",
        "from 0 to 100"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c, quotas: {\n  d: {cpu: 1}}}}}",
        "providers.aws.a.quotas.d", "none of its regions: b"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c, quotas: {b:\n  {cpus: 3}}}}}",
        "providers.aws.a.quotas.b.cpus", "did you mean cpu?"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c, quotas: {b:\n  {size: 3}}}}}",
        "providers.aws.a.quotas.b.size", "known here: cpu, memory, instances"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c, prices: {\n  d: -1}}}}", "providers.aws.a.prices.d",
        "a number from 0 on"
      ),
      (
        "providers: {aws: {a: {regions: [b], image: c,\n  flavors: {d: {}}}}}", "providers.aws.a.flavors",
        "families: [a, b]"
      ),
      ("providers: {exec: {a: {program: b,\n  flavors: {}}}}", "providers.exec.a.flavors", "its program"),
      ("providers: {ssh:\n  {a: {}}}", "providers.ssh.a.hosts", "add hosts: [ada,"),
      ("providers: {ssh: {a:\n  {hosts: []}}}", "providers.ssh.a.hosts", "add hosts: [ada,"),
      ("providers: {ssh: {a:\n  {hosts: [b, c, b]}}}", "providers.ssh.a.hosts", "names b twice"),
      ("providers: {slurm: {a:\n  {time: never}}}", "providers.slurm.a.time", "or 1-00:00:00 (a day)"),
      ("providers: {slurm: {a:\n  {time: 8h}}}", "providers.slurm.a.time", "or 1-00:00:00 (a day)"),
      (
        "providers: {local: {a: {flavors: {b:\n  {cpu: 1, memory: 2, prise: 1}}}}}",
        "providers.local.a.flavors.b.prise", "did you mean price?"
      ),
      (
        "providers: {local: {a: {flavors: {b:\n  {cpu: 1, memory: 2, cost_per_hour: 1}}}}}",
        "providers.local.a.flavors.b.cost_per_hour",
        "known here: cpu, memory, disk, gpu, gpu_count, gpu_memory, price"
      ),
      (
        "providers: {local: {a: {flavors:\n  {b: {memory: 2}}}}}", "providers.local.a.flavors.b.cpu",
        "{cpu: 2, memory: 4}"
      ),
      (
        "providers: {ssh: {a: {hosts: [c], flavors:\n  {b: {cpu: 2}}}}}", "providers.ssh.a.flavors.b.memory",
        "{cpu: 2, memory: 4}"
      ),
      (
        "providers: {slurm: {a: {flavors: {b: {memory: 2,\n  cpu: 0}}}}}", "providers.slurm.a.flavors.b.cpu",
        "above 0"
      ),
      (
        "providers: {local: {a: {flavors:\n  {b: {cpu: 1, memory: 1e9}}}}}", "providers.local.a.flavors.b",
        "that no host has"
      ),
    ])
  func wrongProviders(text: String, key: String, part: String) throws {
    let error = try #require(failure(text), "\(text) was taken")
    #expect(error.key == key && error.line == 2, "\(error)")
    #expect(error.description.contains(part), "\(error)")
    #expect(!error.description.contains("\n") && !error.description.hasSuffix("."), "\(error)")
  }

  @Test("what is right of a provider is taken over")
  func providers() throws {
    let configuration = try Configuration.parse(
      """
      fleet: {server_address: "[2001:db8::1]:50051", worker_binary: /bin/sh}
      providers:
        local: {here: {regions: [a, b], prices: {two: 0.5}, flavors: {one: {cpu: 1, memory: 2}, two: {cpu: 2, memory: 4}}}}
        slurm: {some: {time: 8:00:00}, other: {time: UNLIMITED, options: [--exclusive, --exclusive]}}
        aws: {a: {regions: [r], image: i, market: both, disk_gb: 50, spot_eviction: 7.5, quotas: {r: {instances: 0}}}}
      """)
    #expect(configuration.fleet.serverAddress == "[2001:db8::1]:50051")
    let local = try #require(configuration.providers.first)
    #expect(local.flavors.map(\.name) == ["one", "one", "two", "two"])
    #expect(local.flavors.map(\.region) == ["a", "b", "a", "b"])
    // Without a price it is free; one of the list counts where the flavor has none of its own.
    #expect(local.flavors.map(\.price) == [0, 0, 0.5, 0.5])
    #expect(configuration.providers.dropFirst().map { $0.settings["time"] } == ["8:00:00", "UNLIMITED", nil])
    #expect(configuration.providers.last?.settings["disk_gb"] == "50")
    #expect(configuration.providers.last?.quotas["r"]?.instances == 0)
    for address in ["queue", "queue.example.org", "10.0.0.1:1", "a_b-c:65535"] {
      let parsed = try Configuration.parse("fleet: {server_address: '\(address)'}")
      #expect(parsed.fleet.serverAddress == address)
    }
    // Nobody is given it.
    #expect(failure("fleet: {worker_binary: /none}") == nil)
  }

  @Test("variables come from the environment; a missing one is named, with its key")
  func variables() throws {
    let configuration = try Configuration.parse(
      """
      server: {listen: "${HOST}:${PORT:-50051}", data_dir: "${EMPTY:-/srv}$$"}
      workers: {max_losses: "${LOSSES}"}
      logs: {compress: "${COMPRESS:-false}"}
      admin: {password: "${EVIL}"}
      """,
      environment: ["HOST": "h", "EMPTY": "", "LOSSES": "3", "EVIL": "x}\nserver: {listen: ${HOST}"])
    #expect(configuration.server.listen == ListenAddress(host: "h", port: 50051))
    #expect(configuration.server.dataDir == "/srv$")
    #expect(configuration.workers.maxLosses == 3 && !configuration.logs.compress)
    #expect(configuration.admin.password == "x}\nserver: {listen: ${HOST}")
    let missing = try #require(failure("admin:\n  # secret\n  password: ${NOT_SET}\n"))
    #expect(missing.line == 3 && missing.key == "admin.password" && missing.message.contains("NOT_SET"))
    #expect(failure("admin: {password: a$b}")?.message.contains("$$") == true)
    #expect(failure("admin: {password: '${'}")?.message.contains("$$") == true)
    #expect(failure("admin: {password: '${1A}'}")?.message.contains("name of a variable") == true)
  }

  @Test("an error never repeats a value that may be a secret")
  func secrets() {
    for text in [
      "admin: {password: [hunter2]}", "rclone: {s3: {type: s3, secret: {hunter2: 1}}}",
      "admin: {password: hunter2$}", "admin:\n  password: \"hunter2\n", "admin: {password: 'hunter2' x}",
      "rclone: {s3: {secret_access_key: hunter2}}",
    ] {
      let error = failure(text)
      #expect(error != nil && error?.description.contains("hunter2") == false, "\(String(describing: error))")
    }
  }

  @Test("a file that is not there is named")
  func missingFile() {
    #expect {
      try Configuration.load(path: "/nonexistent/scitq.yaml", environment: [:])
    } throws: { error in
      "\(error)".contains("/nonexistent/scitq.yaml") && "\(error)".contains("does not exist")
    }
  }

  @Test("whatever bytes come, the answer is a configuration or a sentence", arguments: 1...40)
  func fuzz(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let pieces =
      Configuration.keys.flatMap { $0.split(separator: ".").map(String.init) }
      + [
        ":", ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", "'", "\"", "&a ", "*a ", "|", ">",
        "!!int ", "#", "${", "}",
        "$$", "~", "true", "1e9", "0x7f", "9223372036854775808", "-1", "1GiB", "60s", "\0", "é", "\u{feff}",
        "<<: ", "? ", "%", "---", "...",
      ]
    for _ in 0..<200 {
      let text = (0..<Int.random(in: 1...30, using: &random)).map { _ in pieces.randomElement(using: &random)!
      }.joined()
      if let error = failure(text, ["A": "1"]) {
        #expect(!error.message.isEmpty, "seed \(seed)")
      }
    }
  }

  @Test("sizes and durations", arguments: [("0", 0), ("1KiB", 1024), ("1 kB", 1000), ("2TiB", 2 << 40)])
  func sizes(text: String, bytes: Int64) {
    #expect(ByteSize.parse(text) == bytes)
    #expect(DurationText.parse("1d") == .seconds(86_400) && DurationText.parse("d") == nil)
    #expect(DurationText.parse("99999999999") == nil && DurationText.parse("1w") == nil)
    #expect(
      DurationText.format(.seconds(90)) == "90s" && DurationText.format(.milliseconds(1500)) == "1500ms")
  }
}
