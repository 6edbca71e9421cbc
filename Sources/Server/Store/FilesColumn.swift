import Foundation
import ScitqProtocol

/// The columns `task.inputs` and `task.outputs`: what was downloaded and uploaded, as JSON.
enum FilesColumn {
  private struct File: Codable {
    var uri: String
    var bytes: Int64
    var hash: String?
  }

  static func encode(_ files: [WireTransferredFile]) -> String {
    TaskSpecRow.json(files.map { File(uri: $0.uri, bytes: $0.bytes, hash: $0.hash.isEmpty ? nil : $0.hash) })
  }

  static func decode(_ text: String) -> [WireTransferredFile] {
    ((try? JSONDecoder().decode([File].self, from: Data(text.utf8))) ?? []).map { file in
      var wire = WireTransferredFile()
      wire.uri = file.uri
      wire.bytes = file.bytes
      wire.hash = file.hash ?? ""
      return wire
    }
  }
}
