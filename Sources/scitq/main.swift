import Foundation
import ScitqClient

exit(await CommandLineClient.run(Array(CommandLine.arguments.dropFirst())))
