import ScitqProtocol

extension Launch {
  init(_ attempt: Attempt, settings: WireWorkerSettings, host: WireHostDescription) {
    let spec = attempt.spec
    let share = Double(max(1, settings.concurrency))
    let cpus = spec.needs.cpu > 0 ? spec.needs.cpu.rounded(.up) : (host.cpu / share).rounded(.down)
    let memory =
      spec.needs.memoryBytes > 0 ? Double(spec.needs.memoryBytes) : Double(host.memoryBytes) / share
    let gib = memory / Double(1 << 30)
    var environment = spec.env
    environment["CPU"] = String(Int(max(1, cpus)))
    environment["THREADS"] = environment["CPU"]
    // Whole GiB, as tools want it; less than one in tenths.
    environment["MEM"] = gib >= 1 ? String(Int(gib)) : "0.\(max(1, Int(gib * 10)))"
    environment["SCITQ_TASK_ID"] = String(attempt.id.task.rawValue)
    environment["SCITQ_ATTEMPT"] = String(max(1, attempt.order.attempt))
    if attempt.order.inArray {
      environment["SCITQ_ARRAY_INDEX"] = String(attempt.order.arrayIndex)
      environment["SCITQ_ARRAY_SIZE"] = String(attempt.order.arraySize)
    }
    self.init(
      attempt: attempt.id, image: Engines.isBare(spec.container) ? "" : spec.container, command: spec.command,
      shell: spec.shell, environment: environment, options: spec.containerOptions, needs: spec.needs,
      folders: attempt.folders.launch)
  }
}
