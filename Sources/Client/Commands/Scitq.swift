import ArgumentParser
import ScitqProtocol

/// `scitq <object> <action>`.
struct Scitq: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scitq",
    abstract: "Run command-line work on many hosts.",
    discussion: """
      Example:
        export SCITQ_TOKEN=$(scitq login)
        scitq task create --container alpine --command 'echo "hello world"'
        scitq task list
      """,
    version: Connection.software,
    subcommands: [
      TaskCommand.self, WorkflowCommand.self, StepCommand.self, WorkerCommand.self, FlavorCommand.self,
      RecruiterCommand.self, UserCommand.self, FileCommand.self, EventsCommand.self, StatusCommand.self,
      TopCommand.self, LoginCommand.self,
      LogoutCommand.self, CertCommand.self, CompletionCommand.self,
    ])
}
