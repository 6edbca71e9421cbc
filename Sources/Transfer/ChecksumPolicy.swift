import ScitqProtocol

/// How it is made sure that what has arrived is what was stored. Sizes are always compared.
package enum ChecksumPolicy: String, Sendable, Hashable, CaseIterable {
  /// A file for which the store tells no hash is a failure.
  case require
  /// Hashes are compared where both sides have one. Where the store tells none, the MD5 of the bytes on this
  /// machine is recorded.
  case record
  /// No hash is asked for, compared or computed.
  case off
}

/// What the policies of both ends ask of one delivery.
struct DeliveryChecks: Sendable {
  var source: ChecksumPolicy
  var target: ChecksumPolicy

  /// Neither end forbids it.
  var comparesHashes: Bool { source != .off && target != .off }

  /// Throws `.checksum` where the source has to tell hashes and tells none of some file.
  func check(_ selection: Selection) throws(TransferFailure) {
    guard source == .require, let item = selection.items.first(where: { $0.hash.isEmpty }) else { return }
    throw Self.noHash(selection.uri(of: item), selection.uri.scheme)
  }

  static func noHash(_ file: String, _ remote: String) -> TransferFailure {
    TransferFailure(
      .checksum,
      "\(file): the remote \"\(remote)\" tells no hash of this file, and its checksum policy is require; record or off would allow it"
    )
  }
}
