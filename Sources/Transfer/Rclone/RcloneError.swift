import ScitqProtocol

/// Which class an error of rclone belongs to. rclone hands on what stores say, so this reads their words.
enum RcloneError {
  /// `message` is for people already: secrets are out of it.
  static func failure(status: Int, message: String, doing what: String) -> TransferFailure {
    let text = message.lowercased()
    func says(_ words: String...) -> Bool { words.contains { text.contains($0) } }
    let sentence = "\(what): \(mismatch(message) ?? shortened(message))"

    if says("no space left", "disk quota", "read-only file system") {
      return TransferFailure(.disk, sentence)
    }
    if says(
      "corrupted on transfer", "hash differ", "hashes differ", "sizes differ", "checksum", "baddigest",
      "source file is being updated", "can't copy - source file")
    {
      return TransferFailure(.checksum, sentence, isTransient: true)
    }
    if status == 403
      || says(
        "statuscode: 403", "statuscode: 401", "accessdenied", "access denied", "forbidden",
        "invalidaccesskeyid",
        "signaturedoesnotmatch", "expiredtoken", "unauthorized", "permission denied", "login incorrect",
        "530 ", "authentication failed", "unable to authenticate", "authorizationfailure", "403 ", "401 ",
        "operation not permitted")
    {
      return TransferFailure(.denied, sentence)
    }
    if status == 404
      || says(
        "object not found", "directory not found", "statuscode: 404", "nosuchbucket", "nosuchkey",
        "404 not found", "410 gone", "550 ", "file does not exist")
    {
      return TransferFailure(.inputMissing, sentence)
    }
    if says(
      "is a file not a directory", "didn't find section in config file", "file name too long",
      "is a directory",
      "not a directory", "invalidbucketname", "didn't find backend called", "no such file or directory",
      "failed to create file system", "unsupported protocol scheme", "doesn't support", "can't copy directory"
    ) {
      return TransferFailure(.input, sentence)
    }
    if says("certificate", "x509") { return TransferFailure(.network, sentence) }
    return TransferFailure(.network, sentence, isTransient: true)
  }

  /// Two hashes that differ, said as this module says it.
  private static func mismatch(_ message: String) -> String? {
    guard let differ = message.firstRange(of: " hashes differ src("),
      let kind = message[..<differ.lowerBound].split(separator: " ").last,
      let middle = message.firstRange(of: "\" vs dst("), message.hasSuffix("\""),
      let expected = message[..<middle.lowerBound].split(separator: "\"").last,
      let found = message[middle.upperBound...].split(separator: "\"").last
    else { return nil }
    return "the \(kind.uppercased()) of what arrived is \(found), and should be \(expected)"
  }

  /// Without the bookkeeping that the stores' libraries put around what went wrong.
  private static func shortened(_ message: String) -> String {
    var text = withoutQueries(message)
    for label in ["RequestID: ", "HostID: "] {
      while let start = text.firstRange(of: label), let end = text[start.upperBound...].firstRange(of: ", ") {
        text.removeSubrange(start.lowerBound..<end.upperBound)
      }
    }
    for noise in [
      "error in ListJSON: ", "https response error ", "operation error ",
    ] {
      text = text.replacing(noise, with: "")
    }
    return text.split(separator: "\n").joined(separator: "; ")
  }

  /// Signed links carry their signature behind the `?`.
  private static func withoutQueries(_ text: String) -> String {
    var result = ""
    var isLink = false
    var isSkipping = false
    var word = ""
    for character in text {
      if character == " " || character == "\"" {
        isLink = false
        isSkipping = false
        word = ""
      } else {
        word.append(character)
        if !isLink { isLink = word.hasSuffix("://") }
      }
      if isSkipping { continue }
      result.append(character)
      if isLink && character == "?" {
        isSkipping = true
        result.append("…")
      }
    }
    return result
  }
}
