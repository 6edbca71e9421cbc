package import Logging

/// Asks the metadata service of the cloud this host is in whether the host is taken back.
///
/// A service that does not answer, or says what is not understood, is asked again later and harms nothing;
/// people are told once, in the log.
package struct EvictionWatch: Sendable {
  package enum Cloud: String, Sendable, CaseIterable { case aws, azure, gcp }

  private let cloud: Cloud
  private let service: MetadataService
  private let pause: Duration
  private let logger: Logger
  /// Of aws, which answers nobody without one.
  private var token: String?
  private var wasUnclear = false

  /// - Parameter pause: between two questions. The shortest notice is 30 s.
  package init(
    _ cloud: Cloud, _ service: MetadataService = .usual, pause: Duration = .seconds(5), logger: Logger
  ) {
    self.cloud = cloud
    self.service = service
    self.pause = pause
    self.logger = logger
  }

  /// Asks until there is a notice. Nil when the task is canceled before.
  package mutating func next() async -> EvictionNotice? {
    while !Task.isCancelled {
      if let notice = await look() { return notice }
      try? await Task.sleep(for: pause)
    }
    return nil
  }

  /// Asks once.
  package mutating func look() async -> EvictionNotice? {
    let answer = await ask()
    if Task.isCancelled { return nil }
    switch answer {
    case .unclear(let why):
      if !wasUnclear {
        let asked = "the metadata service of \(cloud.rawValue) at \(service.address)"
        logger.warning(
          "\(asked) cannot tell whether this host is taken back: \(why); asked again every \(pause)")
      }
      wasUnclear = true
      return nil
    case .nothing, .notice:
      if wasUnclear { logger.notice("the metadata service of \(cloud.rawValue) answers again") }
      wasUnclear = false
      guard case .notice(let notice) = answer else { return nil }
      return notice
    }
  }

  private static let silence = EvictionAnswer.unclear("it does not answer")

  private mutating func ask() async -> EvictionAnswer {
    switch cloud {
    case .aws: return await askAWS()
    case .azure:
      let metadata = [("Metadata", "true")]
      guard
        let reply = await service.get("/metadata/scheduledevents?api-version=2020-07-01", metadata)
      else { return Self.silence }
      let answer = EvictionAnswer(azure: reply, host: nil)
      guard case .notice = answer else { return answer }
      // Whose host it is does not matter before.
      let name = await service.get(
        "/metadata/instance/compute/name?api-version=2021-02-01&format=text", metadata)
      guard let name, name.status == 200, !name.body.isEmpty else { return answer }
      return EvictionAnswer(azure: reply, host: name.body)
    case .gcp:
      guard
        let reply = await service.get(
          "/computeMetadata/v1/instance/preempted", [("Metadata-Flavor", "Google")])
      else { return Self.silence }
      return EvictionAnswer(gcp: reply)
    }
  }

  private mutating func askAWS() async -> EvictionAnswer {
    // A token is good for six hours: one that is no longer taken is replaced, once.
    for isFresh in [token == nil, true] {
      if isFresh {
        guard
          let reply = await service.put(
            "/latest/api/token", [("X-aws-ec2-metadata-token-ttl-seconds", "21600")])
        else { return Self.silence }
        guard reply.status == 200, !reply.body.isEmpty else {
          return .unclear("it gives no token: status \(reply.status)")
        }
        token = reply.body
      }
      guard
        let reply = await service.get(
          "/latest/meta-data/spot/instance-action", [("X-aws-ec2-metadata-token", token ?? "")])
      else { return Self.silence }
      if reply.status != 401 { return EvictionAnswer(aws: reply) }
      token = nil
    }
    return .unclear("it does not take its own token")
  }
}
