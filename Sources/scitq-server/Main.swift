import ArgumentParser
import ScitqServer

@main
enum Main {
  static func main() async { await ServerCommand.main() }
}
