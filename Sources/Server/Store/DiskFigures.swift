import Foundation
import SystemPackage

/// How much the database takes, and how much room there is beside it.
struct DiskFigures {
  var databaseBytes: Int64 = 0
  var freeBytes: Int64 = 0

  init(of path: FilePath) {
    for suffix in ["", "-wal"] {
      var file = stat()
      if stat(path.string + suffix, &file) == 0 { databaseBytes += Int64(file.st_size) }
    }
    var disk = statvfs()
    if statvfs(path.string, &disk) == 0 { freeBytes = Int64(disk.f_bavail) * Int64(disk.f_frsize) }
  }
}
