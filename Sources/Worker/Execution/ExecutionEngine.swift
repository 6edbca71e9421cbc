package import ScitqProtocol
package import SystemPackage

/// What runs commands on this host: docker, podman, or processes of the host itself.
///
/// What an engine runs outlives the agent. Every verb names the attempt and is idempotent, so that an agent that
/// was killed at any point does the same again after its restart and comes to the same end.
package protocol ExecutionEngine: Sendable {
  /// Makes the image present; a process needs none.
  func prepare(_ launch: Launch) async throws(ExecutionFailure)
  /// Makes everything ready so that `start` has nothing left to do but start. Twice is once.
  func create(_ launch: Launch) async throws(ExecutionFailure)
  /// Starts what `create` made. An attempt that was started before is left alone, running or ended.
  func start(_ launch: Launch) async throws(ExecutionFailure)
  /// What the attempt prints, from the given offsets on. Ends when it has ended and everything was delivered.
  func output(of attempt: AttemptID, from offsets: LogOffsets) -> AsyncThrowingStream<OutputChunk, any Error>
  /// The server has everything before these offsets: the engine need not keep it any longer.
  func delivered(_ attempt: AttemptID, upTo offsets: LogOffsets) async
  /// Waits for the end.
  func exit(of attempt: AttemptID) async throws(ExecutionFailure) -> Exit
  /// Makes everything that the attempt runs stand still, until `resume`. False: it is not running, or no longer.
  func pause(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool
  /// Lets it go on; what does not stand still is left alone. False: it is not running, or no longer.
  func resume(_ attempt: AttemptID) async throws(ExecutionFailure) -> Bool
  /// SIGTERM to all of it, SIGKILL after the grace; what stands still goes on for that. Returns when nothing is left
  /// running. Not started: nothing to do.
  func kill(_ attempt: AttemptID, grace: Duration) async
  /// Forgets an ended or never started attempt and frees what it held.
  func remove(_ attempt: AttemptID) async
  /// What this engine still holds of this agent's store, from before a restart.
  func held() async throws(ExecutionFailure) -> [AttemptID: HeldState]
}

/// How much of each stream.
package struct LogOffsets: Sendable, Hashable {
  package var out: Int64
  package var err: Int64
  package init(out: Int64 = 0, err: Int64 = 0) {
    self.out = out
    self.err = err
  }
}

package struct OutputChunk: Sendable {
  package enum Stream: Sendable { case out, err }
  package var stream: Stream
  package var offset: Int64
  package var bytes: [UInt8]
  package init(stream: Stream, offset: Int64, bytes: [UInt8]) {
    self.stream = stream
    self.offset = offset
    self.bytes = bytes
  }
}

package enum HeldState: Sendable, Hashable { case created, running, paused, ended }

/// How a command ended.
package struct Exit: Sendable, Hashable {
  /// As a shell would show it: 128 + n for a signal n.
  package var code: Int32
  package var signal: Int32?
  /// From the engine's own flag, never guessed from 137.
  package var outOfMemory: Bool
  /// Something the command had started was still alive and had to be ended, so that it may have written to the
  /// attempt's folders a moment longer.
  package var leftProcesses: Bool
  package init(code: Int32, signal: Int32? = nil, outOfMemory: Bool = false, leftProcesses: Bool = false) {
    self.code = code
    self.signal = signal
    self.outOfMemory = outOfMemory
    self.leftProcesses = leftProcesses
  }
}

/// Everything an engine needs to know to run one attempt.
package struct Launch: Sendable {
  package var attempt: AttemptID
  package var image: String
  package var command: String
  package var shell: String
  package var environment: [String: String]
  package var options: [String]
  package var needs: WireNeeds
  package var folders: Folders

  /// Absolute paths on the host. For a process they are told in INPUT OUTPUT TEMP RESOURCE SCRIPTS.
  package struct Folders: Sendable {
    package var input: FilePath
    package var output: FilePath
    package var temp: FilePath
    package var resource: FilePath
    package var scripts: FilePath
    package init(
      input: FilePath, output: FilePath, temp: FilePath, resource: FilePath, scripts: FilePath
    ) {
      self.input = input
      self.output = output
      self.temp = temp
      self.resource = resource
      self.scripts = scripts
    }
  }

  package init(
    attempt: AttemptID, image: String, command: String, shell: String, environment: [String: String],
    options: [String], needs: WireNeeds, folders: Folders
  ) {
    self.attempt = attempt
    self.image = image
    self.command = command
    self.shell = shell
    self.environment = environment
    self.options = options
    self.needs = needs
    self.folders = folders
  }
}

/// Why an engine could not do what it was asked.
package struct ExecutionFailure: Error, Sendable, CustomStringConvertible {
  package var reason: FailureReason
  /// One sentence for people.
  package var message: String
  package init(_ reason: FailureReason, _ message: String) {
    self.reason = reason
    self.message = message
  }
  package var description: String { message }
}
