package auth

import (
	"context"
	"strings"
)

// account names a user: among the broker's own where door is "", else among
// the accounts of that door.
type account struct{ door, name string }

// ofBroker names a user of the broker itself.
func ofBroker(name string) account { return account{name: name} }

// String is the account in logs and in the audit log: user:dev, or fastqueue:dev.
func (n account) String() string {
	if n.door == "" {
		return "user:" + n.name
	}
	return n.door + ":" + n.name
}

// inMemory is the name for the brake and the fingerprints; no user has another's.
func (n account) inMemory() string {
	if n.door == "" {
		return n.name
	}
	return n.door + "\x00" + n.name
}

// storeKey is where the account is kept. A door's name holds no slash.
func (n account) storeKey() string {
	if n.door == "" {
		return userPrefix + n.name
	}
	return accountPrefix + n.door + "/" + n.name
}

// storedAccount undoes storeKey.
func storedAccount(key string) (n account, ok bool) {
	if name, ok := strings.CutPrefix(key, userPrefix); ok {
		return ofBroker(name), true
	}
	rest, ok := strings.CutPrefix(key, accountPrefix)
	if !ok {
		return account{}, false
	}
	n.door, n.name, ok = strings.Cut(rest, "/")
	return n, ok
}

// validDoor keeps the text of an account apart from that of all other principals.
func validDoor(s UserSpec) error {
	switch s.Door {
	case "":
		return nil
	case "user", "key", "client", "anonymous", "all", "system", "nobody":
		return &InvalidError{Field: "door", Reason: "must not be a word of the rules"}
	}
	if strings.ContainsFunc(s.Door, func(c rune) bool { return c < 'a' || c > 'z' }) {
		return &InvalidError{Field: "door", Reason: "must be letters a to z"}
	}
	if s.Superuser {
		return &InvalidError{Field: "superuser", Reason: "is for users of the broker, not for accounts of a door"}
	}
	return nil
}

// LoginAccount is LoginPassword for an account of a door.
func (a *Auth) LoginAccount(ctx context.Context, door, name, password, remoteAddr string) (*Principal, error) {
	n := account{door, name}
	p, err := a.loginPassword(ctx, n, password, remoteAddr)
	a.noteLogin(p, err, n, remoteAddr)
	return p, err
}

// ChangeOwnPassword gives the user p, who has just proved the old password, a
// new one, and ends all its tokens and what logged in before. It returns nil
// when that is on disk; ErrUnauthenticated if the user was changed meanwhile.
func (a *Auth) ChangeOwnPassword(ctx context.Context, p *Principal, password string) error {
	if p == nil || p.era == nil {
		return ErrUnauthenticated
	}
	return a.changeUser(ctx, p.account(), UserChange{Password: &password}, p.era)
}

// DeleteOwn removes the user p, who has just proved the password. The errors
// are those of DeleteUser, and ErrUnauthenticated if the user was changed meanwhile.
func (a *Auth) DeleteOwn(ctx context.Context, p *Principal) error {
	if p == nil || p.era == nil {
		return ErrUnauthenticated
	}
	return a.deleteUser(ctx, p.account(), p.era)
}

// accountRights are what an account may do: everything with queues, nothing else.
// Deny rules for all narrow it; rules that name users do not know it.
var accountRights = []clause{{pattern{Queue, "", everything}, allActions, accountText}}

const accountText = "account of a door"
