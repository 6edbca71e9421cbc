import Foundation
import Subprocess
import Synchronization

/// Who of this store's containers has ended, as the engine tells it: one program for all of them.
///
/// The engine's events are the fast road. Whoever waits is also looked up now and then and after each gap in the
/// events, so that an event that was missed delays an end by seconds and never hides it.
final class ContainerDeaths: Sendable {
  private typealias Waiter = CheckedContinuation<Void, Never>

  private struct State {
    var waiting: [String: [UInt64: Waiter]] = [:]
    var dead: Set<String> = []
    var nextID: UInt64 = 0
    var starved: Set<String> = []
    var watcher: Task<Void, Never>?
  }

  private let tool: ContainerTool
  private let label: String
  private let state = Mutex(State())

  init(tool: ContainerTool, label: String) {
    self.tool = tool
    self.label = label
  }

  deinit { state.withLock { $0.watcher }?.cancel() }

  /// The engine said that memory ran out in it.
  func ranOutOfMemory(_ name: String) -> Bool { state.withLock { $0.starved.contains(name) } }

  /// Begins to listen; what dies from now on is not missed. Its task ends with this object.
  func listen() {
    state.withLock { state in
      guard state.watcher == nil else { return }
      let since = Date.now.timeIntervalSince1970 - 1
      state.watcher = Task { [weak self, tool, label] in
        await Self.watch(tool, label, since: since) { [weak self] in self }
      }
    }
  }

  /// Returns when the container may have ended, or the caller was canceled: look before you believe.
  func wait(for name: String) async {
    let id = state.withLock { state in
      state.nextID += 1
      return state.nextID
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { (continuation: Waiter) in
        let waits = state.withLock { state -> Bool in
          guard !Task.isCancelled, !state.dead.contains(name) else { return false }
          state.waiting[name, default: [:]][id] = continuation
          return true
        }
        if !waits { continuation.resume() }
      }
    } onCancel: {
      state.withLock { $0.waiting[name]?.removeValue(forKey: id) }?.resume()
    }
  }

  /// It may live after all: `wait` waits again.
  func doubt(_ name: String) { state.withLock { _ = $0.dead.remove(name) } }

  func forget(_ name: String) {
    state.withLock { state in
      state.dead.remove(name)
      state.starved.remove(name)
    }
  }

  private func heard(_ event: String) {
    let words = event.split(separator: " ")
    guard words.count == 2 else { return }
    let name = String(words[1])
    wake { state in
      guard words[0] != "oom" else {
        state.starved.insert(name)
        return []
      }
      state.dead.insert(name)
      return [name]
    }
  }

  private func wake(_ choose: (inout State) -> [String]) {
    let woken = state.withLock { state -> [Waiter] in
      choose(&state).flatMap { name in
        Array((state.waiting.removeValue(forKey: name) ?? [:]).values)
      }
    }
    for waiter in woken { waiter.resume() }
  }

  private static func watch(
    _ tool: ContainerTool, _ label: String, since start: Double,
    whose: @escaping @Sendable () -> ContainerDeaths?
  ) async {
    var since = start
    while !Task.isCancelled {
      let began = Date.now.timeIntervalSince1970
      await withTaskGroup(of: Void.self) { group in
        let from = since
        group.addTask { await events(tool, label, since: from) { whose()?.heard($0) } }
        group.addTask {
          while !Task.isCancelled {
            try? await Task.sleep(for: .seconds(15))
            if !Task.isCancelled { await whose()?.lookAround() }
          }
        }
        await group.next()
        group.cancelAll()
      }
      guard !Task.isCancelled, let deaths = whose() else { return }
      deaths.wake { Array($0.waiting.keys) }
      since = began - 1
      try? await Task.sleep(for: .milliseconds(200))
    }
  }

  /// Those who wait for something that is no longer running are woken.
  private func lookAround() async {
    guard !(state.withLock { $0.waiting.isEmpty }) else { return }
    let answer = await tool.run([
      "ps", "--no-trunc", "--filter", "label=\(label)", "--format", "{{.Names}}",
    ])
    guard answer.code == 0 else { return }
    let running = Set(answer.output.split(whereSeparator: \.isNewline).map(String.init))
    wake { state in state.waiting.keys.filter { !running.contains($0) } }
  }

  private static func events(
    _ tool: ContainerTool, _ label: String, since: Double, heard: @Sendable @escaping (String) -> Void
  ) async {
    // docker calls it die, podman died; each writes its own JSON.
    let arguments = [
      "-c", Self.untilAlone, "sh", tool.program, "events", "--filter", "type=container", "--filter",
      "event=die", "--filter", "event=died", "--filter",
      "event=oom",
      "--filter", "label=\(label)", "--since",
      String(format: "%.3f", since), "--format",
      tool.isPodman ? "{{.Status}} {{.Name}}" : "{{.Action}} {{.Actor.Attributes.name}}",
    ]
    _ = try? await Subprocess.run(
      .name("sh"), arguments: Arguments(arguments), input: .inputWriter, output: .sequence, error: .discarded
    ) { execution in
      var line: [UInt8] = []
      for try await buffer in execution.standardOutput {
        for byte in buffer.withUnsafeBytes({ Array($0) }) {
          if byte == UInt8(ascii: "\n") {
            heard(String(decoding: line, as: UTF8.self))
            line = []
          } else {
            line.append(byte)
          }
        }
      }
      try? await execution.standardInputWriter.finish()
    }
  }

  /// Runs a program until it ends, or until this agent does, however that ends: then nobody holds the other end of its
  /// standard input any more.
  private static let untilAlone = #"""
    exec 3<&0
    "$@" </dev/null 3<&- &
    program=$!
    { cat >/dev/null; kill "$program"; } <&3 >/dev/null &
    wait "$program"
    kill "$!"
    """#
}

extension ContainerTool {
  var isPodman: Bool { program.split(separator: "/").last == "podman" }
}
