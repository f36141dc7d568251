// Package router is the grammar of topics and the trees that match them: the
// one place that knows what MQTT says about levels, wildcards and names that
// begin with "$".
//
//   - [ValidTopic] and [ValidFilter] decide what may enter the broker,
//     [SpaceOf] and [Shared] read the prefixes that mean something to it.
//   - [Match], [Overlaps] and [Covers] compare single names and filters; access
//     rules are made of them.
//   - [Tree] holds filters and is asked by topic: subscriptions and bindings.
//   - [Names] is its inverse: it holds topics and is asked by filter: retained
//     messages.
//
// The rules, from MQTT 5.0 section 4.7 (3.1.1 section 4.7 says the same):
//
//   - "/" separates levels; a level may be empty, so "a", "/a" and "a/" differ.
//   - "+" stands for exactly one level, "#" for the level above it and
//     everything below: "a/#" matches "a".
//   - A filter that begins with a wildcard never matches a topic that begins
//     with "$"; one that names the "$" level literally does.
//   - Names are compared byte by byte: no case folding, no normal forms.
//
// Nothing here validates on the hot path. Trees and the comparing functions
// expect names that passed [ValidTopic] or [ValidFilter]; with others they do
// not panic, but what they match is not specified.
//
// # Concurrency
//
// Both trees are read without a lock. Writers take a mutex and publish each
// change with one atomic store; a reader sees every entry that was there
// throughout its search, exactly once. The reason is not the price of a read
// lock, which is small. It is that behind a sync.RWMutex a waiting writer makes
// every later reader wait for the slowest earlier one, so that a SUBSCRIBE
// during a wide fan-out holds up all publishing; BenchmarkMatchBesideAWideOne
// measures both.
package router
