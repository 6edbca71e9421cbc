import Glibc
import ScitqProtocol
import SystemPackage

/// The arguments that create one attempt's container. No value of an environment variable is among them.
struct ContainerCall {
  private(set) var arguments: [String]
  /// Handed to the program on its standard input, and by it to the container.
  private(set) var environmentFile = ""
  /// Variables whose values no line of that file can hold: they travel in the program's own environment.
  private(set) var environment: [String: String] = [:]
  let hasScript: Bool

  init(_ launch: Launch, name: String, storeID: String, podman: Bool) throws(ExecutionFailure) {
    let line = try CommandLine(launch)
    hasScript = !line.shell.isEmpty
    guard !launch.image.isEmpty, !launch.image.hasPrefix("-") else {
      throw ExecutionFailure(
        .refused, "task \(launch.attempt.task) names no image that could be run: '\(launch.image)'")
    }
    var words = ["create", "--name", name, "--init", "--pull", "never"]
    for (key, value) in [
      ("store", storeID), ("task", "\(launch.attempt.task)"), ("assignment", "\(launch.attempt.assignment)"),
    ] {
      words += ["--label", "scitq.\(key)=\(value)"]
    }
    // These drivers keep bytes as they are; docker's json-file replaces what is not UTF-8. Nothing is rotated away.
    words +=
      podman
      ? ["--log-driver", "k8s-file"]
      : [
        "--log-driver", "local", "--log-opt", "max-size=1000000g", "--log-opt", "max-file=1", "--log-opt",
        "compress=false",
      ]
    words += ["--security-opt", "no-new-privileges"]
    let folders = launch.folders
    for (source, target, writable) in [
      (folders.input, "/input", true), (folders.output, "/output", true), (folders.temp, "/tmp", true),
      (folders.resource, "/resource", false), (folders.scripts, "/scripts", false),
    ] {
      words += ["--mount", Self.mount(source, target, writable: writable)]
    }
    let needs = launch.needs
    if needs.cpu > 0 {
      // More than the host has is refused by engines and would limit nothing.
      let cpus = min(needs.cpu, Double(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
      words += ["--cpus", String(max(cpus, 0.01))]
    }
    if needs.memoryBytes > 0 {
      words += ["--memory", "\(needs.memoryBytes)b", "--memory-swap", "\(needs.memoryBytes)b"]
    }
    if needs.gpu > 0 { words += ["--gpus", "\(needs.gpu)"] }

    var byName: [String] = []
    for (variable, value) in launch.environment.sorted(by: { $0.key < $1.key }) {
      // The file's lines end at line breaks and are read up to 64 KiB; its names begin at the first non-blank.
      let plain = !value.unicodeScalars.contains { $0 == "\n" || $0 == "\r" } && value.utf8.count < 32 << 10
      let plainName =
        !variable.hasPrefix("#") && !variable.unicodeScalars.contains { $0.properties.isWhitespace }
      guard plainName else {
        throw ExecutionFailure(
          .refused, "the environment variable '\(variable)' has a name that containers cannot have")
      }
      if plain {
        environmentFile += "\(variable)=\(value)\n"
      } else if Self.steersTheProgram(variable) {
        throw ExecutionFailure(
          .refused,
          "the environment variable \(variable) has a value with line breaks, or of over 32 KiB, which this one cannot have"
        )
      } else {
        environment[variable] = value
        byName += ["--env", variable]
      }
    }
    if !environmentFile.isEmpty { words += ["--env-file", "/dev/stdin"] }
    words += byName
    words += launch.options
    if hasScript {
      words += ["--entrypoint", line.shell[0], launch.image] + line.shell.dropFirst()
      words.append("/scripts/\(CommandLine.scriptName)")
    } else {
      words.append(launch.image)
      words += line.words
    }
    arguments = words
  }

  /// One field of a comma-separated record, quoted where it must be.
  private static func mount(_ source: FilePath, _ target: String, writable: Bool) -> String {
    var field = "source=\(source.string)"
    if field.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) {
      field = "\"\(field.replacing("\"", with: "\"\""))\""
    }
    return "type=bind,\(field),target=\(target)\(writable ? "" : ",readonly")"
  }

  private static func steersTheProgram(_ variable: String) -> Bool {
    let prefixes = [
      "DOCKER", "LD_", "GO", "XDG_", "SSH_", "SSL_", "CONTAINER", "REGISTRY", "PODMAN", "OTEL", "LC_",
    ]
    let names: Set = [
      "PATH", "HOME", "LANG", "USER", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
      "https_proxy",
      "no_proxy", "ALL_PROXY", "all_proxy",
    ]
    return names.contains(variable) || prefixes.contains { variable.hasPrefix($0) }
  }
}
