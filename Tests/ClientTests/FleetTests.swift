import ArgumentParser
import Foundation
import ScitqProtocol
import SwiftProtobuf
import Testing

@testable import ScitqClient

@Suite("Flavors, deployed workers, recruiters and costs")
struct FleetTests {
  private let zone = TimeZone(secondsFromGMT: 2 * 3600)!
  private var piped: OutputStyle { .piped(zone: zone) }
  /// 2025-10-29 15:58:22.123456 UTC.
  private let noon: Int64 = 1_761_753_502_123_456

  private func parsed<C>(_ type: C.Type, _ line: String) async throws -> C {
    let command = try await CommandLineClient.parse(line.split(separator: " ").map(String.init))
    return try #require(command as? C, "\(Swift.type(of: command))")
  }

  private func end(_ line: String) async -> CommandLineClient.End? {
    do {
      var command = try await CommandLineClient.parse(line.split(separator: " ").map(String.init))
      // Help needs no server.
      if !(command is any ClientCommand) {
        if var group = command as? any AsyncParsableCommand {
          try await group.run()
        } else {
          try command.run()
        }
      }
      return nil
    } catch {
      return CommandLineClient.End(error)
    }
  }

  // MARK: Arguments

  @Test("flavor list shows ten without a flag; enable and disable name a flavor, in one region or in all")
  func flavorFlags() async throws {
    let plain = try await parsed(FlavorCommand.List.self, "flavor list")
    #expect(plain.limit == 10 && plain.filter == nil)
    let list = try await parsed(
      FlavorCommand.List.self, "flavor list --limit 3 --filter cpu>32:mem>=10:disk<1000")
    #expect(list.limit == 3 && list.filter == "cpu>32:mem>=10:disk<1000")
    let enable = try await parsed(
      FlavorCommand.Enable.self, "flavor enable --provider azure.primary --flavor D8")
    #expect(enable.one.provider == "azure.primary" && enable.one.flavor == "D8" && enable.one.region == nil)
    let disable = try await parsed(
      FlavorCommand.Disable.self, "flavor disable --provider azure.primary --flavor D8 --region swedencentral"
    )
    #expect(disable.one.region == "swedencentral")
  }

  @Test("worker deploy takes the contract's flags and defaults, under a key of its own")
  func deploy() async throws {
    let plain = try await parsed(
      WorkerCommand.Deploy.self, "worker deploy --provider azure.primary --flavor D8"
    ).request
    #expect(plain.provider == "azure.primary" && plain.flavor == "D8" && plain.region == "")
    #expect(plain.count == 1 && plain.stepID == 0 && plain.concurrency == 1 && plain.prefetch == 0)
    #expect(!plain.idempotencyKey.isEmpty)
    let whole = try await parsed(
      WorkerCommand.Deploy.self,
      """
      worker deploy --provider azure.primary --region swedencentral --flavor Standard_D8s_v3 --count 2 --step 14 \
      --concurrency 4 --prefetch 1
      """
    ).request
    #expect(whole.region == "swedencentral" && whole.count == 2 && whole.stepID == 14)
    #expect(whole.concurrency == 4 && whole.prefetch == 1)
    #expect(whole.idempotencyKey != plain.idempotencyKey)
  }

  @Test("workers are listed with their costs, and deleted whose hosts are gone, when it is asked for")
  func workerFlags() async throws {
    #expect(try await parsed(WorkerCommand.List.self, "worker list --cost").cost)
    #expect(try await !parsed(WorkerCommand.List.self, "worker list").cost)
    let delete = try await parsed(
      WorkerCommand.Delete.self, "worker delete --worker-id 3 --worker-id 4 --undeployed")
    #expect(delete.workerIDs == [[3], [4]] && delete.undeployed)
    #expect(try await !parsed(WorkerCommand.Delete.self, "worker delete --worker-id 3").undeployed)
  }

  @Test("recruiter create has the contract's defaults, and a fixed concurrency of 1")
  func recruiterDefaults() async throws {
    let request = try await parsed(
      RecruiterCommand.Create.self, "recruiter create --step-id 14 --filter cpu>=8"
    ).request
    #expect(
      request
        == .with {
          ($0.stepID, $0.rank, $0.filter) = (14, 1, "cpu>=8")
          ($0.concurrency, $0.rounds, $0.timeout) = (1, 1, 10)
        })
  }

  @Test("recruiter create takes a fixed concurrency, or what a task takes")
  func recruiterCreate() async throws {
    let fixed = try await parsed(
      RecruiterCommand.Create.self,
      """
      recruiter create --step-id 14 --filter cpu>=8:mem>=30 --rank 2 --concurrency 4 --prefetch 1 \
      --max-workers 50 --rounds 3 --timeout 2m
      """
    ).request
    #expect(
      fixed
        == .with {
          ($0.stepID, $0.rank, $0.filter) = (14, 2, "cpu>=8:mem>=30")
          ($0.concurrency, $0.prefetch, $0.maximumWorkers) = (4, 1, 50)
          ($0.rounds, $0.timeout) = (3, 120)
        })
    let adaptive = try await parsed(
      RecruiterCommand.Create.self,
      """
      recruiter create --step-id 14 --filter cpu>=8 --cpu-per-task 2 --memory-per-task 7.5 --disk-per-task 50 \
      --concurrency-min 1 --concurrency-max 10 --prefetch-percent 50
      """
    ).request
    #expect(
      adaptive
        == .with {
          ($0.stepID, $0.rank, $0.filter) = (14, 1, "cpu>=8")
          ($0.cpuPerTask, $0.memoryPerTask, $0.diskPerTask) = (2, 7.5, 50)
          ($0.concurrencyMin, $0.concurrencyMax, $0.prefetchPercent) = (1, 10, 50)
          ($0.rounds, $0.timeout) = (1, 10)
        })
  }

  @Test("recruiter update changes what is said and nothing else; a number of tasks ends a percentage")
  func recruiterUpdate() async throws {
    let most = try await parsed(
      RecruiterCommand.Update.self, "recruiter update --step-id 14 --max-workers 0"
    ).request
    #expect(
      most
        == .with {
          ($0.stepID, $0.rank) = (14, 1)
          $0.maximumWorkers = 0
        })
    let prefetch = try await parsed(
      RecruiterCommand.Update.self, "recruiter update --step-id 14 --rank 2 --filter mem>4 --prefetch 3"
    ).request
    #expect(
      prefetch
        == .with {
          ($0.stepID, $0.rank) = (14, 2)
          $0.filter = "mem>4"
          $0.prefetch = 3
          $0.prefetchPercent = 0
        })
    let bound = try await parsed(
      RecruiterCommand.Update.self, "recruiter update --step-id 14 --concurrency-max 4"
    ).request
    #expect(bound.hasConcurrencyMax && bound.concurrencyMax == 4 && !bound.hasConcurrency)
  }

  @Test("--timeout is the recruiter's behind its action, and the server's before it")
  func ownTimeout() async throws {
    let before = try await parsed(
      RecruiterCommand.Create.self,
      "--timeout 5s recruiter --timeout=7s create --step-id 14 --filter cpu>=8 --timeout 20 --json -s h:1")
    #expect(before.request.timeout == 20)
    #expect(before.globals.timeout == .seconds(7) && before.globals.json)
    #expect(before.globals.server == ServerAddress(host: "h", port: 1))
    let behind = try await parsed(
      RecruiterCommand.Update.self, "recruiter update --step-id 14 --timeout 30 --server-timeout 5s")
    #expect(behind.request.timeout == 30 && behind.globals.timeout == .seconds(5))
    let list = try await parsed(RecruiterCommand.List.self, "--timeout 5s recruiter list --step-id 14")
    #expect(list.globals.timeout == .seconds(5) && list.stepID == 14)
  }

  @Test("the other recruiter actions name a step and a rank")
  func recruiterVerbs() async throws {
    let delete = try await parsed(RecruiterCommand.Delete.self, "recruiter delete --step-id 14 --rank 2")
    #expect(delete.stepID == 14 && delete.rank == 2)
    #expect(try await parsed(RecruiterCommand.Show.self, "recruiter show --step-id 14").rank == 1)
    #expect(try await parsed(RecruiterCommand.Explain.self, "recruiter explain --step-id 14").rank == nil)
    #expect(try await parsed(RecruiterCommand.List.self, "recruiter list").stepID == nil)
  }

  @Test("workflows take a maximum cost, which 0 takes away, and tell their costs")
  func workflowCosts() async throws {
    let create = try await parsed(
      WorkflowCommand.Create.self, "workflow create --name w --maximum-cost 7.50")
    #expect(create.maximumCost == 7.5)
    let update = try await parsed(WorkflowCommand.Update.self, "workflow update --id 3 --maximum-cost 0")
    #expect(update.maximumCost == 0)
    let cost = try await parsed(WorkflowCommand.Cost.self, "workflow cost --name w")
    #expect(cost.name == "w" && cost.id == nil)
    let all = try await parsed(WorkflowCommand.Cost.self, "workflow cost")
    #expect(all.name == nil && all.id == nil)
  }

  @Test("a task's time estimate comes from a flag or a key, and is shown")
  func timeEstimate() async throws {
    let flags = try await parsed(TaskCreate.self, "task create --command x --time-estimate 1h30m").flags
    let task = try flags.draft.newTask()
    #expect(task.spec.timeEstimateMs == 5_400_000)
    let line = try JSONParser.parse(Array(#"{"command":"y","time_estimate":"15m"}"#.utf8))
    #expect(try TaskDraft(json: line).filled(from: flags.draft).newTask().spec.timeEstimateMs == 900_000)
    let silent = try JSONParser.parse(Array(#"{"command":"y"}"#.utf8))
    #expect(try TaskDraft(json: silent).filled(from: flags.draft).newTask().spec.timeEstimateMs == 5_400_000)
    var shown = WireTask()
    shown.spec = task.spec
    #expect(TaskRendering.block(shown, now: noon, piped).contains("time estimate: 1h 30m\n"))
    #expect(TaskRendering.json(shown).compact.contains("\"time_estimate_seconds\":5400"))
  }

  @Test(
    "misuse ends with status 2 and one sentence",
    arguments: [
      ("flavor list --limit 0", "'0' is no count"),
      ("flavor enable --provider p", "--flavor"),
      ("worker deploy --provider p", "--flavor"),
      ("worker deploy --provider p --flavor f --count 0", "'0' is no count"),
      ("recruiter create --step-id 1", "--filter"),
      ("recruiter create --step-id 1 --filter x --concurrency 0", "'0' is no count"),
      (
        "recruiter create --step-id 1 --filter x --concurrency 2 --memory-per-task 4",
        "--concurrency and --memory-per-task exclude each other: concurrency is fixed, or fitted to each worker"
      ),
      (
        "recruiter update --step-id 1 --concurrency 2 --concurrency-max 4",
        "--concurrency and --concurrency-max exclude each other"
      ),
      (
        "recruiter create --step-id 1 --filter x --prefetch 1 --prefetch-percent 50",
        "--prefetch and --prefetch-percent exclude each other"
      ),
      (
        "recruiter create --step-id 1 --filter x --cpu-per-task 1 --concurrency-min 5 --concurrency-max 4",
        "--concurrency-min 5 is more than --concurrency-max 4"
      ),
      (
        "recruiter create --step-id 1 --filter x --concurrency-max 4",
        "--concurrency-max alone fits nothing to a worker; say what a task takes"
      ),
      ("recruiter create --step-id 1 --filter x --cpu-per-task -1", "'-1' is no amount"),
      ("recruiter create --step-id 1 --filter x --cpu-per-task 0", "--cpu-per-task is 0; it is from 0.001"),
      ("recruiter update --step-id 1 --memory-per-task 1e9", "--memory-per-task is 1000000000; it is from"),
      ("flavor list --limit -1", "'-1' is no count"),
      ("workflow create --name w --maximum-cost -1.5", "'-1.5' is no cost"),
      ("recruiter create --step-id 1 --filter x --cpu-per-task nan", "'nan' is no amount"),
      ("recruiter create --step-id 1 --filter x --timeout soon", "'soon' is no duration"),
      ("recruiter create --step-id 1 --filter x --json --quiet", "exclude each other"),
      ("recruiter update --step-id 1", "nothing is to be changed"),
      ("recruiter delete --step-id 1", "--rank"),
      ("workflow cost --id 1 --name w", "exclude each other"),
      ("workflow create --name w --maximum-cost much", "'much' is no cost"),
      ("task create --command x --time-estimate soon", "'soon' is no duration"),
    ])
  func misuses(line: String, part: String) async throws {
    let end = try #require(await end(line))
    #expect(end.status == 2)
    #expect(end.text.contains(part), "\(end.text)")
    #expect(!end.text.contains("\n"), "\(end.text)")
  }

  @Test(
    "every command of the fleet has an example",
    arguments: [
      "flavor", "flavor list", "flavor enable", "flavor disable", "worker deploy", "recruiter",
      "recruiter list", "recruiter create", "recruiter show", "recruiter update", "recruiter delete",
      "recruiter explain", "workflow cost",
    ])
  func help(line: String) async throws {
    let end = try #require(await end(line + " --help"))
    #expect(end.status == 0 && end.text.contains("Example:\n  scitq \(line.split(separator: " ")[0])"))
  }

  // MARK: Rendering

  private var recruiter: WireRecruiter {
    .with {
      ($0.stepID, $0.rank, $0.filter) = (12, 1, "cpu>=8:mem>=30")
      ($0.concurrency, $0.prefetch, $0.rounds, $0.timeout, $0.maximumWorkers) = (4, 1, 3, 10, 50)
      ($0.stepName, $0.workflowID, $0.workers) = ("align", 3, 2)
    }
  }

  @Test("the line of a recruiter is the contract's, to the letter")
  func recruiterLine() {
    #expect(
      RecruiterRendering.line(recruiter)
        == "Step 12 | Rank 1 | Filter cpu>=8:mem>=30 | Concurrency=4 Prefetch=1 Rounds=3 Timeout=10 Maximum Workers=50"
    )
    var adaptive = recruiter
    (adaptive.concurrency, adaptive.prefetch, adaptive.prefetchPercent) = (0, 0, 50)
    (adaptive.cpuPerTask, adaptive.memoryPerTask, adaptive.diskPerTask) = (2, 8, 50)
    (adaptive.concurrencyMin, adaptive.concurrencyMax, adaptive.maximumWorkers) = (1, 10, 0)
    #expect(
      RecruiterRendering.line(adaptive) == """
        Step 12 | Rank 1 | Filter cpu>=8:mem>=30 | Concurrency=adaptive(CPU=2 Memory=8GB Disk=50GB Min=1 Max=10) \
        Prefetch=50% Rounds=3 Timeout=10 Maximum Workers=unlimited
        """)
    (adaptive.cpuPerTask, adaptive.diskPerTask, adaptive.concurrencyMin, adaptive.concurrencyMax) = (
      0, 0, 0, 0
    )
    adaptive.memoryPerTask = 7.5
    #expect(RecruiterRendering.line(adaptive).contains("| Concurrency=adaptive(Memory=7.5GB) Prefetch"))
  }

  @Test("a recruiter is shown line by line, and in JSON what is not stated is null")
  func recruiterBlock() {
    #expect(
      RecruiterRendering.block(recruiter, piped) == """
        step:        12 (align)
        rank:        1
        workflow:    3
        filter:      cpu>=8:mem>=30
        concurrency: 4
        prefetch:    1
        rounds:      3
        timeout:     10 s
        workers:     2 of at most 50

        """)
    var free = recruiter
    free.maximumWorkers = 0
    #expect(RecruiterRendering.block(free, piped).contains("workers:     2, without a maximum\n"))
    let json = RecruiterRendering.json(free).compact
    #expect(json.contains(#""concurrency":4,"cpu_per_task":null"#))
    #expect(json.contains(#""prefetch":1,"prefetch_percent":null,"maximum_workers":null"#))
    #expect(RecruiterRendering.id(recruiter) == "12 1")
  }

  @Test("what is no recruiter's rank is answered with those that are")
  func missingRecruiter() {
    #expect(
      "\(RecruiterCommand.missing(3, of: 12, among: [recruiter]))"
        == "step 12 has no recruiter of rank 3; it has rank 1")
    #expect("\(RecruiterCommand.missing(3, of: 12, among: []))".hasPrefix("step 12 has no recruiter; "))
  }

  @Test("the command that a sentence about a missing recruiter names can be parsed")
  func namedCommand() async throws {
    let sentence = "\(RecruiterCommand.missing(nil, of: 12, among: []))"
    let named = try #require(sentence.split(separator: "makes one: scitq ").last)
    let command = String(named).replacing("'", with: "")
    #expect(try await parsed(RecruiterCommand.Create.self, command).request.filter == "cpu>=2")
  }

  @Test("help of an update tells no defaults, which would not apply")
  func helpOfUpdate() async throws {
    let update = try #require(await end("recruiter update --help")).text
    let create = try #require(await end("recruiter create --help")).text
    for value in ["(default: 10)", "(default: 0)"] {
      #expect(create.contains(value) && !update.contains(value))
    }
  }

  @Test("a filter that is empty is shown as what holds all the same")
  func emptyFilter() {
    var free = recruiter
    free.filter = " "
    #expect(RecruiterRendering.line(free).hasPrefix("Step 12 | Rank 1 | Filter eviction<=5 | Concurrency=4 "))
    #expect(RecruiterRendering.block(free, piped).contains("filter:      eviction<=5\n"))
  }

  private var flavor: WireFlavor {
    .with {
      ($0.provider, $0.region, $0.name) = ("azure.primary", "swedencentral", "Standard_D8s_v3")
      ($0.cpu, $0.memoryGb, $0.eviction, $0.price, $0.spot) = (8, 32, 5, 0.0384, true)
    }
  }

  @Test("flavors have the columns of their list; a note comes where one is not bought for now")
  func flavors() {
    var gpu = flavor
    (gpu.name, gpu.diskGb, gpu.eviction, gpu.price, gpu.spot) = ("NC6", 1000, 0, 1.5, false)
    (gpu.gpu, gpu.gpuCount, gpu.gpuMemoryGb) = ("Tesla V100", 2, 16)
    #expect(
      FleetRendering.table([flavor, gpu]).rendered(piped) == """
        Provider\tRegion\tFlavor\tCPU\tMem\tDisk\tGPU\tEviction\tCost\tSpot
        azure.primary\tswedencentral\tStandard_D8s_v3\t8\t32 GB\t-\t-\t5%\t0.0384\tyes
        azure.primary\tswedencentral\tNC6\t8\t32 GB\t1000 GB\t2 × Tesla V100, 16 GB\t0%\t1.5000\tno

        """)
    var dear = flavor
    dear.disabled = true
    let noted = FleetRendering.table([flavor, dear]).rendered(piped)
    #expect(noted.contains("\tCost\tSpot\tNote\n") && noted.contains("0.0384\tyes\t\n"))
    #expect(noted.hasSuffix("0.0384\tyes\tdisabled\n"))
    #expect(FleetRendering.json(flavor).compact.contains(#""disk_gb":null"#))
    #expect(FleetRendering.noFlavor(filtered: false).contains("docs/fleet.md"))
    #expect(FleetRendering.noFlavor(filtered: true).contains("eviction<=5"))
  }

  @Test("to enable a flavor says what was forgotten, and never that nothing was done where something was")
  func enabled() {
    var request = WireEnableFlavor()
    (request.name, request.enabled) = ("D8", true)
    var answer = WireFlavorsEnabled()
    #expect(FleetRendering.enabled(request, answer) == "flavor D8 was enabled already")
    answer.forgotten = ["aws.primary eu-west-1: credentials, none"]
    #expect(
      FleetRendering.enabled(request, answer)
        == "flavor D8 may be bought again; forgotten: aws.primary eu-west-1: credentials, none")
    (answer.changed, request.region) = (1, "eu-west-1")
    #expect(
      FleetRendering.enabled(request, answer)
        == "flavor D8 in eu-west-1 enabled; forgotten: aws.primary eu-west-1: credentials, none")
    (request, answer) = (WireEnableFlavor.with { $0.name = "D8" }, .with { $0.changed = 2 })
    #expect(FleetRendering.enabled(request, answer) == "flavor D8 disabled in 2 regions")
  }

  @Test("what was deployed is a line a worker, with its id and name")
  func deployed() {
    let worker = WireDeployedWorker.with { ($0.id, $0.name) = (12, "scitq-12\n") }
    #expect(FleetRendering.deployed([worker]) == "worker 12 (scitq-12\\n) ordered\n")
  }

  @Test("workers show where they are rented and what they cost, and nothing of it where they are one's own")
  func workers() {
    var rented = WireWorker()
    (rented.id, rented.name, rented.status) = (3, "node-3", "running")
    (rented.provider, rented.region, rented.flavor) = ("azure.primary", "swedencentral", "D8")
    (rented.price, rented.cost, rented.endsAt) = (0.0384, 1.2345, noon)
    var own = WireWorker()
    (own.id, own.name, own.status) = (4, "mine", "running")
    #expect(
      WorkerRendering.table([rented, own], cost: true).rendered(piped) == """
        ID\tName\tStatus\tConcurrency\tPrefetch\tIPv4\tIPv6\tFlavor\tProvider\tRegion\tPrice\tCost
        3\tnode-3\trunning\t0\t0\t-\t-\tD8\tazure.primary\tswedencentral\t0.0384\t1.23
        4\tmine\trunning\t0\t0\t-\t-\t-\t-\t-\t-\t-

        """)
    let block = WorkerRendering.block(rented, piped)
    for line in [
      "provider:    azure.primary", "region:      swedencentral", "flavor:      D8",
      "price:       0.0384 an hour", "cost:        1.23", "ends at:     2025-10-29 17:58:22",
    ] {
      #expect(block.contains(line + "\n"), "\(block)")
    }
    let plain = WorkerRendering.block(own, piped)
    for name in ["provider", "price", "cost", "ends at"] { #expect(!plain.contains(name + ":")) }
    #expect(WorkerRendering.json(own).compact.contains(#""price":null,"cost":null,"ends_at":null"#))
    (rented.price, rented.cost) = (0, 0)
    #expect(WorkerRendering.table([rented], cost: true).rendered(piped).hasSuffix("\tswedencentral\t0\t0\n"))
    #expect(WorkerRendering.json(rented).compact.contains(#""price":0,"cost":0"#))
  }

  @Test(
    "of a host that never came nothing is shown that only it could tell, and what stands in its way is said")
  func deploying() {
    var worker = WireWorker()
    (worker.id, worker.name, worker.status) = (3, "scitq-x-3", "deploying")
    (worker.provider, worker.flavor, worker.reason) = ("aws.primary", "m5.large", "credentials: none")
    worker.createdAt = noon
    let block = WorkerRendering.block(worker, piped)
    for name in ["has", "engines", "last heard", "joined"] {
      #expect(!block.contains(name + ":"), "\(block)")
    }
    #expect(block.contains("ordered:     2025-10-29 17:58:22\n"), "\(block)")
    let json = WorkerRendering.json(worker).compact
    #expect(json.contains(#""cpu":null,"memory_bytes":null,"disk_bytes":null,"gpu":null,"engines":null"#))
    #expect(json.contains(#""last_beat_at":null"#))
    var other = worker
    other.id = 4
    var running = WireWorker()
    running.id = 5
    #expect(WorkerRendering.notes([running]).isEmpty)
    #expect(WorkerRendering.notes([worker, running]) == ["worker 3, deploying: credentials: none"])
    #expect(WorkerRendering.notes([worker, other]) == ["workers 3, 4, deploying: credentials: none"])
  }

  @Test("a workflow shows its cost and maximum where there are any")
  func workflow() {
    var flow = WireWorkflow()
    (flow.id, flow.name, flow.status, flow.strategy) = (3, "w", "R", "B")
    #expect(!FlowRendering.block(flow, piped).contains("cost:"))
    #expect(FlowRendering.json(flow).compact.contains(#""cost":0,"maximum_cost":null"#))
    (flow.cost, flow.maximumCost) = (1.5, 20)
    #expect(FlowRendering.block(flow, piped).contains("cost:     1.50 of at most 20.00\n"))
    (flow.cost, flow.maximumCost) = (12.6, 12.5)
    #expect(
      FlowRendering.block(flow, piped).contains("cost:     12.60 of at most 12.50: nothing more is bought\n"))
    (flow.cost, flow.maximumCost) = (0.005, 0.5)
    #expect(FlowRendering.block(flow, piped).contains("cost:     0.0050 of at most 0.5000\n"))
    (flow.cost, flow.maximumCost) = (1.5, 0)
    #expect(FlowRendering.block(flow, piped).contains("cost:     1.50\n"))
  }

  @Test("costs are a table with the total below")
  func costs() {
    var costs = WireCostList()
    costs.lines = [
      .with { ($0.kind, $0.id, $0.name, $0.hours, $0.cost) = ("workflow", 3, "w", 10.25, 12.345) },
      .with { ($0.kind, $0.name, $0.hours, $0.cost) = ("user", "alice", 1, 0.5) },
    ]
    costs.total = 12.845
    #expect(
      FleetRendering.table(costs).rendered(piped).hasPrefix("Kind\tID\tName\tHours\tCost\nworkflow\t3\tw\t"))
    costs.lines[0].maximum = 20
    let text = FleetRendering.table(costs).rendered(piped)
    #expect(text.hasPrefix("Kind\tID\tName\tHours\tCost\tMaximum\n"))
    #expect(text.contains("user\t-\talice\t1.00\t0.5000\t-\n"))
    #expect(FleetRendering.table(WireCostList()).rendered(piped).hasSuffix("\ntotal\t\t\t\t0\n"))
    #expect(FleetRendering.lines(costs) == "workflow 3 12.3450\nuser - 0.5000\ntotal - 12.8450\n")
    #expect(FleetRendering.cost(0.005) == "0.0050" && FleetRendering.cost(1) == "1.00")
    #expect(FleetRendering.json(costs).compact.contains(#""total":12.845"#))
  }
}
