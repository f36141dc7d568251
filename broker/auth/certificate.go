package auth

import (
	"context"
	"errors"
)

// ErrOtherIdentity refuses a CONNECT that names another user than its
// certificate.
var ErrOtherIdentity = errors.New("the certificate is another user's")

// LoginCertificate turns the verified certificate of an MQTT client into the
// principal of the user that it names; no password is asked for. user is the
// user name that the client gave beside it: none, or the same.
//
// The error is ErrBanned, ErrUnauthenticated where there is no such user or it
// is disabled, and ErrOtherIdentity.
func (a *Auth) LoginCertificate(name, user, clientID, remoteAddr string) (*Principal, error) {
	if a.barred(clientID, name, remoteAddr) {
		return nil, ErrBanned
	}
	n := ofBroker(name)
	p, err := a.loginCertificate(n, user, clientID)
	if err != nil {
		a.refuse(a.known(n, "user:"), remoteAddr, errWrongCertificate)
		return nil, err
	}
	a.audit.sample(line{Who: p.String(), Remote: remoteAddr, What: LoggedIn})
	return p, nil
}

func (a *Auth) loginCertificate(n account, user, clientID string) (*Principal, error) {
	if user != "" && ofBroker(user) != n {
		return nil, ErrOtherIdentity
	}
	u := a.findUser(n)
	if u == nil {
		return nil, ErrUnauthenticated
	}
	return a.userPrincipal(u, clientID)
}

// Certificate is LoginCertificate for a request over HTTP, of which there are
// many on a connection: the principal is the same as long as the user stays the
// same. A certificate that was let in is not audited for each request.
func (a *Auth) Certificate(ctx context.Context, name string) (*Principal, error) {
	u := a.findUser(ofBroker(name))
	if u == nil || u.record.Disabled {
		a.noteRefusal(ctx, "user:", ofBroker(name), errWrongCertificate)
		return nil, ErrUnauthenticated
	}
	a.touch(u.lastUse)
	return u.holder, nil
}
