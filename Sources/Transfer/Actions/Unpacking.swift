import ScitqProtocol
import Subprocess
import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// How much an archive or a compressed file may become. Beyond that it is refused as a bomb.
package struct UnpackLimits: Sendable {
  /// Files, folders and links of one archive.
  package var entries: Int
  /// How many times its own size an archive may grow …
  package var ratio: Int64
  /// … on top of this many bytes, which any archive may have.
  package var bytes: Int64

  /// 10 million files; 100 times its size and 1 TiB.
  package static let standard = UnpackLimits(entries: 10_000_000, ratio: 100, bytes: 1 << 40)

  package init(entries: Int, ratio: Int64, bytes: Int64) {
    self.entries = entries
    self.ratio = ratio
    self.bytes = bytes
  }

  func bytes(for size: Int64) -> Int64 {
    let grown = size.multipliedReportingOverflow(by: ratio)
    if grown.overflow { return .max }
    let sum = bytes.addingReportingOverflow(grown.partialValue)
    return sum.overflow ? .max : sum.partialValue
  }
}

/// Carries out the actions of a URI on files that have arrived and that nobody has seen yet.
///
/// A file that is not what an action is for is `.input`, unless it came with a whole folder or out of an archive:
/// those may hold other files too, which stay as they are.
struct Unpacking: Sendable {
  /// Where the files are.
  let folder: FilePath
  /// A private folder on the same file system.
  let scratch: FilePath
  /// The URI, for errors.
  let name: String
  let limits: UnpackLimits

  private struct Arrived: Sendable {
    var path: String
    var mayBeOther: Bool
  }

  /// Answers what the files have become.
  func apply(
    _ actions: [URIAction], to paths: [String], isLenient: Bool
  ) async throws(TransferFailure) -> [String] {
    var files = paths.map { Arrived(path: $0, mayBeOther: isLenient) }
    for action in actions {
      if case .rename(let name) = action {
        files = [try await rename(files, to: name)]
        continue
      }
      var next: [Arrived] = []
      for file in files {
        switch action {
        // Where things go is settled at the end, for all of them.
        case .move, .rename: next.append(file)
        case .gunzip: next.append(try await gunzip(file))
        case .untar, .unzip: next += try await unpack(file, action)
        }
      }
      files = next
    }
    return files.map(\.path)
  }

  // MARK: rename

  /// Throws `.input` where a `rename:` would meet another number of files than one, as far as that can be told
  /// before anything is transferred.
  static func check(_ actions: [URIAction], on count: Int, name: String) throws(TransferFailure) {
    for action in actions {
      switch action {
      // What is in an archive is known once it is unpacked.
      case .untar, .unzip: return
      case .rename(let new): try requireOne(count, new, name)
      case .gunzip, .move: continue
      }
    }
  }

  private static func requireOne(_ count: Int, _ new: String, _ name: String) throws(TransferFailure) {
    guard count != 1 else { return }
    throw TransferFailure(
      .input, "\(name): |rename:\(new) is for one file, and here are \(count == 0 ? "none" : "\(count)")")
  }

  private func rename(_ files: [Arrived], to new: String) async throws(TransferFailure) -> Arrived {
    try Self.requireOne(files.count, new, name)
    var file = files[0]
    let old = file.path
    file.path = old.lastIndex(of: "/").map { old[...$0] + new } ?? new
    guard file.path != old else { return file }
    let path = file.path
    try await blocking { _ throws(TransferFailure) in
      try moveIntoPlace(folder.appending(old), folder.appending(path), replacing: false)
    }
    return file
  }

  // MARK: gunzip

  private func gunzip(_ file: Arrived) async throws(TransferFailure) -> Arrived {
    try await blocking { interruption throws(TransferFailure) in
      let source = folder.appending(file.path)
      guard try Compression(of: source) == .gzip else {
        if file.mayBeOther { return file }
        throw TransferFailure(
          .input, "\(name): \(file.path) is not compressed by gzip, so |gunzip cannot be done")
      }
      let path =
        file.path.hasSuffix(".gz") && !file.path.hasSuffix("/.gz") && file.path != ".gz"
        ? String(file.path.dropLast(3))
        : file.path.hasSuffix(".tgz") ? String(file.path.dropLast(4)) + ".tar" : file.path
      let temporary = scratch.appending("gunzip-\(UInt32.random(in: 0 ... .max))")
      let output = open(temporary.string, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
      guard output >= 0 else { throw systemFailure(path) }
      defer { close(output) }
      var left = limits.bytes(for: fileStatus(source).map { Int64($0.st_size) } ?? 0)
      try Inflating.gzip(source, named: "\(name): \(file.path)", interruption) {
        bytes throws(TransferFailure) in
        left -= Int64(bytes.count)
        guard left >= 0 else { throw tooLarge(file.path) }
        try writeAll(bytes, to: output, named: path)
      }
      unlink(source.string)
      try moveIntoPlace(temporary, folder.appending(path), replacing: false)
      return Arrived(path: path, mayBeOther: file.mayBeOther)
    }
  }

  private func tooLarge(_ path: String) -> TransferFailure {
    TransferFailure(.input, "\(name): \(path) becomes larger than any file of its size should; it is refused")
  }

  // MARK: untar, unzip

  private func unpack(_ file: Arrived, _ action: URIAction) async throws(TransferFailure) -> [Arrived] {
    let archive = folder.appending(file.path)
    let shown = "\(name): \(file.path)"
    let kind = try await blocking { _ throws(TransferFailure) in try Compression(of: archive) }
    guard action != .unzip || kind == .zip else {
      if file.mayBeOther { return [file] }
      throw TransferFailure(
        .input,
        "\(shown) is \(kind.article), not a zip archive\(kind == .other ? "" : "; write |untar or |gunzip for it")"
      )
    }
    guard kind != .other else {
      if file.mayBeOther { return [file] }
      throw TransferFailure(
        .input,
        "\(shown) is not an archive that |untar knows: tar, plain or compressed by gzip, bzip2, xz or zstd, or zip"
      )
    }
    let target = scratch.appending("untar-\(UInt32.random(in: 0 ... .max))")
    try createFolder(target, mode: 0o700)
    let size = fileStatus(archive).map { Int64($0.st_size) } ?? 0
    let bound = limits.bytes(for: size)
    let entries = limits.entries
    switch kind {
    case .tar, .gzip, .zip:
      try await blocking { interruption throws(TransferFailure) in
        var extraction = Extraction(root: target, name: shown, entries: entries, bytes: bound)
        switch kind {
        case .zip: try ZipArchive.extract(archive, to: &extraction, interruption)
        case .gzip:
          var reader = TarReader(extraction)
          try Inflating.gzip(archive, named: shown, interruption) { bytes throws(TransferFailure) in
            try reader.consume(bytes)
          }
          extraction = try reader.finish()
        default:
          var reader = TarReader(extraction)
          try readFile(archive, interruption) { bytes throws(TransferFailure) in try reader.consume(bytes) }
          extraction = try reader.finish()
        }
        try extraction.finish()
      }
    case .bzip2, .xz, .zstd, .other:
      try await untarThrough(kind.program, archive, shown) {
        Extraction(root: target, name: shown, entries: entries, bytes: bound)
      }
    }
    let base = file.path.lastIndex(of: "/").map { String(file.path[..<$0]) } ?? ""
    return try await blocking { interruption throws(TransferFailure) in
      unlink(archive.string)
      let produced = try LocalFolder.read(target, interruption).files.filter { !$0.isLinked }.map(\.path)
      try merge(target, into: base.isEmpty ? folder : folder.appending(base), replacing: false)
      return produced.map { Arrived(path: base.isEmpty ? $0 : "\(base)/\($0)", mayBeOther: true) }
    }
  }

  /// Reads what a decompressor of this machine makes of the archive, as it makes it.
  private func untarThrough(
    _ program: String, _ archive: FilePath, _ shown: String,
    _ extraction: @escaping @Sendable () -> Extraction
  ) async throws(TransferFailure) {
    guard let path = findProgram(program, path: getenv("PATH").map { String(cString: $0) }) else {
      throw TransferFailure(
        .input,
        "\(shown) is compressed by \(program), which this machine does not have; install \(program == "xz" ? "xz-utils" : program) on it"
      )
    }
    let input: FileDescriptor
    let pipe: (readEnd: FileDescriptor, writeEnd: FileDescriptor)
    do {
      input = try FileDescriptor.open(archive, .readOnly, options: .closeOnExec)
      pipe = try FileDescriptor.pipe()
    } catch {
      throw TransferFailure(.disk, "\(shown) cannot be read: \(error)")
    }
    _ = fcntl(pipe.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
    _ = fcntl(pipe.writeEnd.rawValue, F_SETFD, FD_CLOEXEC)
    let end = pipe.readEnd
    async let reading = Self.outcome {
      () async throws(TransferFailure) in
      try await blocking { interruption throws(TransferFailure) in
        // Closed when reading ends early too, which ends the decompressor.
        defer { try? end.close() }
        var reader = TarReader(extraction())
        try readAll(end.rawValue, named: shown, interruption) { bytes throws(TransferFailure) in
          try reader.consume(bytes)
        }
        var extraction = try reader.finish()
        try extraction.finish()
      }
    }
    var complaint: String?
    do {
      let result = try await Subprocess.run(
        .path(path), arguments: ["-dc"], input: .fileDescriptor(input, closeAfterSpawningProcess: true),
        output: .fileDescriptor(pipe.writeEnd, closeAfterSpawningProcess: true),
        error: .string(limit: 64 << 10))
      if !result.terminationStatus.isSuccess {
        complaint = String(
          result.standardError.split(separator: "\n").first ?? "it could not be decompressed")
      }
    } catch {
      complaint = "\(program) could not be run: \(error)"
    }
    let outcome = await reading
    if Task.isCancelled { throw .interrupted }
    // A refused archive ends its decompressor early: the refusal is the reason then, and not the broken pipe.
    if let complaint {
      if case .failure(let failure) = outcome, failure.message.contains(TarReader.refusalMark) == false {
        throw failure
      }
      throw TransferFailure(.input, "\(shown) is damaged: \(complaint)")
    }
    try outcome.get()
  }

  private static func outcome(
    _ body: @Sendable () async throws(TransferFailure) -> Void
  ) async -> Result<Void, TransferFailure> {
    do throws(TransferFailure) {
      try await body()
      return .success(())
    } catch {
      return .failure(error)
    }
  }
}

/// What a file is by its first bytes, whatever its name.
enum Compression: Sendable {
  case tar, gzip, bzip2, xz, zstd, zip, other

  init(of path: FilePath) throws(TransferFailure) {
    let file = open(path.string, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else { throw systemFailure(path.string) }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: TarReader.blockSize)
    var count = 0
    while count < bytes.count {
      let more = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress! + count, $0.count - count) }
      if more <= 0 { break }
      count += more
    }
    let start = bytes[..<count]
    if start.starts(with: [0x1F, 0x8B]) {
      self = .gzip
    } else if start.starts(with: Array("BZh".utf8)) {
      self = .bzip2
    } else if start.starts(with: [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00]) {
      self = .xz
    } else if start.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
      self = .zstd
    } else if start.starts(with: [0x50, 0x4B, 3, 4]) || start.starts(with: [0x50, 0x4B, 5, 6]) {
      self = .zip
    } else if count == bytes.count, TarReader.isHeader(bytes) || bytes.allSatisfy({ $0 == 0 }) {
      self = .tar
    } else {
      self = .other
    }
  }

  /// For people.
  var article: String {
    switch self {
    case .tar: "a tar archive"
    case .zip: "a zip archive"
    case .gzip, .bzip2, .xz, .zstd: "compressed by \(program)"
    case .other: "a file of another kind"
    }
  }

  var program: String {
    switch self {
    case .bzip2: "bzip2"
    case .xz: "xz"
    case .zstd: "zstd"
    default: "gzip"
    }
  }
}
