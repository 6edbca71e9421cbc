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

extension Agent {
  /// What an exit comes to.
  ///
  /// Where a batch job is ended, put back into its queue or out of time, all of its processes get SIGTERM: a
  /// command that ends by it has done nothing wrong, and begins elsewhere. This agent gets it too, perhaps a
  /// moment later.
  func verdict(on exit: Exit, of attempt: Attempt) async -> Verdict {
    let verdict = Verdict(exit)
    guard setup.isBatchJob, exit.wasTerminated, attempt.revocation == nil else { return verdict }
    if !isDraining { try? await Task.sleep(for: .seconds(1)) }
    guard isDraining, attempt.revocation == nil else { return verdict }
    return Verdict(
      status: .uploadingFailed, reason: .workerLost, message: "the batch job of its worker was ended",
      exitCode: exit.code)
  }
}

extension Exit {
  /// By SIGTERM, as the command's own shell may have it; out of memory it was not.
  fileprivate var wasTerminated: Bool { !outOfMemory && (signal == 15 || signal == nil && code == 128 + 15) }
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
