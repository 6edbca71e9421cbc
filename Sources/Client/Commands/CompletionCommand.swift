import ArgumentParser

/// `scitq completion`.
struct CompletionCommand: ParsableCommand {
  static let configuration = CommandConfiguration.command(
    "completion", "Print a script that lets a shell complete commands and flags.",
    example:
      "scitq completion bash > /etc/bash_completion.d/scitq\nscitq completion fish > ~/.config/fish/completions/scitq.fish"
  )

  enum Shell: String, CaseIterable, ExpressibleByArgument { case bash, zsh, fish }

  @Argument(help: "bash, zsh or fish.") var shell: Shell

  func run() throws {
    let shell: CompletionShell =
      switch shell {
      case .bash: .bash
      case .zsh: .zsh
      case .fish: .fish
      }
    print(Scitq.completionScript(for: shell))
  }
}
