import ScitqProtocol

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Reads a tar archive from bytes as they come: the old format, POSIX (pax) and GNU's long names.
///
/// It is fed pieces of any size and keeps no more than one header of them.
struct TarReader {
  static let blockSize = 512
  /// In errors which say that the bytes themselves are wrong.
  static let refusalMark = "is damaged"
  /// A name or a set of pax attributes is refused above this.
  private static let longestText = 1 << 20

  private enum State {
    case header
    case file(left: Int64, padding: Int)
    case text(Kind, left: Int, padding: Int)
    case skip(Int64)
    case ended
  }
  private enum Kind { case longName, longLink, attributes, globalAttributes }

  private var extraction: Extraction
  private var state = State.header
  private var buffer: [UInt8] = []
  private var text: [UInt8] = []
  /// What is said about the next entry by those before it.
  private var longName: String?
  private var longLink: String?
  private var attributes: [String: String] = [:]
  private var hasSeenHeader = false

  init(_ extraction: Extraction) { self.extraction = extraction }

  mutating func consume(_ bytes: UnsafeRawBufferPointer) throws(TransferFailure) {
    do throws(TransferFailure) {
      try take(bytes)
    } catch {
      extraction.abandon()
      throw error
    }
  }

  /// The end of the bytes. Answers what was extracted, its links not made yet.
  mutating func finish() throws(TransferFailure) -> Extraction {
    switch state {
    case .ended: break
    case .header where buffer.isEmpty && hasSeenHeader: break
    default:
      extraction.abandon()
      throw damaged(hasSeenHeader ? "it ends too early" : "there is no tar archive in it")
    }
    return extraction
  }

  private mutating func take(_ bytes: UnsafeRawBufferPointer) throws(TransferFailure) {
    var rest = bytes[...]
    while !rest.isEmpty {
      switch state {
      case .ended: return
      case .header:
        let piece = rest.prefix(Self.blockSize - buffer.count)
        buffer.append(contentsOf: piece)
        rest = rest.dropFirst(piece.count)
        if buffer.count == Self.blockSize {
          let block = buffer
          buffer.removeAll(keepingCapacity: true)
          try readHeader(block)
        }
      case .file(let left, let padding):
        let piece = rest.prefix(Int(clamping: left))
        try extraction.write(UnsafeRawBufferPointer(rebasing: piece))
        rest = rest.dropFirst(piece.count)
        let still = left - Int64(piece.count)
        if still == 0 {
          extraction.endFile()
          state = padding == 0 ? .header : .skip(Int64(padding))
        } else {
          state = .file(left: still, padding: padding)
        }
      case .text(let kind, let left, let padding):
        let piece = rest.prefix(left)
        text.append(contentsOf: piece)
        rest = rest.dropFirst(piece.count)
        if piece.count == left {
          try readText(kind)
          state = padding == 0 ? .header : .skip(Int64(padding))
        } else {
          state = .text(kind, left: left - piece.count, padding: padding)
        }
      case .skip(let left):
        let piece = rest.prefix(Int(clamping: left))
        rest = rest.dropFirst(piece.count)
        state = piece.count == left ? .header : .skip(left - Int64(piece.count))
      }
    }
  }

  // MARK: headers

  static func isHeader(_ block: [UInt8]) -> Bool {
    guard let stated = number(block[148..<156]) else { return false }
    var sum: Int64 = 0
    for (index, byte) in block.enumerated() { sum += (148..<156).contains(index) ? 32 : Int64(byte) }
    return sum == stated
  }

  private mutating func readHeader(_ block: [UInt8]) throws(TransferFailure) {
    if block.allSatisfy({ $0 == 0 }) {
      hasSeenHeader = true
      state = .ended
      return
    }
    guard Self.isHeader(block) else {
      throw damaged(hasSeenHeader ? "a header in it makes no sense" : "there is no tar archive in it")
    }
    hasSeenHeader = true
    guard var size = Self.number(block[124..<136]), size >= 0 else {
      throw damaged("a size in it makes no sense")
    }
    let type = block[156]
    if let kind = textKind(of: type) {
      guard size <= Self.longestText else { throw damaged("a name in it is too long") }
      text = []
      state = size == 0 ? .header : .text(kind, left: Int(size), padding: padding(size))
      return
    }
    if let stated = attributes["size"] {
      guard let number = Int64(stated), number >= 0 else { throw damaged("a size in it makes no sense") }
      size = number
    }
    let name: String
    if let told = attributes["path"] ?? longName {
      name = told
    } else {
      let isPOSIX = block[257..<263].elementsEqual(Array("ustar\0".utf8))
      let prefix = isPOSIX ? try string(block[345..<500]) : ""
      name = try (prefix.isEmpty ? "" : "\(prefix)/") + string(block[0..<100])
    }
    let link: String
    if let told = attributes["linkpath"] ?? longLink {
      link = told
    } else {
      link = try string(block[157..<257])
    }
    let mode = mode_t(truncatingIfNeeded: Self.number(block[100..<108]) ?? 0o644)
    let modified =
      attributes["mtime"].flatMap { Int64($0.prefix { $0 != "." }) } ?? Self.number(block[136..<148]) ?? 0
    guard !attributes.keys.contains(where: { $0.hasPrefix("GNU.sparse") }) else {
      throw extraction.refused(name, "is a sparse file, which is not known here; pack it without --sparse")
    }
    longName = nil
    longLink = nil
    attributes = [:]
    try enter(name, type: type, link: link, mode: mode, modified: modified, size: size)
  }

  private mutating func enter(
    _ name: String, type: UInt8, link: String, mode: mode_t, modified: Int64, size: Int64
  ) throws(TransferFailure) {
    switch type {
    case UInt8(ascii: "1"): try extraction.makeHardLink(name, to: link)
    case UInt8(ascii: "2"): try extraction.makeLink(name, to: link)
    case UInt8(ascii: "5"): try extraction.makeFolder(name, mode: mode)
    case UInt8(ascii: "3"), UInt8(ascii: "4"), UInt8(ascii: "6"):
      throw extraction.refused(name, "is a device or a pipe")
    case UInt8(ascii: "S"):
      throw extraction.refused(name, "is a sparse file, which is not known here; pack it without --sparse")
    case UInt8(ascii: "V"), UInt8(ascii: "M"), UInt8(ascii: "D"): break
    default:
      if name.hasSuffix("/") {
        try extraction.makeFolder(name, mode: mode)
      } else {
        try extraction.beginFile(name, mode: mode, modified: modified)
        if size == 0 { extraction.endFile() }
        state = size == 0 ? .header : .file(left: size, padding: padding(size))
        return
      }
    }
    // Only files have content; what claims to have some is passed over.
    let isLink = type == UInt8(ascii: "1") || type == UInt8(ascii: "2") || type == UInt8(ascii: "5")
    state = size == 0 || isLink ? .header : .skip(size + Int64(padding(size)))
  }

  private func textKind(of type: UInt8) -> Kind? {
    switch type {
    case UInt8(ascii: "L"): .longName
    case UInt8(ascii: "K"): .longLink
    case UInt8(ascii: "x"), UInt8(ascii: "X"): .attributes
    case UInt8(ascii: "g"): .globalAttributes
    default: nil
    }
  }

  private mutating func readText(_ kind: Kind) throws(TransferFailure) {
    switch kind {
    case .longName: longName = try string(text[...])
    case .longLink: longLink = try string(text[...])
    // Comments and defaults that no field used here depends on.
    case .globalAttributes: break
    case .attributes:
      var rest = text[...]
      while !rest.isEmpty {
        // Each is "LENGTH KEY=VALUE\n", the length counting all of it.
        let digits = rest.prefix { $0 != 32 }
        guard let length = Int(String(decoding: digits, as: UTF8.self)), length > digits.count + 2,
          length <= rest.count
        else { throw damaged("attributes in it make no sense") }
        let pair = rest.dropFirst(digits.count + 1).prefix(length - digits.count - 2)
        guard let sign = pair.firstIndex(of: UInt8(ascii: "=")) else {
          throw damaged("attributes in it make no sense")
        }
        let key = String(decoding: pair[..<sign], as: UTF8.self)
        if ["path", "linkpath", "size", "mtime"].contains(key) || key.hasPrefix("GNU.sparse") {
          attributes[key] = try string(pair[(sign + 1)...])
        }
        rest = rest.dropFirst(length)
      }
    }
  }

  private func padding(_ size: Int64) -> Int {
    (Self.blockSize - Int(size % Int64(Self.blockSize))) % Self.blockSize
  }

  private func string(_ bytes: ArraySlice<UInt8>) throws(TransferFailure) -> String {
    guard let text = String(validating: bytes.prefix { $0 != 0 }, as: UTF8.self) else {
      throw damaged("a name in it is not UTF-8; pack it again with such names")
    }
    return text
  }

  /// Octal digits, or GNU's binary form for large ones.
  static func number(_ field: ArraySlice<UInt8>) -> Int64? {
    guard let first = field.first else { return nil }
    if first & 0x80 != 0 {
      var value = Int64(first & 0x3F)
      for byte in field.dropFirst() {
        guard value < 1 << 54 else { return nil }
        value = value << 8 | Int64(byte)
      }
      return first & 0x40 != 0 ? nil : value
    }
    let digits = field.drop { $0 == 32 }.prefix { $0 != 0 && $0 != 32 }
    if digits.isEmpty { return 0 }
    return Int64(String(decoding: digits, as: UTF8.self), radix: 8)
  }

  private func damaged(_ why: String) -> TransferFailure { extraction.damaged(why) }
}

extension Extraction {
  func damaged(_ why: String) -> TransferFailure { failure("\(TarReader.refusalMark): \(why)") }
}
