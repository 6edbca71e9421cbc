import Crypto
import ScitqProtocol
import SystemPackage

/// The MD5 of a file of this machine, which is read in pieces: `md5:` and its digits, as stores tell it.
func md5(of path: FilePath, _ interruption: Interruption) throws(TransferFailure) -> String {
  var digest = Insecure.MD5()
  try readFile(path, interruption) { bytes throws(TransferFailure) in digest.update(bufferPointer: bytes) }
  return "md5:" + hexadecimal(digest.finalize())
}

func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
