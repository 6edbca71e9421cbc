import ScitqProtocol

/// Splits a command into words as a POSIX shell would, without expanding anything.
///
/// Blanks separate words; single quotes keep everything, double quotes keep everything but a backslash before
/// `"`, `\`, `$`, a backquote or a line break; outside quotes a backslash keeps the next character. A backslash
/// before a line break joins the lines. `#`, `$`, `*`, `|`, `;`, `<`, `>` and the like are ordinary characters.
package enum ShellWords {
  /// Why a text has no words.
  package struct Unbalanced: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Kind: Hashable, Sendable { case singleQuote, doubleQuote, backslash }
    package var kind: Kind
    /// Where the quote was opened: characters from the start, the first being 1.
    package var position: Int

    package var description: String {
      switch kind {
      case .singleQuote: "the single quote at character \(position) is never closed"
      case .doubleQuote: "the double quote at character \(position) is never closed"
      case .backslash: "the backslash at character \(position), the last one, has nothing to quote"
      }
    }
  }

  package static func split(_ text: String) throws(Unbalanced) -> [String] {
    var words: [String] = []
    var word = String.UnicodeScalarView()
    var inWord = false
    let scalars = Array(text.unicodeScalars)
    var i = 0
    while i < scalars.count {
      let c = scalars[i]
      switch c {
      case " ", "\t", "\n", "\r":
        if inWord {
          words.append(String(word))
          word = String.UnicodeScalarView()
          inWord = false
        }
      case "'":
        inWord = true
        let opened = i
        i += 1
        while i < scalars.count, scalars[i] != "'" {
          word.append(scalars[i])
          i += 1
        }
        guard i < scalars.count else { throw Unbalanced(kind: .singleQuote, position: opened + 1) }
      case "\"":
        inWord = true
        let opened = i
        i += 1
        while i < scalars.count, scalars[i] != "\"" {
          if scalars[i] == "\\", i + 1 < scalars.count {
            switch scalars[i + 1] {
            case "\"", "\\", "$", "`":
              word.append(scalars[i + 1])
              i += 2
              continue
            case "\n":
              i += 2
              continue
            default:
              break
            }
          }
          word.append(scalars[i])
          i += 1
        }
        guard i < scalars.count else { throw Unbalanced(kind: .doubleQuote, position: opened + 1) }
      case "\\":
        guard i + 1 < scalars.count else { throw Unbalanced(kind: .backslash, position: i + 1) }
        i += 1
        if scalars[i] != "\n" {
          word.append(scalars[i])
          inWord = true
        }
      default:
        word.append(c)
        inWord = true
      }
      i += 1
    }
    if inWord { words.append(String(word)) }
    return words
  }
}

/// What a launch becomes when it is run: words to execute, and the script they name.
struct CommandLine {
  /// The shell and its own arguments; empty where the command is run as it is.
  var shell: [String]
  /// The command's words; empty with a shell, whose script holds the command.
  var words: [String]

  /// The script's name in the attempt's folder of scripts.
  static let scriptName = "command"

  init(_ launch: Launch) throws(ExecutionFailure) {
    do {
      shell = try ShellWords.split(launch.shell)
      words = shell.isEmpty ? try ShellWords.split(launch.command) : []
    } catch {
      throw ExecutionFailure(
        .refused, "the command of task \(launch.attempt.task) cannot be split into words: \(error)")
    }
    guard !launch.command.utf8.contains(0) || !shell.isEmpty, !launch.shell.utf8.contains(0) else {
      throw ExecutionFailure(
        .refused, "the command of task \(launch.attempt.task) holds a zero byte, which no argument can carry")
    }
    for (name, value) in launch.environment {
      guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0),
        !value.utf8.contains(0)
      else {
        throw ExecutionFailure(
          .refused,
          "task \(launch.attempt.task) has an environment variable that cannot be set: its name is empty, "
            + "has an equals sign, or a zero byte stands in it")
      }
    }
  }
}
