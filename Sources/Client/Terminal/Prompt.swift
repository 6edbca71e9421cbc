import Foundation

/// Asks a person on the controlling terminal, whatever stdin and stdout are: `$(scitq login)` leaves only that.
struct Prompt: ~Copyable {
  private let descriptor: Int32

  /// Nil where there is no terminal: in a batch job, a service, a pipe of a remote shell.
  static func open() -> Prompt? {
    let descriptor = Foundation.open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    guard isatty(descriptor) == 1 else {
      close(descriptor)
      return nil
    }
    return Prompt(descriptor: descriptor)
  }

  /// Somebody could be asked.
  static var isPossible: Bool { open() != nil }

  private init(descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  func say(_ text: String) throws { try Descriptor.write(text.utf8, to: descriptor) }

  /// A line as typed, without blanks around it. Throws where input ends.
  func ask(_ question: String) throws -> String {
    try say(question)
    var line: [UInt8] = []
    while let byte = try readByte() {
      if byte == 0x0A { return text(line).trimmingCharacters(in: .whitespaces) }
      line.append(byte)
    }
    throw Failure("the terminal was closed before an answer came")
  }

  /// A line that is not shown while it is typed. The terminal is as before afterwards, also when ^C ends it.
  func askSecretly(_ question: String) throws -> String {
    try say(question)
    var before = termios()
    guard tcgetattr(descriptor, &before) == 0 else {
      throw Failure("the terminal cannot hide a password: \(Descriptor.reason(errno))")
    }
    var hidden = before
    // Byte by byte and without signals, so that ^C comes here and the echo is turned on again before the end.
    hidden.c_lflag &= ~tcflag_t(ECHO | ICANON | ISIG)
    guard tcsetattr(descriptor, TCSAFLUSH, &hidden) == 0 else {
      throw Failure("the terminal cannot hide a password: \(Descriptor.reason(errno))")
    }
    defer {
      tcsetattr(descriptor, TCSAFLUSH, &before)
      try? say("\n")
    }
    var editor = SecretLine()
    while let byte = try readByte() {
      switch editor.take(byte) {
      case .more: continue
      case .done: return text(editor.bytes)
      case .interrupted: throw Interrupted()
      }
    }
    throw Failure("the terminal was closed before an answer came")
  }

  private func readByte() throws -> UInt8? {
    var block: [UInt8] = []
    return try Descriptor.read(descriptor, into: &block, atMost: 1) == 1 ? block[0] : nil
  }

  private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}

/// The little editing that a hidden line allows.
struct SecretLine {
  enum Answer: Equatable { case more, done, interrupted }
  private(set) var bytes: [UInt8] = []

  mutating func take(_ byte: UInt8) -> Answer {
    switch byte {
    case 0x0A, 0x0D: return .done
    case 0x03, 0x1C: return .interrupted
    case 0x04: return bytes.isEmpty ? .interrupted : .done
    case 0x08, 0x7F:
      // A character may be several bytes: its first is the one that is not 10xxxxxx.
      while let last = bytes.popLast(), last & 0xC0 == 0x80 {}
    case 0x15: bytes = []
    default: bytes.append(byte)
    }
    return .more
  }
}

/// A person pressed ^C: exit status 130, as a shell has it.
struct Interrupted: Error {}
