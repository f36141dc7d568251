// Package clients is the index of MQTT clients: those that are connected, and
// those whose session waits for them. The MQTT edge keeps it up to date, and
// management APIs read it: lists in order of client id with filters and pages,
// subscriptions in order of filter, and the filters that have subscribers.
//
// # Cost
//
// A client, a subscription and a filter are one entry each of a B-tree that
// counts: a page is found by its number or by the key before it in O(log n),
// whatever lies before it. Clients are also found by user name, by address and
// by being away, and subscriptions by filter, by group and by a topic that their
// filters match; other conditions are compared with facts that do not change
// during a connection, without a lock of the session, and Page.Examine bounds
// with how many. A reader works on a copy of the tree that costs nothing to make,
// so that a long list holds up no CONNECT.
//
// # Locks
//
// Registry.mu is taken last, also under the locks of a session. No Session is
// called under it.
package clients
