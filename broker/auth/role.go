package auth

import "strings"

// Role is what a principal may do where no rule says otherwise.
type Role uint8

const (
	// Client publishes, subscribes and consumes within its scopes.
	Client Role = iota
	// Publisher publishes within its scopes.
	Publisher
	// Viewer reads and lists within its scopes and changes nothing.
	Viewer
	// Administrator does everything.
	Administrator
)

var roleNames = [...]string{"client", "publisher", "viewer", "administrator"}

// String is the role's name in files and answers.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return "unknown"
}

// ParseRole reads a role's name. No name is Client.
func ParseRole(s string) (Role, error) {
	if s == "" {
		return Client, nil
	}
	for i, name := range roleNames {
		if s == name {
			return Role(i), nil
		}
	}
	return 0, &InvalidError{Field: "role", Reason: "must be one of " + strings.Join(roleNames[:], ", ")}
}

func (r Role) does() actions {
	switch r {
	case Client:
		return Publish.bit() | Subscribe.bit() | Consume.bit()
	case Publisher:
		return Publish.bit()
	case Viewer:
		return View.bit()
	case Administrator:
		return allActions
	default:
		return 0
	}
}
