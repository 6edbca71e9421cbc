import Foundation

/// What a new host does when it boots, as a shell script: cloud-init takes it as user data, ssh and Slurm run it as it is.
///
/// It fetches the worker from the server with a ticket that is good for one host, checks what it got, installs what is
/// missing, and joins. The ticket is in it, so it is given to programs by file or standard input, never in an argument.
struct BootScript: Sendable {
  /// Where the server is reached from hosts: HOST:PORT.
  var server: String
  /// The server's authority (PEM), so that nobody else is believed.
  var authority: String
  var authorityFingerprint: String
  var ticket: String
  /// Of the worker's program, in hexadecimal.
  var sha256: String
  /// The worker's name, which is the order's key.
  var name: String
  var concurrency: Int
  var prefetch: Int
  /// Whether docker and rclone are installed where they are missing.
  var installs: Bool
  /// The folder in which everything of this host is kept.
  var folder = "/var/lib/scitq"
  /// Whether the worker becomes the script itself (a batch job), instead of going on after it.
  var staysInForeground = false
  /// What of the machine is its own, where it shares that with others: CPUs, and memory in GiB.
  var share: (cpu: Double, memory: Double)?
  /// Whose metadata service tells when the host is taken back: aws, azure, gcp or none.
  var metadata = "none"

  var text: String {
    Self.template
      .replacing("@SERVER@", with: server).replacing(
        "@AUTHORITY@", with: authority.trimmingCharacters(in: .newlines)
      )
      .replacing("@TICKET@", with: ticket).replacing("@FINGERPRINT@", with: authorityFingerprint)
      .replacing("@SHA256@", with: sha256).replacing("@NAME@", with: name)
      .replacing("@CONCURRENCY@", with: "\(concurrency)").replacing("@PREFETCH@", with: "\(prefetch)")
      .replacing("@FOLDER@", with: folder).replacing("@INSTALL@", with: installs ? "yes" : "no")
      .replacing(
        "@SHARE@", with: share.map { "--max-cpu \($0.cpu) --max-mem \($0.memory)" } ?? ""
      )
      .replacing("@METADATA@", with: metadata).replacing(
        "@FOREGROUND@", with: staysInForeground ? "yes" : "no")
  }

  private static let template = String(decoding: PackageResources.boot_sh, as: UTF8.self)
}
