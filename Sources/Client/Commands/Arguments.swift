import ArgumentParser

/// What is done to the arguments before they are parsed.
enum Arguments {
  /// `-help` becomes `--help`; flags for every command that stand before the object or the action move behind them; an
  /// object or action that does not exist is refused with the nearest that does.
  static func normalized(_ arguments: [String]) throws -> [String] {
    let arguments = joiningNegative(spellingHelp(arguments))
    var words: [String] = []
    var moved: [String] = []
    var node: any ParsableCommand.Type = Scitq.self
    var position = 0
    while position < arguments.count, !node.configuration.subcommands.isEmpty {
      let argument = arguments[position]
      if argument.hasPrefix("-") {
        guard let count = globalLength(argument) else { break }
        moved += arguments[position..<min(position + count, arguments.count)]
        position += count
        continue
      }
      // `help` is an action that the parser adds itself.
      if argument == "help" { break }
      node = try subcommand(argument, of: node, path: words)
      words.append(argument)
      position += 1
    }
    if node is any HasOwnTimeout.Type { moved = moved.map(sparingTimeout) }
    return words + moved + arguments[min(position, arguments.count)...]
  }

  /// Before the object or the action `--timeout` is always that for the server.
  private static func sparingTimeout(_ argument: String) -> String {
    let own = "--timeout"
    return argument == own || argument.hasPrefix(own + "=")
      ? "--server-timeout" + argument.dropFirst(own.count) : argument
  }

  private static func spellingHelp(_ arguments: [String]) -> [String] {
    let end = arguments.firstIndex(of: "--") ?? arguments.count
    return arguments[..<end].map { $0 == "-help" ? "--help" : $0 } + arguments[end...]
  }

  /// `--limit -1` becomes `--limit=-1`: a number is a value and no flag, and is refused as what it is.
  private static func joiningNegative(_ arguments: [String]) -> [String] {
    let end = arguments.firstIndex(of: "--") ?? arguments.count
    var joined: [String] = []
    for argument in arguments[..<end] {
      if let flag = joined.last, flag.hasPrefix("--"), flag.count > 2, !flag.contains("="),
        argument.hasPrefix("-"), argument.dropFirst().first?.isNumber == true, Double(argument) != nil
      {
        joined[joined.count - 1] = "\(flag)=\(argument)"
      } else {
        joined.append(argument)
      }
    }
    return joined + arguments[end...]
  }

  /// How many arguments a flag for every command takes with its value; nil for another.
  private static func globalLength(_ argument: String) -> Int? {
    if ["--json", "--quiet"].contains(argument) { return 1 }
    let valued = ["--server", "--token", "--timeout"]
    if valued.contains(argument) || argument == "-s" { return 2 }
    return valued.contains { argument.hasPrefix($0 + "=") } ? 1 : nil
  }

  private static func subcommand(
    _ name: String, of node: any ParsableCommand.Type, path: [String]
  ) throws -> any ParsableCommand.Type {
    let subcommands = node.configuration.subcommands
    if let found = subcommands.first(where: { $0.configuration.commandName == name }) { return found }
    let names = subcommands.compactMap { $0.configuration.commandName }
    let line = (["scitq"] + path).joined(separator: " ")
    let hint = Nearest.sentence(to: name, among: names) ?? "it has: \(names.joined(separator: ", "))"
    throw ValidationError("'\(line)' has no '\(Escaping.printable(name))'; \(hint)")
  }
}
