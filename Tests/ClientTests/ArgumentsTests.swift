import ArgumentParser
import ScitqProtocol
import Testing

@testable import ScitqClient

@Suite("The command line")
struct ArgumentsTests {
  private func parsed<C>(_ type: C.Type, _ arguments: [String]) async throws -> C {
    let command = try await CommandLineClient.parse(arguments)
    return try #require(command as? C, "\(Swift.type(of: command))")
  }

  /// How the command line ends that does not get as far as the server.
  private func end(_ arguments: [String]) async -> CommandLineClient.End? {
    do {
      var command = try await CommandLineClient.parse(arguments)
      if let create = command as? TaskCreate { try create.check() }
      // Help, and an object without an action, need no server.
      if !(command is any ClientCommand) {
        if var group = command as? any AsyncParsableCommand {
          try await group.run()
        } else {
          try command.run()
        }
      }
      return nil
    } catch {
      return CommandLineClient.End(error)
    }
  }

  @Test("task create takes every flag")
  func create() async throws {
    let command = try await parsed(
      TaskCreate.self,
      [
        "task", "create", "--container", "alpine", "--command", "echo", "--shell", "sh", "--input",
        "s3://b/a", "--input",
        "s3://b/*.gz", "--resource", "s3://b/r.tgz|untar", "--output", "s3://b/o/", "--dependency", "1",
        "--dependency",
        "2,3", "--name", "n", "--retry", "3", "--priority", "-4", "--cpu", "0.5", "--mem", "64", "--disk",
        "100", "--gpu",
        "1", "--accept-failure", "--on-dependency-failure", "cancel", "--download-timeout", "15m",
        "--run-timeout", "2h",
        "--upload-timeout", "90", "--env", "A=b", "--env", "C=d=e", "--container-option", "--shm-size=2g",
        "--weight",
        "0.25", "--wait", "--json", "--server", "example.org:1234", "--token", "t", "--timeout", "5s",
      ])
    let task = try command.flags.draft.newTask()
    #expect(task.spec.container == "alpine")
    #expect(task.spec.command == "echo")
    #expect(task.spec.shell == "sh")
    #expect(task.spec.inputs == ["s3://b/a", "s3://b/*.gz"])
    #expect(task.spec.resources == ["s3://b/r.tgz|untar"])
    #expect(task.spec.output == "s3://b/o/")
    #expect(task.dependencies == [1, 2, 3])
    #expect(task.name == "n")
    #expect(task.retry == 3)
    #expect(task.priority == -4)
    #expect(task.spec.needs.cpu == 0.5)
    #expect(task.spec.needs.memoryBytes == 64 << 30)
    #expect(task.spec.needs.diskBytes == 100 << 30)
    #expect(task.spec.needs.gpu == 1)
    #expect(task.acceptFailure)
    #expect(task.onDependencyFailure == .cancel)
    #expect(task.spec.downloadTimeoutMs == 900_000)
    #expect(task.spec.runTimeoutMs == 7_200_000)
    #expect(task.spec.uploadTimeoutMs == 90_000)
    #expect(task.spec.env == ["A": "b", "C": "d=e"])
    #expect(task.spec.containerOptions == ["--shm-size=2g"])
    #expect(task.weight == 0.25)
    #expect(command.wait && !command.follow)
    #expect(command.globals.json && !command.globals.quiet)
    #expect(command.globals.server == ServerAddress(host: "example.org", port: 1234))
    #expect(command.globals.token == "t")
    #expect(command.globals.timeout == .seconds(5))
  }

  @Test("task list takes the contract's filters, and 20 tasks by default")
  func list() async throws {
    let plain = try await parsed(TaskList.self, ["task", "list"])
    #expect(plain.limit == 20 && plain.offset == 0 && plain.filter == WireTaskFilter())
    let command = try await parsed(
      TaskList.self,
      [
        "task", "list", "--limit", "5", "--offset", "10", "--status", "RU", "--status", "failed",
        "--worker-id", "1",
        "--step-id", "2", "--workflow-id", "3", "--command", "a%b", "--show-hidden",
      ])
    #expect(command.limit == 5 && command.offset == 10)
    var filter = WireTaskFilter()
    filter.statuses = "RUF"
    filter.workerID = 1
    filter.stepID = 2
    filter.workflowID = 3
    filter.command = "a%b"
    filter.showHidden = true
    #expect(command.filter == filter)
  }

  @Test("the other task actions take their flags")
  func tasks() async throws {
    #expect(try await parsed(TaskCommand.Show.self, ["task", "show", "--id", "12"]).id.id == 12)
    let output = try await parsed(
      TaskOutput.self, ["task", "output", "--id", "12", "--stderr", "--follow", "--tail", "20"])
    #expect(output.id.id == 12 && output.stderr && !output.stdout && output.follow && output.tail == 20)
    let retry = try await parsed(
      TaskCommand.Retry.self, ["task", "retry", "--id", "12", "--retry", "3", "--force"])
    #expect(retry.id.id == 12 && retry.retry == 3 && retry.force)
    let cancel = try await parsed(TaskCommand.Cancel.self, ["task", "cancel", "--id", "1", "--id", "2,3"])
    #expect(cancel.tasks.references.joined().map(\.id) == [1, 2, 3])
    #expect(
      try await parsed(TaskCommand.Wait.self, ["task", "wait", "--id", "1"]).references.joined().map(\.id)
        == [1])
    #expect(try await parsed(TaskCommand.Explain.self, ["task", "explain", "--id", "1"]).id.id == 1)
  }

  @Test("workers, users, files, login, cert and status take their flags")
  func others() async throws {
    _ = try await parsed(WorkerCommand.List.self, ["worker", "list", "--quiet"])
    #expect(
      try await parsed(WorkerCommand.Delete.self, ["worker", "delete", "--worker-id", "3"]).workerIDs == [[3]]
    )
    let stats = try await parsed(
      WorkerCommand.Stats.self, ["worker", "stats", "--worker-id", "12", "--worker-id", "13"])
    #expect(stats.workerIDs == [[12], [13]])
    _ = try await parsed(UserCommand.List.self, ["user", "list"])
    let create = try await parsed(
      UserCommand.Create.self,
      ["user", "create", "--username", "alice", "--email", "a@b.c", "--password", "S3cure!", "--admin"])
    #expect(
      create.username == "alice" && create.email == "a@b.c" && create.password == "S3cure!" && create.admin)
    #expect(
      try await parsed(UserCommand.Update.self, ["user", "update", "--id", "1", "--no-admin"]).admin == false)
    #expect(
      try await parsed(UserCommand.Update.self, ["user", "update", "--id", "1", "--admin"]).admin == true)
    let update = try await parsed(
      UserCommand.Update.self, ["user", "update", "--id", "1", "--email", "x", "--username", "y"])
    #expect(update.admin == nil && update.email == "x" && update.username == "y")
    #expect(try await parsed(UserCommand.Delete.self, ["user", "delete", "--id", "1"]).id == 1)
    let change = try await parsed(
      UserCommand.ChangePassword.self, ["user", "change-password", "--username", "a"])
    #expect(change.username == "a" && !change.passwordStdin)
    #expect(try await parsed(FileCommand.List.self, ["file", "list", "s3://b/"]).src == "s3://b/")
    let copy = try await parsed(FileCommand.Copy.self, ["file", "copy", "a", "s3://b/", "--dry-run"])
    #expect(copy.src == "a" && copy.dst == "s3://b/" && copy.dryRun)
    let login = try await parsed(LoginCommand.self, ["login", "--user", "alice", "--password-stdin"])
    #expect(login.user == "alice" && login.passwordStdin)
    #expect(try await parsed(CertCommand.self, ["cert", "--fingerprint"]).fingerprint)
    _ = try await parsed(StatusCommand.self, ["status"])
  }

  @Test("flags for every command may stand before the object and the action")
  func hoisting() async throws {
    let command = try await parsed(
      TaskCommand.Show.self, ["--server", "h:1", "--json", "task", "-s", "i:2", "show", "--id", "12"])
    #expect(command.id.id == 12 && command.globals.json)
    #expect(command.globals.server == ServerAddress(host: "i", port: 2))
  }

  @Test(
    "--help, -help and -h work on all three levels, each with an example",
    arguments: ["--help", "-help", "-h"],
    [[], ["task"], ["task", "create"], ["user", "change-password"], ["login"]])
  func help(flag: String, path: [String]) async throws {
    let end = try #require(await end(path + [flag]))
    #expect(end.status == 0)
    #expect(end.text.contains("USAGE: scitq"))
    #expect(end.text.contains("Example:"))
  }

  @Test("--version says which version this is")
  func version() async throws {
    let end = try #require(await end(["--version"]))
    #expect(end.status == 0 && end.text == Connection.software)
  }

  @Test(
    "misuse ends with status 2 and one sentence",
    arguments: [
      (["taks", "list"], "'scitq' has no 'taks'; did you mean 'task'?"),
      (["task", "lsit"], "'scitq task' has no 'lsit'; did you mean 'list'?"),
      (["task", "frobnicate"], "'scitq task' has no 'frobnicate'; it has: create, list, show"),
      (["task", "create", "--contaner", "x"], "did you mean '--container'"),
      (["task", "create"], "the command is missing"),
      (["task", "create", "--command", " \n"], "the command is empty"),
      (["task", "create", "--command"], "--command"),
      (["task", "create", "--command", "x", "--retry", "many"], "'many' is no count"),
      (["task", "create", "--command", "x", "--run-timeout", "soon"], "'soon' is no duration"),
      (["task", "create", "--command", "x", "--output", "s3://b/|untar"], "has an action"),
      (
        ["task", "create", "--command", "x", "--on-dependency-failure", "shrug"],
        "neither 'wait' nor 'cancel'"
      ),
      (["task", "create", "--from-file", "f", "--follow"], "--follow follows one task"),
      (["task", "show"], "--id"),
      (["task", "show", "--id", "x"], "'x' is no id"),
      (["task", "list", "--status", "Q"], "'Q' is no status"),
      (["task", "list", "--limit", "0"], "'0' is no count"),
      (["task", "list", "surplus"], "surplus"),
      (["task", "list", "--json", "--quiet"], "exclude each other"),
      (["task", "list", "--server", "a:b"], "'a:b' is no server address"),
      (["task", "output", "--id", "1", "--stdout", "--stderr"], "exclude each other"),
      (["user", "update", "--id", "1"], "nothing is to be changed"),
      (["user", "create", "--username", "a", "--email", "b"], "needs a password"),
      (["login", "--password-stdin"], "needs --user"),
      (["file", "copy", "a"], "<dst>"),
    ])
  func misuse(arguments: [String], part: String) async throws {
    let end = try #require(await end(arguments))
    #expect(end.status == 2)
    #expect(end.text.lowercased().contains(part.lowercased()), "\(end.text)")
    #expect(!end.text.contains("\n"), "\(end.text)")
  }

  @Test("failures end with status 1, and an expired token says how to get another")
  func failures() {
    let refused = CommandLineClient.End(CallError(.unavailable, "dial tcp localhost:1: connection refused"))
    #expect(refused.status == 1 && refused.text.contains("SCITQ_SERVER"))
    let expired = CommandLineClient.End(CallError(.unauthenticated, "the token has expired"))
    #expect(expired.status == 1 && expired.text.contains("export SCITQ_TOKEN=$(scitq login)"))
    let told = CommandLineClient.End(
      CallError(.unauthenticated, "log in again with export SCITQ_TOKEN=$(scitq login)"))
    #expect(told.text == "scitq: log in again with export SCITQ_TOKEN=$(scitq login)")
    let wrong = CommandLineClient.End(CallError(.invalid, "x is no filter", field: "filter"))
    #expect(wrong.status == 2)
    let absent = CommandLineClient.End(CallError(.invalid, "there is no remote x", field: "input"))
    #expect(absent.status == 1)
    #expect(CommandLineClient.End(Failure("x")) == CommandLineClient.End(Failure("x")))
    #expect(CommandLineClient.End(ExitCode(1)).status == 1)
    #expect(CommandLineClient.End(ExitCode(1)).text == "")
    #expect(CommandLineClient.End(Interrupted()).status == 130)
    #expect(CommandLineClient.End(OutputClosed()).status == 0)
  }

  @Test("without a token a command ends with the reminder, before any server is looked for")
  func reminder() async throws {
    let globals = try Globals.parse(["--server", "nowhere.invalid"])
    let client = try Client(globals, environment: [:])
    let command = try await parsed(TaskCommand.Show.self, ["task", "show", "--id", "1"])
    let error = await #expect(throws: Failure.self) { try await command.run(client) }
    #expect(error?.description == "you are not logged in; run: export SCITQ_TOKEN=$(scitq login)")
  }

  @Test("the environment names the server and the token; flags win over it, and it may be wrong")
  func environment() throws {
    let none = try Globals.parse([])
    #expect(try Client(none, environment: [:]).address == ServerAddress(host: "localhost", port: 50051))
    let environment = ["SCITQ_SERVER": "h:1", "SCITQ_TOKEN": "t"]
    #expect(try Client(none, environment: environment).address == ServerAddress(host: "h", port: 1))
    #expect(try Client(none, environment: environment).token == "t")
    let flags = try Globals.parse(["-s", "i:2", "--token", "u"])
    #expect(try Client(flags, environment: environment).address == ServerAddress(host: "i", port: 2))
    #expect(try Client(flags, environment: environment).token == "u")
    let error = #expect(throws: ValidationError.self) {
      try Client(none, environment: ["SCITQ_SERVER": "a:b"])
    }
    #expect(error?.message.contains("SCITQ_SERVER") == true)
  }

  @Test(
    "whatever the arguments are, parsing ends with a command, help or a sentence",
    arguments: [UInt64(11), 12, 13])
  func fuzz(seed: UInt64) async {
    var random = SeededRandom(seed: seed)
    let words = [
      "task", "create", "list", "show", "worker", "user", "file", "login", "--id", "--json", "--quiet", "-s",
      "--server",
      "--command", "--status", "--", "-", "", "-help", "-h", "--help", "--id=", "--id=1", "=", "--limit", "1",
      "-1", "x=y",
      "--env", "--no-admin", "--container-option", "\u{0}", "数", "--timeout=1h", "help", "--version", "-sx",
      "--mem",
    ]
    for round in 0..<1500 {
      let arguments = (0..<Int.random(in: 0...8, using: &random)).map { _ in
        words.randomElement(using: &random)!
      }
      if let end = await end(arguments) {
        #expect([0, 2].contains(end.status), "seed \(seed), round \(round): \(arguments) ended with \(end)")
        #expect(end.status == 0 || !end.text.isEmpty, "seed \(seed), round \(round): \(arguments)")
      }
    }
  }
}
