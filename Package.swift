// swift-tools-version: 6.2

import Foundation
import PackageDescription

/// Warnings are errors where CI builds; a newcomer with another compiler is not stopped by one.
let strict = ProcessInfo.processInfo.environment["SCITQ_STRICT"] == "1"

let settings: [SwiftSetting] =
  [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
  ] + (strict ? [.treatAllWarnings(as: .error)] : [])

let package = Package(
  name: "scitq",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "scitq", targets: ["scitq"]),
    .executable(name: "scitq-server", targets: ["scitq-server"]),
    .executable(name: "scitq-worker", targets: ["scitq-worker"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2", traits: []),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
  ],
  targets: [
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CSubreaper"),
    .target(
      name: "ScitqProtocol",
      dependencies: [
        "CZlib",
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
      ],
      path: "Sources/Protocol",
      exclude: ["Schema"],
      swiftSettings: settings),
    .target(
      name: "Scheduling",
      dependencies: [
        "ScitqProtocol",
        .product(name: "Collections", package: "swift-collections"),
      ],
      swiftSettings: settings),
    .target(
      name: "Transfer",
      dependencies: [
        "ScitqProtocol",
        "CZlib",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .target(
      name: "ScitqServer",
      dependencies: [
        "ScitqProtocol",
        "Scheduling",
        "Transfer",
        "CZlib",
        .product(name: "GRDB", package: "GRDB.swift"),
        .product(name: "GRDBSQLite", package: "GRDB.swift"),
        .product(name: "Collections", package: "swift-collections"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "CryptoExtras", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
        .product(name: "X509", package: "swift-certificates"),
        .product(name: "SwiftASN1", package: "swift-asn1"),
        .product(name: "Yams", package: "Yams"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Sources/Server",
      resources: [.embedInCode("Fleet/boot.sh")],
      swiftSettings: settings),
    .target(
      name: "ScitqWorker",
      dependencies: [
        "ScitqProtocol",
        "Transfer",
        "CSubreaper",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Sources/Worker",
      swiftSettings: settings),
    .target(
      name: "ScitqClient",
      dependencies: [
        "ScitqProtocol",
        "Transfer",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Sources/Client",
      swiftSettings: settings),
    .executableTarget(
      name: "scitq",
      dependencies: ["ScitqClient", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: settings),
    .executableTarget(
      name: "scitq-server",
      dependencies: ["ScitqServer", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: settings),
    .executableTarget(
      name: "scitq-worker",
      dependencies: ["ScitqWorker", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: settings),
    .executableTarget(
      name: "scitq-benchmark",
      dependencies: [
        "ScitqProtocol",
        "Scheduling",
        // Built beside it: it starts them.
        "scitq-server",
        "scitq-worker",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "GRDBSQLite", package: "GRDB.swift"),
      ],
      path: "Benchmarks",
      exclude: ["README.md"],
      swiftSettings: settings),
    .testTarget(
      name: "ProtocolTests",
      dependencies: [
        "ScitqProtocol",
        .product(name: "NIOEmbedded", package: "swift-nio"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
      ],
      swiftSettings: settings),
    .testTarget(name: "SchedulingTests", dependencies: ["Scheduling"], swiftSettings: settings),
    .testTarget(name: "TransferTests", dependencies: ["Transfer"], swiftSettings: settings),
    .testTarget(
      name: "ServerTests",
      dependencies: [
        "ScitqServer",
        "Scheduling",
        "Transfer",
        .product(name: "GRDB", package: "GRDB.swift"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOEmbedded", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      exclude: [
        "Store/schema1.sql", "Store/schema2.sql", "Fleet/ec2_front.py", "Fleet/gce.py",
        "Fleet/openstack_standin.py",
        "Fleet/azure_standin.py", "Fleet/boot_server.py", "Fleet/slurm_world.sh", "Fleet/ssh_machine.sh",
      ],
      swiftSettings: settings),
    .testTarget(
      name: "WorkerTests",
      dependencies: [
        "ScitqWorker",
        "Transfer",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ],
      swiftSettings: settings),
    .testTarget(name: "ClientTests", dependencies: ["ScitqClient"], swiftSettings: settings),
    .testTarget(
      name: "EndToEndTests",
      // Built first: the tests start them.
      dependencies: ["scitq", "scitq-server", "scitq-worker"],
      exclude: ["cloud.py", "provider.py"],
      swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)
