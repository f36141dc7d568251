package auth

import (
	"context"
	"strings"
)

// Identity returns the principal that who would be after a login, to ask what
// it may do: user:NAME, key:ID, client:ID or anonymous. clientID is the MQTT
// client id it would come with, "" for none; client:ID is an anonymous client
// with that id. Nothing is proved here: only who may manage the server may use
// it, and only to ask. A key that has expired and a user that is disabled have
// principals that are refused everything.
func (a *Auth) Identity(_ context.Context, who, clientID string) (*Principal, error) {
	kind, name, _ := strings.Cut(who, ":")
	switch {
	case kind == "user" && name != "":
		u := a.findUser(ofBroker(name))
		if u == nil {
			return nil, ErrNotFound
		}
		return u.principal(clientID), nil
	case kind == "key" && name != "":
		k := a.findKey(name)
		if k == nil {
			return nil, ErrNotFound
		}
		return k.principalFor(k.secrets[len(k.secrets)-1], clientID), nil
	case kind == "client" && name != "":
		if clientID != "" && clientID != name {
			return nil, &InvalidError{Field: "client", Reason: "differs from the client id in who"}
		}
		return &Principal{Kind: Anonymous, ClientID: name}, nil
	case who == "anonymous":
		return &Principal{Kind: Anonymous, ClientID: clientID}, nil
	}
	return nil, &InvalidError{Field: "who", Reason: "must be user:NAME, key:ID, client:ID or anonymous"}
}
