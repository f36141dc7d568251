// Package auth knows who a client is and what it may do.
//
// It keeps users (argon2id), API keys (SHA-256) and access rules in memory and
// in a small durable store, turns credentials into a [Principal], and answers
// every question of access with one function, [Auth.Decide].
//
// # How a decision is made
//
// The first line that applies decides:
//
//  1. No principal, or one whose user or key was changed, deleted or has
//     expired: refused.
//  2. The broker itself ([System]): allowed.
//  3. [Server]: administrators do everything, viewers view. Rules and scopes
//     say nothing about it, so no rule can lock the administrators out.
//  4. Reserved topics, in any case: nobody publishes to $SYS, $events, $queue, $q, $stream,
//     $share or $delayed; $SYS is read by administrators and superusers only,
//     $events never by anonymous clients. $share/GROUP/FILTER is judged as
//     FILTER, and a publish to $delayed/SECONDS/TOPIC as TOPIC.
//  5. A superuser: allowed.
//  6. A deny rule that matches: refused, whatever the order of the rules.
//  7. Where an allow rule names the principal: allowed if one of them matches,
//     else refused. Role and scopes no longer count. An administrator is not
//     narrowed by allows for "all", only by those that name it.
//  8. The rights of the role, within the scopes.
//
// # Rights of the roles
//
//	administrator  everything
//	viewer         view
//	publisher      publish
//	client         publish, subscribe, consume; and view what it may consume
//	anonymous      as client
//
// No scopes mean everything. As soon as one scope is given, only what the
// scopes name is granted: a key with topic scopes alone reaches no queue and
// no stream. Scopes narrow clients, publishers and viewers; an administrator
// with narrowing scopes is refused when it is made.
//
// View has no rule of its own. It is granted by the roles viewer (unless a deny
// rule forbids reading) and administrator, and to whoever may subscribe to,
// consume from, or manage the thing.
//
// # Filters of rules and scopes
//
// A topic filter with MQTT's wildcards, or queue:GLOB or stream:GLOB, where *
// stands for any characters. The bare filter # means every ordinary topic, also
// those of another first level with $; in a deny rule it means $SYS and $events
// too. %c and %u stand for the client id and for the name of the user or key,
// always as literals: a value that is empty, that holds a character with a
// meaning in filters or a control character, or that would put $ in front,
// makes the rule not match.
//
// On queues and streams subscribe is the same right as consume.
package auth
