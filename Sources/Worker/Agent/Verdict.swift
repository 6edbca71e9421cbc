import ScitqProtocol
import Transfer

extension Agent.Stop {
  init(_ error: any Error) {
    switch error {
    case let error as Agent.Stop: self = error
    default:
      let failure = ExecutionFailure(staging: error)
      self = .failed(failure.reason, failure.message)
    }
  }
}

extension Agent.Verdict {
  init(_ exit: Exit) {
    if exit.outOfMemory {
      self.init(
        status: .uploadingFailed, reason: .outOfMemory, message: "the command ran out of memory",
        exitCode: exit.code)
    } else if let signal = exit.signal {
      self.init(
        status: .uploadingFailed, reason: .signal, message: "the command was ended by signal \(signal)",
        exitCode: exit.code)
    } else if exit.code != 0 {
      self.init(
        status: .uploadingFailed, reason: .exitCode, message: "the command ended with exit code \(exit.code)",
        exitCode: exit.code)
    } else {
      self.init(status: .uploading, exitCode: 0)
    }
  }

  /// As it was reported by an agent that ended since.
  init(_ report: WireReport?) {
    self.init(
      status: report?.status == TaskStatus.uploading.rawValue ? .uploading : .uploadingFailed,
      reason: report.flatMap { FailureReason(rawValue: $0.reason) }, message: report?.message ?? "",
      exitCode: report?.hasExitCode_p == true ? report?.exitCode : nil)
  }
}

extension WireTransferredFile {
  init(_ file: MovedFile) {
    self.init()
    uri = file.uri
    bytes = file.bytes
    hash = file.hash
  }
}
