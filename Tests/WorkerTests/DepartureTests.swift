import ArgumentParser
import Logging
import ScitqProtocol
import Synchronization
import SystemPackage
import Testing
import Transfer

@testable import ScitqWorker

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

private let awsNotice = #"{"action":"terminate","time":"2031-09-18T08:22:00Z"}"#

private func azureNotice(_ type: String, _ names: String..., notBefore: String = "") -> String {
  let list = names.map { "\"\($0)\"" }.joined(separator: ",")
  return #"""
    {"DocumentIncarnation":2,"Events":[{"EventId":"A-1","EventStatus":"Scheduled","EventType":"\#(type)",
    "ResourceType":"VirtualMachine","Resources":[\#(list)],"NotBefore":"\#(notBefore)","Description":"",
    "EventSource":"Platform","DurationInSeconds":-1}]}
    """#
}

@Suite struct DepartureAnswerTests {
  private func answer(_ status: Int, _ body: String) -> MetadataService.Reply {
    MetadataService.Reply(status: status, body: body)
  }

  @Test("aws: nothing until there is an action; what is not understood is no notice")
  func aws() {
    #expect(EvictionAnswer(aws: answer(404, "<html>")) == .nothing)
    #expect(
      EvictionAnswer(aws: answer(200, awsNotice)) == .notice(EvictionNotice(time: "2031-09-18T08:22:00Z")))
    #expect(EvictionAnswer(aws: answer(200, #"{"action":"hibernate"}"#)) == .notice(EvictionNotice()))
    for unclear in [answer(200, "<html>"), answer(200, ""), answer(500, awsNotice), answer(301, "")] {
      guard case .unclear = EvictionAnswer(aws: unclear) else {
        Issue.record("\(unclear) is taken for an answer")
        continue
      }
    }
  }

  @Test("azure: a preemption of this host counts, one of its neighbour and a maintenance do not")
  func azure() {
    func events(_ body: String, host: String? = "host-7") -> EvictionAnswer {
      EvictionAnswer(azure: answer(200, body), host: host)
    }
    let time = "Mon, 19 Sep 2031 18:29:47 GMT"
    #expect(events(#"{"DocumentIncarnation":1,"Events":[]}"#) == .nothing)
    #expect(
      events(azureNotice("Preempt", "host-6", "HOST-7", notBefore: time))
        == .notice(EvictionNotice(time: time)))
    #expect(events(azureNotice("Preempt", "host-6", notBefore: time)) == .nothing)
    #expect(events(azureNotice("Preempt", "host-6"), host: nil) == .notice(EvictionNotice()))
    #expect(events(azureNotice("Preempt")) == .notice(EvictionNotice()))
    #expect(events(azureNotice("Reboot", "host-7", notBefore: time)) == .nothing)
    guard case .unclear = events("no events") else { return #expect(Bool(false), "it was understood") }
  }

  @Test("gcp: TRUE is a notice without a time")
  func gcp() {
    #expect(EvictionAnswer(gcp: answer(200, "TRUE\n")) == .notice(EvictionNotice()))
    #expect(EvictionAnswer(gcp: answer(200, "FALSE")) == .nothing)
    for unclear in [answer(200, "maybe"), answer(403, "TRUE"), answer(404, "")] {
      guard case .unclear = EvictionAnswer(gcp: unclear) else {
        Issue.record("\(unclear) is taken for an answer")
        continue
      }
    }
  }

  @Test("a warning is one line, with the time where it is told")
  func warning() {
    #expect(EvictionNotice(time: "at\n noon").warning == "the host will be taken back at at noon")
    #expect(EvictionNotice(time: "").warning == "the host is being taken back")
    #expect(EvictionNotice(time: String(repeating: "x", count: 1 << 20)).warning.count < 120)
  }

  @Test("an address of a service may have a port; without one it is HTTP's")
  func addresses() {
    #expect(MetadataService("169.254.169.254") == .usual)
    #expect(MetadataService("localhost:8080")?.address.port == 8080)
    #expect(MetadataService("[fd00:ec2::254]")?.address == ServerAddress(host: "fd00:ec2::254", port: 80))
    #expect(MetadataService("[::1]:81")?.address.port == 81)
    #expect(MetadataService("http://169.254.169.254/") == nil)
    #expect(MetadataService("") == nil)
  }

  @Test("whom to ask is said by the option, else by the environment, else nobody is asked")
  func options() throws {
    func watch(_ arguments: [String], _ environment: [String: String]) throws -> EvictionWatch? {
      try WorkerCommand.parse(arguments).evictionWatch(environment, quiet)
    }
    #expect(try watch([], [:]) == nil)
    #expect(try watch([], ["SCITQ_METADATA": ""]) == nil)
    #expect(try watch([], ["SCITQ_METADATA": "gcp"]) != nil)
    #expect(try watch(["--metadata", "aws"], [:]) != nil)
    #expect(try watch(["--metadata", "none"], ["SCITQ_METADATA": "gcp"]) == nil)
    #expect(throws: (any Error).self) { try watch(["--metadata", "moon"], [:]) }
    #expect(throws: (any Error).self) { try watch([], ["SCITQ_METADATA": "moon"]) }
    #expect(throws: (any Error).self) {
      try watch(["--metadata", "aws"], ["SCITQ_METADATA_ADDRESS": "http://here/"])
    }
  }
}

@Suite struct WallTimeTests {
  private let second: Int64 = 1_000_000

  @Test("two minutes before the end nothing is taken any more, or at half of what is left of less than four")
  func drains() {
    func after(_ left: Int64) -> Int64 {
      (WallTime(endsAt: (5000 + left) * second, now: 5000 * second).drainsAt - 5000 * second) / second
    }
    #expect(after(86_400) == 86_280)
    #expect(after(240) == 120)
    #expect(after(239) == 119)
    #expect(after(10) == 5)
    #expect(after(0) == 0)
    let past = WallTime(endsAt: 10 * second, now: 5000 * second)
    #expect(past.left(at: 5000 * second) == nil)
    let time = WallTime(endsAt: 1_900_000_000 * second, now: 5000 * second)
    #expect(time.left(at: time.drainsAt - 7 * second) == .seconds(7))
    #expect(time.left(at: time.drainsAt) == nil)
    #expect(time.warning == "the host's time ends at 2030-03-17T17:46:40Z")
  }

  @Test("a job of Slurm has the cpus, the memory and the end that it was given")
  func slurm() {
    func job(_ more: [String: String]) -> BatchJob {
      BatchJob(environment: more.merging(["SLURM_JOB_ID": "42"]) { $1 })
    }
    var untold = BatchJob(environment: [:])
    #expect(!untold.isPresent)
    untold.isPresent = true
    #expect(job([:]) == untold)
    let whole = job([
      "SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "16384",
      "SLURM_MEM_PER_CPU": "100", "SLURM_JOB_END_TIME": "1900000000",
    ])
    #expect(whole.cpu == 8)
    #expect(whole.memoryBytes == 16 << 30)
    #expect(whole.endsAt == 1_900_000_000_000_000)
    let each = job(["SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "2048"])
    #expect(each.cpu == 4)
    #expect(each.memoryBytes == 8 << 30)
    #expect(job(["SLURM_MEM_PER_CPU": "2048"]).memoryBytes == nil)
    let odd = job([
      "SLURM_CPUS_ON_NODE": "4(x2)", "SLURM_MEM_PER_NODE": "9223372036854775807",
      "SLURM_JOB_END_TIME": "9223372036854775807",
    ])
    #expect(odd == untold)
    let outside = BatchJob(environment: ["SLURM_CPUS_ON_NODE": "8", "SLURM_JOB_END_TIME": "1900000000"])
    #expect(outside.cpu == nil)
    #expect(outside.endsAt == 1_900_000_000_000_000)
  }

  @Test("a host offers what its job has, and less where its user says so")
  func offers() async {
    func host(_ environment: [String: String], maxCPU: Double? = nil, maxMemory: Int64? = nil) async
      -> WireHostDescription
    {
      await HostProbe.describe(
        store: "/tmp", maxCPU: maxCPU, maxMemory: maxMemory, job: BatchJob(environment: environment),
        engines: ["bare"])
    }
    let job = ["SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "64"]
    let its = await host(job)
    #expect(its.cpu <= 1)
    #expect(its.memoryBytes == 64 << 20)
    let less = await host(job, maxCPU: 0.5, maxMemory: 1 << 20)
    #expect(less.cpu <= 0.5)
    #expect(less.memoryBytes == 1 << 20)
    let more = await host(job, maxCPU: 1000, maxMemory: 1 << 50)
    #expect(more.cpu == its.cpu)
    #expect(more.memoryBytes == 64 << 20)
    // A job that was given more than there is has what there is.
    let plain = await host([:])
    let vast = await host([
      "SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "100000", "SLURM_MEM_PER_NODE": "1000000000",
    ])
    #expect(vast.cpu == plain.cpu)
    #expect(vast.memoryBytes == plain.memoryBytes)
  }
}

@Suite(.timeLimit(.minutes(2))) struct DepartureTests {
  private func watch(_ cloud: EvictionWatch.Cloud, _ service: MetadataService) -> EvictionWatch {
    EvictionWatch(cloud, service, pause: .milliseconds(20), logger: quiet)
  }

  private struct Case: CustomTestStringConvertible {
    var cloud: EvictionWatch.Cloud
    var notice: String
    var warning: String
    var testDescription: String { cloud.rawValue }
  }

  private static let cases = [
    Case(
      cloud: .aws, notice: awsNotice, warning: "the host will be taken back at 2031-09-18T08:22:00Z"),
    Case(
      cloud: .azure, notice: azureNotice("Preempt", "host-7", notBefore: "Mon, 19 Sep 2031 18:29:47 GMT"),
      warning: "the host will be taken back at Mon, 19 Sep 2031 18:29:47 GMT"),
    Case(cloud: .gcp, notice: "TRUE", warning: "the host is being taken back"),
  ]

  @Test(
    "a notice: nothing new is taken, what runs ends well, people are told, the worker leaves",
    arguments: cases)
  private func notice(_ its: Case) async throws {
    let metadata = FakeMetadata(its.cloud)
    try await metadata.serve { service in
      try await withFolder { folder in
        let server = FakeServer()
        let engine = ScriptedEngine()
        let world = try World(folder, server, engine, eviction: watch(its.cloud, service))
        let running = Task { await world.agent.run() }
        try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
        server.order(1, "hold")
        server.order(2, "true")
        try await eventually("O") { server.letters(1) == "CR" && server.letters(2) == "CO" }
        // It is asked again and again, and goes on meanwhile.
        let before = metadata.asked.count
        try await eventually("asked") { metadata.asked.count > before + 6 }
        #expect(server.state.withLock { $0.leaves } == 0)
        metadata.take(back: its.notice)
        try await eventually("given back") { server.state.withLock { $0.leaves } == 1 && engine.count == 1 }
        try await eventually("told") { server.state.withLock { $0.warnings.contains(its.warning) } }
        server.order(3, "true")
        engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
        #expect(await world.agent.waitForEnding() == .left)
        #expect(await running.value == .left)
        #expect(server.letters(1) == "CRUS")
        #expect(server.letters(2) == "CO")
        #expect(server.letters(3) == "")
        #expect(server.state.withLock { $0.leaves } == 2)
        #expect(server.state.withLock { $0.trouble } == [])
        await world.journal.close()
      }
    }
  }

  @Test("an idle worker on a host that is taken back says why before it leaves")
  func idle() async throws {
    let metadata = FakeMetadata(.gcp)
    try await metadata.serve { service in
      try await withFolder { folder in
        let server = FakeServer()
        let world = try World(folder, server, ScriptedEngine(), eviction: watch(.gcp, service))
        let running = Task { await world.agent.run() }
        try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
        metadata.take(back: "TRUE")
        #expect(await running.value == .left)
        #expect(server.state.withLock { $0.leaves } == 1)
        #expect(server.state.withLock { $0.warnings.contains("the host is being taken back") })
        await world.journal.close()
      }
    }
  }

  @Test("an agent that is started on a host that is leaving already does not join")
  func restarted() async throws {
    let metadata = FakeMetadata(.aws)
    metadata.take(back: awsNotice)
    try await metadata.serve { service in
      try await withFolder { folder in
        let server = FakeServer()
        let world = try World(folder, server, ScriptedEngine(), eviction: watch(.aws, service))
        #expect(await world.agent.run() == .left)
        #expect(server.state.withLock { $0.hello == nil })
        await world.journal.close()
      }
    }
  }

  @Test("a service that does not answer, or is not there, harms nothing", arguments: [true, false])
  func silence(isThere: Bool) async throws {
    let metadata = FakeMetadata(.aws)
    metadata.state.withLock { $0.isSilent = true }
    var address = ServerAddress(host: "127.0.0.1", port: 1)
    try await metadata.serve { service in
      if isThere { address = service.address }
      let service = MetadataService(address, deadline: .milliseconds(50))
      try await withFolder { folder in
        let server = FakeServer()
        let world = try World(folder, server, ScriptedEngine(), eviction: watch(.aws, service))
        let running = Task { await world.agent.run() }
        try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
        for task in 1...20 as ClosedRange<Int64> { server.order(task, "true") }
        try await eventually("S") {
          (1...20 as ClosedRange<Int64>).allSatisfy { server.letters($0).hasSuffix("US") }
        }
        if isThere { try await eventually("asked again") { metadata.asked.count > 3 } }
        #expect(server.state.withLock { $0.leaves } == 0)
        await world.agent.abandon()
        #expect(await running.value == .abandoned)
        await world.journal.close()
      }
    }
  }

  @Test("a question to a service that is silent ends at its deadline, and at once when it is canceled")
  func deadline() async throws {
    let metadata = FakeMetadata(.gcp)
    metadata.state.withLock { $0.isSilent = true }
    try await metadata.serve { service in
      let clock = ContinuousClock()
      var quick = service
      quick.deadline = .milliseconds(100)
      let service = quick
      let took = await clock.measure { #expect(await service.get("/", []) == nil) }
      #expect(took >= .milliseconds(90) && took < .seconds(20))
      var patient = service
      patient.deadline = .seconds(100)
      let asking = Task { [patient] in await patient.get("/", []) }
      try await eventually("asked") { metadata.asked.count == 2 }
      asking.cancel()
      #expect(await asking.value == nil)
    }
  }

  @Test("a token of aws is asked for once, and again when it is no longer taken")
  func token() async throws {
    let metadata = FakeMetadata(.aws)
    try await metadata.serve { service in
      var watch = watch(.aws, service)
      for _ in 0..<3 { #expect(await watch.look() == nil) }
      #expect(metadata.asked.count { $0.hasPrefix("PUT") } == 1)
      metadata.state.withLock { $0.token = "token-2" }
      metadata.take(back: awsNotice)
      #expect(await watch.look() == EvictionNotice(time: "2031-09-18T08:22:00Z"))
      #expect(metadata.asked.count { $0.hasPrefix("PUT") } == 2)
    }
  }

  @Test("a preemption of another host of the set is not this one's")
  func neighbour() async throws {
    let metadata = FakeMetadata(.azure)
    metadata.take(back: azureNotice("Preempt", "host-6"))
    try await metadata.serve { service in
      var watch = watch(.azure, service)
      #expect(await watch.look() == nil)
      metadata.state.withLock { $0.name = "host-6" }
      #expect(await watch.look() == EvictionNotice())
    }
  }

  @Test("the server learns when the host's time ends; before it the worker finishes what runs and leaves")
  func wallTime() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let engine = ScriptedEngine()
      let endsAt = Clock.microseconds() + 10_000_000
      let world = try World(folder, server, engine, endsAt: endsAt)
      let running = Task { await world.agent.run() }
      try await eventually("connected") { server.state.withLock { $0.beats > 0 } }
      #expect(server.state.withLock { $0.hello?.worker.endsAt } == endsAt)
      server.order(1, "hold")
      try await eventually("R") { server.letters(1) == "CR" }
      try await eventually("draining") { server.state.withLock { $0.leaves } == 1 }
      #expect(Clock.microseconds() >= endsAt - 5_000_000)
      server.order(2, "true")
      engine.end(AttemptID(task: 1, assignment: 1), Exit(code: 0))
      #expect(await running.value == .left)
      #expect(server.letters(1) == "CRUS")
      #expect(server.letters(2) == "")
      #expect(
        server.state.withLock { $0.warnings.contains { $0.hasPrefix("the host's time ends at 2") } })
      await world.journal.close()
    }
  }

  @Test("an agent whose host's time is over does not join")
  func over() async throws {
    try await withFolder { folder in
      let server = FakeServer()
      let world = try World(folder, server, ScriptedEngine(), endsAt: Clock.microseconds() - 1)
      #expect(await world.agent.run() == .left)
      #expect(server.state.withLock { $0.hello == nil })
      await world.journal.close()
    }
  }
}
