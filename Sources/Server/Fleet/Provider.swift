import Scheduling
import ScitqProtocol
import SystemPackage

/// Who rents hosts out: what it has, one more of it, one less, and what there is.
///
/// Each is a small value over the argument vectors and the JSON of the provider's own command line. None keeps state:
/// a server that starts anew asks what there is. None retries: that is the fleet's to decide, by the class of the
/// failure. Every call ends by itself, however the client behaves (`ClientProgram` has the deadlines).
protocol Provider: Sendable {
  /// What can be had there. A failure leaves what was known.
  func flavors(in region: String) async throws(ProviderError) -> [Flavor]

  /// Makes the host of an order, or finds the one that was made for it before. The order's key is the tag, and the
  /// client's token where there is such a thing. Returns when the provider knows the host, not when it has booted.
  func deploy(_ order: InstanceOrder) async throws(ProviderError) -> Instance

  /// Returns a host. One that is gone is a success; success means that the provider has begun, and `instances` tells
  /// when it has done it.
  func terminate(_ instance: Instance) async throws(ProviderError)

  /// All hosts there that carry this server's tag, whatever their state, but for those that are gone.
  func instances(in region: String) async throws(ProviderError) -> [Instance]
}

/// What is asked of a provider.
struct InstanceOrder: Sendable {
  /// The tag by which the host is known ever after: `scitq-SERVER-NUMBER`, of lower-case letters, digits and hyphens,
  /// at most 40 of them, so that it can be the host's name as well.
  var key: String
  var flavor: Flavor
  /// What the host is to do when it boots.
  var boot: BootScript
  /// How many tasks its worker is to run at once.
  var concurrency: Int
}

/// A host as its provider tells of it.
struct Instance: Sendable, Hashable {
  enum State: String, Sendable {
    /// It was asked for, and has not begun to run.
    case pending
    case running
    /// It stands still by its provider's will, and will go on: it is not lost.
    case suspended
    /// It is on its way out.
    case leaving
  }

  /// The order's.
  var key: String
  /// The provider's own name for it.
  var id: String
  var region: String
  var state: State
  /// Where it can be reached, as far as its provider tells.
  var address = ""
  /// When its provider will end it, in microseconds UTC; nil: not by itself.
  var endsAt: Int64?
}

/// Why a provider did not do what it was asked. Each class has its own answer.
struct ProviderError: Error, Sendable, Hashable, CustomStringConvertible {
  enum Class: String, Sendable, CaseIterable {
    /// It has none of these now: try another flavor or region, and this one again later.
    case capacity
    /// What this account may have at once is used up: the limit is learned.
    case quota
    /// It does not know the flavor, or not here: not asked for again for long.
    case unsupported
    /// It does not accept who asks: nothing can be done until a person has.
    case credentials
    /// Its client cannot be run, or the configuration names what does not exist: a person must look.
    case misconfigured
    /// It may be better in a while: back off.
    case transient
  }

  var kind: Class
  /// One sentence for people, without secrets.
  var message: String
  /// With `quota`: how many instances the account may have, where the provider says so.
  var limit: Int?

  init(_ kind: Class, _ message: String, limit: Int? = nil) {
    self.kind = kind
    self.message = message
    self.limit = limit
  }

  var description: String { message }
}

extension ProviderConfiguration {
  /// The provider itself.
  /// - Parameters:
  ///   - server: this server's own id, the same as in the keys of its orders: hosts of other servers are not seen.
  ///   - folder: where the provider may keep files of its hosts (`local`), or put what it hands to its client.
  func provider(server: String, folder: FilePath) -> any Provider {
    switch kind {
    case .local: LocalProvider(self, server: server, folder: folder)
    case .ssh: SSHProvider(self, server: server, folder: folder)
    case .aws: AWSProvider(self, server: server, folder: folder)
    case .openstack: OpenStackProvider(self, server: server, folder: folder)
    case .azure: AzureProvider(self, server: server, folder: folder)
    case .gcp: GCPProvider(self, server: server, folder: folder)
    case .slurm: SlurmProvider(self, server: server, folder: folder)
    case .exec: ExecProvider(self, server: server, folder: folder)
    }
  }
}
