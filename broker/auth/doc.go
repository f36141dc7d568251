// Package auth knows who a client is and what it may do.
//
// It keeps users (argon2id), API keys (SHA-256), logins and access rules in
// memory and in a small durable store, turns credentials into a [Principal],
// and answers every question of access with one function, [Auth.Decide];
// [Auth.Explain] shows how.
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
//
// # What ends a principal
//
// A user's: a change of password, superuser or disabled, and its removal. A
// key's: a change of role, scopes or disabled, its end, the retirement of the
// secret it came with, and its removal; other words, another expiry and a second
// secret do not. Hashing a password anew ends nothing. The last administrator is
// neither removed nor demoted, but by the broker itself ([System]).
//
// Passwords are compared in Unicode's form NFC, and hashed anew at a login when
// memory times passes have risen. User names are taken as they stand; only
// where [UserSpec.Distinct] asks for it, one that looks like another is refused.
//
// # Accounts of doors
//
// A door with accounts of its own ([UserSpec.Door], [Auth.LoginAccount]) has its
// own names: the same one may be a user, or an account elsewhere. An account is
// found by its door only: no other login, no list, no [Auth.Identity], and no
// rule that names a user knows it. Its tokens are for its door alone. It does
// everything with queues and nothing else; deny rules for all hold for it, allow
// rules for all do not narrow it. Its text is DOOR:NAME.
//
// # Tokens
//
// [Auth.LoginPassword] and then [Auth.Issue] begin a login, a family of tokens
// that ends as one. An access token is a JWT (EdDSA, at+jwt) with iss, aud, sub,
// exp, iat, jti, sid (the family) and ver (of the user's tokens); life 15 min
// unless the [Grant] says otherwise, at most 24 h; clocks may differ by 60 s.
// The audience lists the doors that take it: a login that is good in several
// places names them all, and the first one issued it. This package knows no
// names of doors.
//
// Rights are those the user has at the moment, not those of the login. Logging
// out ends a family; a new password, disabling, removal and [Auth.RevokeUser]
// end all tokens of the user, by its version: one write, whatever their number.
//
// The first part of a token must be, byte for byte, the one we write for a key
// that is in force and for that type. So a token chooses neither algorithm nor
// key, and jku, x5u, jwk and crit are refused unread. A claim that comes twice,
// in any case or spelling, is refused.
//
// A refresh token (rt+jwt) carries 256 random bits, of which the SHA-256 is
// stored. It is taken by the door that issued it, once: then its successor
// counts. The direct predecessor is good for 10 s and gets the very same answer,
// so that two windows that refresh at once stay together: what it takes to make that
// again is stored with the login, sealed by what only that token carries. An older
// one ends the family, also if its own time is over, and is audited. Families end
// 7 days after the last refresh and 30 days after the login. A user has 100; the
// one idle longest ends for a new one.
//
// The signing key is made at first use and anew after 90 days or by
// [Auth.RotateSigningKey]. Two verify access tokens: the one before until the
// longest-lived token it signed has ended. A second rotation ends it at once.
// Public halves of older ones are kept for refresh tokens only, for 30 days and
// at most 8 in all, so that no rotation logs people out; private halves are
// deleted when the next one signs. Verified tokens are remembered by their
// SHA-256 until they expire or the generation changes, 8,192 of them.
//
// # Several nodes
//
// Nodes that share a store have an Auth each, and hear of each other's changes by
// [Auth.Apply]. Memory is what the entries of the store make of it, in the order of
// their revisions: what is read at the start, changed here and changed elsewhere
// comes the same way, and one that sees the last of several changes alone comes
// out the same. So a record says itself what ends its principals: its era.
//
// A change names the revision of what it replaces. Who is overtaken by another
// node looks again and decides again, so that of two who make the same name one is
// told that it exists, rules that two change at once keep both changes, and nodes
// that start at once make one signing key. This holds for each key of the store
// alone: two nodes at once may each remove one of the last two administrators, or
// pass a limit of how many there may be by one.
//
// Last uses are merged, the later time counts; a node writes its own within a
// minute. Of this node alone are what only slows attempts down or counts them:
// wrong passwords ([DelayedError]), rates, [Auth.Refusals], passwords and tokens that
// were verified, the audit log. Guessing at several nodes has the limits of each.
//
// # Audit log
//
// One JSON line an event: time, who, remote, what, target, outcome, reason,
// count. Logins, and credentials that were refused, are sampled: the first of a
// kind at once, the like of it within each following minute as one line with
// their number. Names that nobody has are not written, since they may be
// passwords. A request's address comes from [WithRemote], who does it from
// [WithPrincipal]; without one it is the broker itself. Rules set without one
// have the place bootstrap, others api. Tokens that have expired are counted
// ([Auth.Refusals]) and not audited.
package auth
