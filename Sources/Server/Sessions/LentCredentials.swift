import Foundation
import ScitqProtocol
import Subprocess

/// Short-lived keys of an S3 store, had from its token service by the provider's own command line, for users who would
/// otherwise be given the long-lived ones.
struct LentCredentials {
  let name: String
  let remote: Remote
  let lending: Remote.Lending

  private struct Answer: Decodable {
    struct Credentials: Decodable {
      var AccessKeyId: String
      var SecretAccessKey: String
      var SessionToken: String
    }
    var Credentials: Credentials
  }

  /// The remote's settings with keys that end by themselves. Where only reading is allowed and a role is assumed, they
  /// allow no more than that.
  func settings(for user: User) async throws(CallError) -> [String: String] {
    var arguments = ["sts"]
    if let role = lending.role {
      arguments += ["assume-role", "--role-arn", role, "--role-session-name", Self.session(user)]
      if remote.isReadOnly { arguments += ["--policy", Self.readingOnly] }
    } else {
      arguments += ["get-session-token"]
    }
    arguments += ["--duration-seconds", "\(lending.duration.components.seconds)", "--output", "json"]
    let answer = try await ask(arguments)
    var settings = remote.settings
    settings["access_key_id"] = answer.AccessKeyId
    settings["secret_access_key"] = answer.SecretAccessKey
    settings["session_token"] = answer.SessionToken
    settings["env_auth"] = "false"
    return settings
  }

  private func ask(_ arguments: [String]) async throws(CallError) -> Answer.Credentials {
    var variables: [Environment.Key: String?] = [
      "AWS_ACCESS_KEY_ID": remote.settings["access_key_id"],
      "AWS_SECRET_ACCESS_KEY": remote.settings["secret_access_key"],
      "AWS_SESSION_TOKEN": remote.settings["session_token"],
      "AWS_DEFAULT_REGION": remote.settings["region"] ?? "us-east-1",
      "AWS_EC2_METADATA_DISABLED": "true",
    ]
    if let endpoint = lending.endpoint { variables["AWS_ENDPOINT_URL_STS"] = endpoint }
    let why: String
    do {
      let result = try await Subprocess.run(
        .name("aws"), arguments: Arguments(arguments), environment: .inherit.updating(variables),
        output: .bytes(limit: 1 << 20), error: .string(limit: 1 << 16))
      if result.terminationStatus.isSuccess {
        return try JSONDecoder().decode(Answer.self, from: Data(result.standardOutput)).Credentials
      }
      why = result.standardError.split(separator: "\n").last.map(String.init) ?? "aws said nothing"
    } catch {
      why = "aws could not be run: \(error)"
    }
    throw CallError(.unavailable, "short-lived keys for the remote \(name) cannot be had: \(why)")
  }

  /// What the store's own records will call it: letters, digits and a few signs, at most 64.
  private static func session(_ user: User) -> String {
    "scitq-" + String(user.username.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" }.prefix(50))
  }

  private static let readingOnly = """
    {"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:GetObjectVersion",\
    "s3:ListBucket","s3:GetBucketLocation"],"Resource":"*"}]}
    """
}
