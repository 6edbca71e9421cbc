import Foundation
import ScitqProtocol
import SwiftProtobuf
import Testing
import Transfer

@testable import ScitqClient

@Suite("Rendering")
struct RenderingTests {
  private let zone = TimeZone(secondsFromGMT: 2 * 3600)!
  private var piped: OutputStyle { .piped(zone: zone) }
  private func screen(_ width: Int, colour: Bool = false) -> OutputStyle {
    OutputStyle(width: width, colour: colour, zone: zone)
  }

  /// 2025-10-29 15:58:22.123456 UTC.
  private let noon: Int64 = 1_761_753_502_123_456

  private var task: WireTask {
    var task = WireTask()
    task.id = 12
    task.name = "align"
    task.status = "F"
    task.spec.command = "bwa mem ref.fa reads.fq\nsort"
    task.spec.container = "bwa:0.7"
    task.spec.shell = "sh"
    task.spec.inputs = ["s3://b/reads.fq"]
    task.spec.output = "s3://b/out/"
    task.spec.env = ["B": "2", "A": "1"]
    task.spec.needs.cpu = 1.5
    task.spec.needs.memoryBytes = 8 << 30
    task.spec.runTimeoutMs = 7_200_000
    task.workerID = 3
    task.workerName = "node-3"
    task.hasExitCode_p = true
    task.exitCode = 1
    task.reason = "exit-code"
    task.message = "the command ended with exit code 1"
    task.weight = 1
    task.attempt = 2
    task.retry = 1
    task.previousTaskID = 7
    task.dependencies = [4, 5]
    task.createdAt = noon
    task.assignedAt = noon + 1_000_000
    task.downloadStartedAt = noon + 2_000_000
    task.runStartedAt = noon + 62_000_000
    task.runEndedAt = noon + 187_000_000
    task.endedAt = noon + 187_500_000
    task.outBytes = 2048
    task.owner = "alice"
    var file = WireTransferredFile()
    file.uri = "s3://b/out/a.bam"
    file.bytes = 1_500_000
    file.hash = "md5:00"
    task.outputs = [file]
    return task
  }

  @Test("a list for another program has tabs, whole cells, one line a task and no colour")
  func pipedList() {
    let table = TaskRendering.table([task], showHidden: true, now: noon, piped)
    #expect(
      table.rendered(piped) == """
        ID\tNAME\tSTATUS\tWORKER\tSTEP\tCONTAINER\tCOMMAND\tCREATED\tDURATION\tHIDDEN
        12\talign\tF\tnode-3\t-\tbwa:0.7\tbwa mem ref.fa reads.fq\\nsort\t2025-10-29 17:58:22\t2m 05s\tno

        """)
  }

  @Test("a list on a screen lines up, and its widest columns give way until a row fits")
  func screenList() {
    var other = WireTask()
    other.id = 1000
    other.status = "R"
    other.spec.command = "true"
    other.createdAt = noon
    other.runStartedAt = noon
    let table = TaskRendering.table([other, task], showHidden: false, now: noon + 500_000, screen(200))
    #expect(
      table.rendered(screen(200)) == """
          ID  NAME   STATUS  WORKER  STEP  CONTAINER  COMMAND                        CREATED              DURATION
        1000  -      R       -          -  bare       true                           2025-10-29 17:58:22    500 ms
          12  align  F       node-3     -  bwa:0.7    bwa mem ref.fa reads.fq\\nsort  2025-10-29 17:58:22    2m 05s

        """)
    for width in [90, 96, 100] {
      let lines = table.rendered(screen(width)).split(separator: "\n")
      #expect(lines.allSatisfy { $0.count <= width })
      #expect(lines.contains { $0.contains("…") })
    }
  }

  @Test("colour is there when asked for, and takes no width")
  func colour() {
    let table = TaskRendering.table([task], showHidden: false, now: noon, screen(200, colour: true))
    let coloured = table.rendered(screen(200, colour: true))
    #expect(coloured.contains("\u{1B}[31mF\u{1B}[0m"))
    let plain = coloured.replacing(/\u{1B}\[[0-9]+m/, with: "")
    #expect(plain == table.rendered(screen(200)))
  }

  @Test("a task is shown with all that is set, in the user's zone")
  func block() {
    #expect(
      TaskRendering.block(task, now: noon, piped)
        == """
        task:         12
        name:         align
        status:       F (failed)
        exit code:    1
        reason:       exit-code
        message:      the command ended with exit code 1
        owner:        alice
        worker:       node-3
        container:    bwa:0.7
        shell:        sh
        command:      \("")
            bwa mem ref.fa reads.fq
            sort
        input:        s3://b/reads.fq
        output:       s3://b/out/
        env:          A=1
        env:          B=2
        needs:        1.5 CPU, 8 GB memory
        run timeout:  2h 00m
        attempt:      2
        retries left: 1
        retry of:     task 7
        depends on:   4, 5
        created:      2025-10-29 17:58:22
        assigned:     2025-10-29 17:58:23
        run started:  2025-10-29 17:59:24
        run ended:    2025-10-29 18:01:29
        ended:        2025-10-29 18:01:29
        download took: 1m 00s
        run took:     2m 05s
        upload took:  500 ms
        stdout:       2.0 kB
        uploaded:     s3://b/out/a.bam  1.5 MB

        """.replacing(/(?m)^([a-z ]+:) +/) { match in
          match.1.padding(toLength: 15, withPad: " ", startingAt: 0)
        })
  }

  @Test("in JSON times are RFC 3339 in UTC, and what is not set is null")
  func json() throws {
    let json = TaskRendering.json(task)
    let parsed = try JSONParser.parse(Array(json.compact.utf8))
    #expect(parsed.compact == json.compact)
    guard case .object(let members) = parsed else {
      Issue.record("no object")
      return
    }
    let values = Dictionary(uniqueKeysWithValues: members.map { ($0.key, $0.value) })
    #expect(values["created_at"] == .string("2025-10-29T15:58:22.123456Z"))
    #expect(values["next_task_id"] == .null)
    #expect(values["exit_code"] == .integer(1))
    #expect(values["status"] == .string("F"))
    #expect(values["run_timeout_seconds"] == .integer(7200))
    #expect(try JSONParser.parse(Array(TaskRendering.json(WireTask()).pretty.utf8)) != .null)
  }

  @Test("an end is told in a sentence")
  func ending() {
    #expect(
      TaskRendering.ending(task) == "task 12 (a retry of task 7) failed: the command ended with exit code 1")
    var good = WireTask()
    good.id = 1
    good.status = "S"
    #expect(TaskRendering.ending(good) == "task 1 succeeded")
  }

  @Test("workers have the contract's columns")
  func workers() {
    var worker = WireWorker()
    worker.id = 3
    worker.name = "node-3"
    worker.status = "running"
    worker.concurrency = 4
    worker.prefetch = 1
    worker.ipv4 = "10.0.0.3"
    #expect(
      WorkerRendering.table([worker]).rendered(piped) == """
        ID\tName\tStatus\tConcurrency\tPrefetch\tIPv4\tIPv6\tFlavor\tProvider\tRegion
        3\tnode-3\trunning\t4\t1\t10.0.0.3\t-\t-\t-\t-

        """)
  }

  @Test("worker statistics show each figure of the contract, and dashes before the first beat")
  func stats() {
    var silent = WireWorkerStats()
    silent.workerID = 2
    silent.name = "new"
    var worker = WireWorkerStats()
    worker.workerID = 3
    worker.name = "node-3"
    worker.stats.cpuPercent = 12.34
    worker.stats.memoryPercent = 50
    worker.stats.load = 1.5
    worker.stats.iowaitPercent = 0.1
    var disk = WireDiskStats()
    disk.mount = "/"
    disk.totalBytes = 100_000_000_000
    disk.usedBytes = 25_000_000_000
    worker.stats.disks = [disk]
    worker.stats.diskReadBytesPerSecond = 1_000_000
    worker.stats.networkReceivedBytesPerSecond = 10
    worker.stats.running = 2
    #expect(
      WorkerRendering.statsTable([silent, worker]).rendered(piped) == """
        ID\tName\tCPU\tMemory\tLoad\tI/O wait\tDisk\tDisk read\tDisk write\tNet in\tNet out\tRunning
        2\tnew\t-\t-\t-\t-\t-\t-\t-\t-\t-\t-
        3\tnode-3\t12.3%\t50.0%\t1.50\t0.1%\t/ 25.0% of 100.0 GB\t1.0 MB/s\t0 B/s\t10 B/s\t0 B/s\t2

        """)
  }

  @Test("users have the contract's columns")
  func users() {
    var user = WireUserView()
    user.id = 1
    user.username = "admin"
    user.email = "a@b.c"
    user.admin = true
    #expect(
      UserRendering.table([user]).rendered(piped)
        == "User ID\tUsername\tEmail\tAdmin\n1\tadmin\ta@b.c\tyes\n")
  }

  @Test("the status screen has the server, the fleet, the queue and what to worry about")
  func status() {
    var status = WireServerStatus()
    status.software = "scitq 0.1.0"
    status.startedAt = noon
    status.workersConnected = 2
    status.workersKnown = 3
    status.slots = 8
    status.slotsUsed = 2.5
    status.databaseBytes = 2_000_000
    status.diskFreeBytes = 5_000_000_000
    status.tasks = [
      .with {
        $0.status = "R"
        $0.count = 3
      },
      .with {
        $0.status = "P"
        $0.count = 10
      },
    ]
    status.warnings = ["the disk is nearly full"]
    #expect(
      StatusRendering.text(status, address: ServerAddress(host: "h"), now: noon + 7_620_000_000, piped) == """
        server:   scitq 0.1.0 at h:50051
        up since: 2025-10-29 17:58:22 (2h 07m)
        workers:  2 connected of 3 known
        slots:    2.5 used of 8
        tasks:    10 pending, 3 running
        database: 2.0 MB, 5.0 GB free on its disk
        warning:  the disk is nearly full

        """)
  }

  @Test("a failed login has the contract's two shapes")
  func login() {
    let unreachable = LoginFailure(
      CallError(.unavailable, "dial tcp [::1]:50051: connection refused"), user: "alice", at: noon, zone: zone
    )
    #expect(
      unreachable.description == """
        2025/10/29 17:58:22 login failed: rpc error: code = Unavailable desc = connection error: desc = \
        "transport: Error while dialing: dial tcp [::1]:50051: connection refused" (alice)
        """)
    let wrong = LoginFailure(
      CallError(.unauthenticated, "name or password are wrong"), user: "alice", at: noon, zone: zone)
    #expect(
      wrong.description
        == "2025/10/29 17:58:22 login failed: rpc error: code = Unauthenticated desc = invalid credentials (alice)"
    )
  }

  @Test("a progress bar fits its width, and says how much, how fast and how long")
  func progress() {
    let progress = TransferProgress(bytes: 500_000_000, totalBytes: 1_000_000_000, files: 3, totalFiles: 7)
    #expect(
      ProgressBar.line(progress, elapsed: .seconds(5), width: 100)
        == "[===============>              ]  50%  500.0 MB of 1.0 GB  100.0 MB/s  5.0 s left  3/7 files")
    for width in 10..<120 {
      #expect(ProgressBar.line(progress, elapsed: .seconds(5), width: width).count <= width)
    }
    let unknown = TransferProgress(bytes: 500, totalBytes: 0, files: 0, totalFiles: 0)
    #expect(ProgressBar.line(unknown, elapsed: .zero, width: 80) == "500 B  0 B/s")
  }

  @Test("quantities are rounded as people expect")
  func quantities() {
    #expect(Quantity.bytes(999) == "999 B")
    #expect(Quantity.bytes(1000) == "1.0 kB")
    #expect(Quantity.bytes(999_999) == "1.0 MB")
    #expect(Quantity.bytes(.max) == "9.2 EB")
    #expect(Quantity.duration(59_990_000) == "59.9 s")
    #expect(Quantity.duration(3_599_000_000) == "59m 59s")
    #expect(Quantity.duration(90_000_000_000) == "1d 01h")
    #expect(Quantity.duration(-5) == "0 ms")
    #expect(Quantity.gigabytes(1 << 29) == "0.5 GB")
    #expect(Quantity.fixed(-0.01, places: 1) == "0.0")
  }

  @Test("a log that is read again after a lost connection is not printed twice")
  func logProgress() {
    var progress = LogProgress()
    func part(_ stream: WireLogStream, _ offset: Int64, _ text: String) -> String {
      var part = WireLogData()
      part.stream = stream
      part.offset = offset
      part.data = Data(text.utf8)
      return String(decoding: progress.unseen(part), as: UTF8.self)
    }
    #expect(part(.out, 0, "hello") == "hello")
    #expect(part(.err, 0, "oops") == "oops")
    #expect(part(.out, 0, "hello wor") == " wor")
    #expect(part(.out, 3, "lo") == "")
    #expect(part(.out, 9, "ld") == "ld")
    #expect(part(.err, 4, "!") == "!")
  }

  @Test("a hidden line can be corrected, ended and given up")
  func secretLine() {
    var line = SecretLine()
    for byte in Array("paé".utf8) { #expect(line.take(byte) == .more) }
    #expect(line.take(0x7F) == .more)
    #expect(line.bytes == Array("pa".utf8))
    #expect(line.take(0x15) == .more)
    #expect(line.bytes.isEmpty)
    #expect(line.take(0x7F) == .more)
    #expect(line.take(0x03) == .interrupted)
    #expect(line.take(0x0A) == .done)
  }
}
