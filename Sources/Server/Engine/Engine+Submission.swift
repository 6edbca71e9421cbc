import Scheduling
import ScitqProtocol

/// New tasks.
extension Engine {
  func submit(_ submission: Submission, _ known: Known, _ reply: @escaping Command.Reply<WireTasksCreated>) {
    let key = Known.key(submission.owner.id, submission.key)
    if !submission.key.isEmpty {
      if let made = known.made[key] { return reply(.success(made)) }
      // The same call twice in one batch: the second is told what the first made.
      if let twin = batch.keys.first(where: { $0.user == submission.owner.id && $0.key == submission.key }) {
        var made = WireTasksCreated()
        made.firstID = twin.first
        made.count = twin.count
        if jobs[TaskID(twin.first - 1)] != nil { made.jobID = twin.first - 1 }
        return answer(reply, made)
      }
    }
    if let refusal = refusal(of: submission, known) { return reply(.failure(refusal)) }
    var made = WireTasksCreated()
    if let job = submission.job {
      made.jobID = nextTask
      nextTask += 1
      made.firstID = nextTask
      made.count = job.size
      submit(job, id: TaskID(made.jobID), owner: submission.owner, known)
    } else {
      made.firstID = nextTask
      made.count = Int64(submission.tasks.count)
      submit(submission.tasks, owner: submission.owner, known)
    }
    if !submission.key.isEmpty {
      batch.keys.append((submission.owner.id, submission.key, made.firstID, made.count))
    }
    answer(reply, made)
  }

  // MARK: What stands against it

  private func refusal(of submission: Submission, _ known: Known) -> CallError? {
    var checked: Set<StepID> = []
    let tasks = submission.job.map { [$0.header.task] } ?? submission.tasks
    for (index, task) in tasks.enumerated() {
      let place = tasks.count == 1 ? "" : " of task \(index + 1)"
      for dependency in task.dependencies where standing(TaskID(dependency), known) == nil {
        return CallError(
          .notFound, "dependency \(dependency)\(place) does not exist; name the id of a task or job",
          field: "dependency")
      }
      if task.stepID != 0, checked.insert(StepID(task.stepID)).inserted,
        let refusal = refusal(ofStep: StepID(task.stepID), submission.owner)
      {
        return refusal
      }
    }
    guard let job = submission.job else { return nil }
    for id in job.header.task.eachOf {
      guard let other = jobs[TaskID(id)] ?? known.jobs[TaskID(id)] else {
        return CallError(
          .notFound, "dependency \(id):N_TO_N is no job; name the id of an array", field: "dependency")
      }
      if other.size != job.size {
        return CallError(
          .invalid,
          "job \(id) has \(other.size) tasks and this one \(job.size): index by index, they must be as many",
          field: "dependency")
      }
    }
    return nil
  }

  private func refusal(ofStep id: StepID, _ user: User) -> CallError? {
    guard let workflow = workflow(of: id) else {
      return CallError(
        .notFound, "step \(id) does not exist; `scitq step list` shows those that do", field: "step-id")
    }
    if workflow.owner != user.id, !user.isAdmin {
      return CallError(
        .forbidden, "workflow \(workflow.name) is another user's: only its owner or an admin may add tasks",
        field: "step-id")
    }
    if workflow.state == .canceled {
      return CallError(
        .conflict, "workflow \(workflow.name) was canceled and takes no more tasks", field: "step-id")
    }
    return nil
  }

  // MARK: Making them

  private func submit(_ tasks: [WireNewTask], owner: User, _ known: Known) {
    var previous: (spec: WireTaskSpec, id: Int64, facts: SpecFacts)?
    var runs = Runs()
    var doomed: [TaskID] = []
    for task in tasks {
      if previous == nil || previous!.spec != task.spec {
        previous = (task.spec, insert(task.spec), SpecFacts(task.spec))
      }
      let (status, toCancel) = add(task, spec: previous!.id, previous!.facts, owner: owner, known)
      doomed.append(contentsOf: toCancel)
      runs.append(nextTask - 1, status)
    }
    finish(runs, doomed, owner)
  }

  private func submit(_ job: Submission.Job, id: TaskID, owner: User, _ known: Known) {
    let header = job.header
    let task = header.task
    let stride = header.stride == 0 ? 1 : header.stride
    var row = JobRow(
      id: id, kind: header.split ? .split : .array, name: task.name, owner: owner.id,
      step: task.stepID == 0 ? nil : StepID(task.stepID), size: job.size, firstIndex: header.firstIndex,
      stride: stride, createdAt: batch.now)
    batch.jobs.append(row)
    row.counts = StatusCounts()
    jobs[id] = row
    batch.event("job", id.rawValue, "submitted", user: owner.id)
    let spec = insert(task.spec)
    let facts = SpecFacts(task.spec)
    var runs = Runs()
    var doomed: [TaskID] = []
    for number in 0..<job.size {
      let index = header.firstIndex + number * stride
      var parameters = TaskParameters()
      if !header.columns.isEmpty {
        parameters.values = Dictionary(
          zip(header.columns, job.rows[Int(number)].values), uniquingKeysWith: { first, _ in first })
      }
      if header.split {
        parameters.inputs = job.rows[Int(number)].inputs
        parameters.folder = "\(index)"
      }
      var place = Place(job: id, index: index, parameters: parameters.json)
      if header.sequential, number > 0 { place.after.append(TaskID(nextTask - 1)) }
      for other in task.eachOf {
        if let tasks = known.jobTasks[TaskID(other)], number < tasks.count {
          place.after.append(tasks[Int(number)])
        } else {
          // Made by this very batch: its tasks follow its number.
          place.after.append(TaskID(other + 1 + number))
        }
      }
      let (status, toCancel) = add(task, spec: spec, facts, owner: owner, known, place: place)
      doomed.append(contentsOf: toCancel)
      runs.append(nextTask - 1, status)
    }
    finish(runs, doomed, owner)
  }

  func insert(_ spec: WireTaskSpec) -> Int64 {
    batch.specs.append((nextSpec, spec))
    nextSpec += 1
    return nextSpec - 1
  }

  /// What tasks in a row have in common.
  struct Runs {
    var all: [(status: TaskStatus, first: Int64, last: Int64)] = []

    mutating func append(_ id: Int64, _ status: TaskStatus) {
      if let last = all.last, last.status == status, last.last == id - 1 {
        all[all.count - 1].last = id
      } else {
        all.append((status, id, id))
      }
    }
  }

  private func finish(_ runs: Runs, _ doomed: [TaskID], _ owner: User) {
    for run in runs.all {
      batch.events.append(
        Batch.Event(
          object: "task", first: run.first, last: run.last, from: nil, to: run.status.rawValue, worker: nil,
          user: owner.id, reason: nil))
    }
    // Only now: the event of their creation comes before that of their end.
    cancelDependents(doomed)
  }

  /// How a task or job named as a prerequisite stands: a task's newest attempt. Nil when there is none of that id.
  func standing(_ id: TaskID, _ known: Known) -> (id: TaskID, status: TaskStatus)? {
    guard var row = known.newest[id] ?? batch.inserted(id) else {
      return (jobs[id] ?? known.jobs[id]).map { (id, $0.status) }
    }
    // This very batch may have put a clone in its place, or ended it.
    while let next = batch.updated[row.id]?.next ?? row.next, let clone = batch.inserted(next) { row = clone }
    let status =
      cluster.task(row.id)?.status ?? batch.updated[row.id]?.status ?? batch.ended[row.id]?.status
      ?? batch.inserted(row.id)?.status
    return (row.id, status ?? row.status)
  }

  /// A task's place in a job.
  private struct Place {
    var job: TaskID
    var index: Int64
    var parameters: String?
    /// What it waits for beside what all wait for.
    var after: [TaskID] = []
  }

  private func add(
    _ task: WireNewTask, spec: Int64, _ facts: SpecFacts, owner: User, _ known: Known, place: Place? = nil
  ) -> (status: TaskStatus, toCancel: [TaskID]) {
    let id = TaskID(nextTask)
    nextTask += 1
    var row = TaskRow(
      id: id, specID: spec, owner: owner.id, status: .pending, place: id.rawValue, createdAt: batch.now)
    row.name = task.name
    row.step = task.stepID == 0 ? nil : StepID(task.stepID)
    row.priority = task.priority
    row.weightMilli = task.weight == 0 ? 1000 : max(1, Int32(clamping: Int64((task.weight * 1000).rounded())))
    row.retry = Int32(clamping: task.retry)
    row.acceptFailure = task.acceptFailure
    row.cancelWithPrerequisite = task.onDependencyFailure == .cancel
    row.job = place?.job
    row.arrayIndex = place?.index
    row.parameters = place?.parameters
    var unmet: [TaskID] = []
    var failed: [(id: TaskID, status: TaskStatus)] = []
    for dependency in Set(task.dependencies.map { TaskID($0) } + (place?.after ?? [])).sorted() {
      guard let prerequisite = standing(dependency, known) else { continue }
      let met =
        prerequisite.status == .succeeded || prerequisite.status == .failed && row.acceptFailure
      batch.dependencies.append((id, prerequisite.id, met))
      if row.step != nil, let thread = thread(of: prerequisite.id, in: row.step, known) {
        row.place = min(row.place, thread)
      }
      if met || unmet.contains(prerequisite.id) { continue }
      unmet.append(prerequisite.id)
      if prerequisite.status.isFinal { failed.append(prerequisite) }
    }
    let isDraft = workflow(of: row.step)?.state == .draft
    if task.spec.skipIfExists {
      row.unchecked = true
      unmet.append(Self.check(of: id))
      if !isDraft { announcement.checks.append(id) }
    }
    row.status = isDraft ? .inactive : unmet.isEmpty ? .pending : .waiting
    if row.status == .pending { row.readyAt = batch.now }
    row.unmet = Int32(unmet.count)
    insert(row)
    cluster.add(entry(row, facts.needs(row.memoryMilli)), waitingFor: unmet)
    setTimers(of: row, facts)
    let toCancel = failed.flatMap { cluster.settle($0.id, outcome: $0.status).toCancel }
    return (row.status, toCancel)
  }

  /// The place of the thread that a prerequisite belongs to, where it is of the same workflow: tasks of one thread
  /// stand together in the queue.
  private func thread(of prerequisite: TaskID, in step: StepID?, _ known: Known) -> Int64? {
    guard let row = batch.inserted(prerequisite) ?? active[prerequisite] ?? known.newest[prerequisite],
      let other = workflow(of: row.step), other.id == workflow(of: step)?.id
    else { return nil }
    return row.place
  }

  /// What a task waits for that is to be skipped when its output exists: in the cluster, a prerequisite of a number
  /// that no task has.
  static func check(of id: TaskID) -> TaskID { TaskID(-id.rawValue) }

  func checked(_ id: TaskID, existing: String?) {
    // It may have been canceled meanwhile. One that was suspended is run when it is resumed.
    guard let entry = cluster.task(id), entry.status == .waiting || entry.status == .suspended else { return }
    batch.checked.append(id)
    if let existing, entry.status == .waiting {
      end(
        id, .succeeded, nil, "not run: there are files at \(existing) already", by: .server, user: nil)
    }
    settle(Self.check(of: id), .succeeded)
  }
}
