/// Why a task failed or was canceled: a stable word that scripts may match. The sentence beside it is for people.
public enum FailureReason: String, CaseIterable, Sendable, Codable {
  /// The command ended with an exit code other than 0.
  case exitCode = "exit-code"
  /// The command was ended by a signal that this system did not send.
  case signal
  /// The engine's own flag says that memory ran out.
  case outOfMemory = "out-of-memory"
  /// A time limit passed; the message names the phase.
  case timeout
  /// Its worker was lost or deleted while the command ran.
  case workerLost = "worker-lost"
  /// An input or resource does not exist, or a pattern matched nothing.
  case inputMissing = "input-missing"
  /// A store refused access.
  case denied
  /// A transfer failed after all its tries.
  case network
  /// Bytes that arrived are not the bytes that were sent.
  case checksum
  /// No room on the worker's disk, now or ever.
  case disk
  /// An input, resource or archive is there but cannot be used: two files of one name, an unsafe archive, …
  case input
  /// The image could not be pulled or does not exist.
  case image
  /// The container engine could not start the command.
  case engine
  /// Outputs could not be uploaded.
  case upload
  /// The worker does not take this task, such as a container option that the server does not allow.
  case refused
  /// A person canceled it.
  case canceled
  /// A prerequisite failed for good and the task asked to be canceled then.
  case dependency
}
