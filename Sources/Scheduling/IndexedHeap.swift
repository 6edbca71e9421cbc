/// What orders a heap's items, and is told where each stands, so that any item can be taken out or moved.
protocol HeapOrder {
  associatedtype Item
  /// A strict total order: which of two comes out first.
  func precedes(_ a: Item, _ b: Item) -> Bool
  mutating func place(_ item: Item, at position: UInt32)
}

/// No position, no index, no link.
let nowhere = UInt32.max

/// A heap with four children a node that tells its items where they stand. Every change is O(log n).
///
/// Four children: half the levels of a binary heap, and with 16-byte items the four stand in one cache line.
struct IndexedHeap<Item: Sendable>: Sendable {
  private(set) var items: [Item] = []

  var isEmpty: Bool { items.isEmpty }
  var first: Item? { items.first }

  mutating func insert<Order: HeapOrder>(_ item: Item, in order: inout Order) where Order.Item == Item {
    items.append(item)
    rise(items.count - 1, item, &order)
  }

  /// Takes out what stands at `position`.
  mutating func remove<Order: HeapOrder>(at position: UInt32, in order: inout Order)
  where Order.Item == Item {
    let index = Int(position)
    let removed = items[index]
    let last = items.removeLast()
    order.place(removed, at: nowhere)
    guard index < items.count else { return }
    settle(index, last, &order)
  }

  /// What stands at `position` has another rank now.
  mutating func update<Order: HeapOrder>(at position: UInt32, in order: inout Order)
  where Order.Item == Item {
    settle(Int(position), items[Int(position)], &order)
  }

  private mutating func settle<Order: HeapOrder>(_ index: Int, _ item: Item, _ order: inout Order)
  where Order.Item == Item {
    if index > 0, order.precedes(item, items[(index - 1) >> 2]) {
      rise(index, item, &order)
    } else {
      sink(index, item, &order)
    }
  }

  private mutating func rise<Order: HeapOrder>(_ start: Int, _ item: Item, _ order: inout Order)
  where Order.Item == Item {
    var index = start
    while index > 0 {
      let parent = (index - 1) >> 2
      guard order.precedes(item, items[parent]) else { break }
      items[index] = items[parent]
      order.place(items[index], at: UInt32(index))
      index = parent
    }
    items[index] = item
    order.place(item, at: UInt32(index))
  }

  private mutating func sink<Order: HeapOrder>(_ start: Int, _ item: Item, _ order: inout Order)
  where Order.Item == Item {
    var index = start
    let count = items.count
    while true {
      let firstChild = index * 4 + 1
      guard firstChild < count else { break }
      var best = firstChild
      for child in (firstChild + 1)..<max(firstChild + 1, min(firstChild + 4, count))
      where order.precedes(items[child], items[best]) {
        best = child
      }
      guard order.precedes(items[best], item) else { break }
      items[index] = items[best]
      order.place(items[index], at: UInt32(index))
      index = best
    }
    items[index] = item
    order.place(item, at: UInt32(index))
  }
}

/// Something kept in a `Slab` and ranked in a heap of its indexes.
protocol Ranked: Sendable {
  var position: UInt32 { get set }
  /// Compares two by index, so that whole elements are not copied.
  static func precedes(_ elements: [Self], _ a: Int, _ b: Int) -> Bool
}

/// Elements at stable indexes; a released index is given out again.
struct Slab<Element: Sendable>: Sendable {
  private(set) var elements: [Element] = []
  private var free: [UInt32] = []

  subscript(_ index: UInt32) -> Element {
    _read { yield elements[Int(index)] }
    _modify { yield &elements[Int(index)] }
  }

  mutating func insert(_ element: Element) -> UInt32 {
    if let index = free.popLast() {
      elements[Int(index)] = element
      return index
    }
    elements.append(element)
    return UInt32(elements.count - 1)
  }

  /// `blank` is left in its place, so that what it owned is freed.
  mutating func release(_ index: UInt32, leaving blank: Element) {
    elements[Int(index)] = blank
    free.append(index)
    // What a burst has taken is given back once all of it has gone.
    if free.count == elements.count, free.count > 1024 {
      elements = []
      free = []
    }
  }
}

extension Slab: HeapOrder where Element: Ranked {
  typealias Item = UInt32

  func precedes(_ a: UInt32, _ b: UInt32) -> Bool { Element.precedes(elements, Int(a), Int(b)) }

  mutating func place(_ item: UInt32, at position: UInt32) { elements[Int(item)].position = position }
}
