import Foundation
import SystemPackage

/// How much the database takes, and how much room there is beside it; zero where nothing can be learned.
struct DiskFigures {
  var databaseBytes: Int64 = 0
  var freeBytes: Int64 = 0

  init(of path: FilePath) {
    for suffix in ["", "-wal"] {
      let file = try? FileManager.default.attributesOfItem(atPath: path.string + suffix)
      databaseBytes += file?[.size] as? Int64 ?? 0
    }
    let disk = try? FileManager.default.attributesOfFileSystem(forPath: path.string)
    freeBytes = disk?[.systemFreeSize] as? Int64 ?? 0
  }
}
