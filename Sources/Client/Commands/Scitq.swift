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
      TaskCommand.self, WorkerCommand.self, UserCommand.self, FileCommand.self, StatusCommand.self,
      LoginCommand.self,
      CertCommand.self,
    ])
}
