import FoundationEssentials

/// A cloud's word that it takes this host back, which it keeps within half a minute to two minutes.
package struct EvictionNotice: Sendable, Hashable {
  /// In the cloud's own writing, which people read; nil: it does not say.
  package var time: String?

  package init(time: String? = nil) {
    // It is shown to people: a line, whatever a service said.
    let line = time.map { String($0.filter { !$0.isNewline }.prefix(64)) }
    self.time = line?.isEmpty == true ? nil : line
  }

  /// What people are told.
  package var warning: String {
    time.map { "the host will be taken back at \($0)" } ?? "the host is being taken back"
  }
}

/// What an answer of a metadata service means.
package enum EvictionAnswer: Sendable, Hashable {
  case nothing
  case notice(EvictionNotice)
  /// It means nothing that is known here; a reason for people.
  case unclear(String)
}

extension EvictionAnswer {
  /// The `spot/instance-action` of aws: not there until there is a notice. Stopped and hibernated hosts are
  /// taken back as those that are terminated are: nothing runs there then.
  package init(aws reply: MetadataService.Reply) {
    struct Action: Decodable {
      var action: String
      var time: String?
    }
    switch reply.status {
    case 404: self = .nothing
    case 200:
      guard let action = try? JSONDecoder().decode(Action.self, from: Data(reply.body.utf8)) else {
        self = .unclear("its instance-action is not understood")
        return
      }
      self = .notice(EvictionNotice(time: action.time))
    default: self = .unclear("it answers with status \(reply.status)")
    }
  }

  /// The scheduled events of azure, which are told to all hosts of a set: only those that name this one are
  /// its own.
  /// - Parameter host: the name by which azure knows this host; nil: it is not known, and every event counts,
  ///   since a host that drains for nothing costs less than work that is cut off.
  package init(azure reply: MetadataService.Reply, host: String?) {
    struct Events: Decodable { var Events: [Event] }
    struct Event: Decodable {
      var EventType: String
      var Resources: [String]?
      var NotBefore: String?
    }
    guard reply.status == 200 else {
      self = .unclear("it answers with status \(reply.status)")
      return
    }
    guard let list = try? JSONDecoder().decode(Events.self, from: Data(reply.body.utf8)) else {
      self = .unclear("its scheduled events are not understood")
      return
    }
    let own = list.Events.first { event in
      guard event.EventType == "Preempt" else { return false }
      guard let host, let named = event.Resources, !named.isEmpty else { return true }
      return named.contains { $0.lowercased() == host.lowercased() }
    }
    // One that has begun has no time any more.
    self = own.map { .notice(EvictionNotice(time: $0.NotBefore)) } ?? .nothing
  }

  /// The `instance/preempted` of gcp: TRUE, without a time, from the notice on.
  package init(gcp reply: MetadataService.Reply) {
    guard reply.status == 200 else {
      self = .unclear("it answers with status \(reply.status)")
      return
    }
    switch reply.body.filter({ !$0.isWhitespace }).uppercased() {
    case "TRUE": self = .notice(EvictionNotice())
    case "FALSE": self = .nothing
    default: self = .unclear("its preempted is neither TRUE nor FALSE")
    }
  }
}
