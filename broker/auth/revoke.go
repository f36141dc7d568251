package auth

import "context"

// Revoke ends the login that p came from with an access token: log out. Every
// token of that login is refused from then on.
func (a *Auth) Revoke(ctx context.Context, p *Principal) error {
	if p == nil || p.session == nil {
		return &InvalidError{Field: "principal", Reason: "came with no token"}
	}
	return a.inTurn(ctx, func() error {
		if p.session.family.ended.Load() {
			return nil
		}
		return a.end(ctx, p.session.family, "logout")
	})
}

// RevokeRefresh ends the login of a refresh token that audience issued, for who
// logs out without an access token. A token that is not good is
// ErrUnauthenticated; one that was used before ends its login all the same.
func (a *Auth) RevokeRefresh(ctx context.Context, audience, token string) error {
	return a.present(ctx, audience, token, func(p presented) error {
		return a.end(WithPrincipal(ctx, p.user.principal("")), p.family, "logout")
	})
}

// RevokeUser ends all tokens of a user: log out everywhere. Connections that
// came with the password stay, since a new password is what ends them.
func (a *Auth) RevokeUser(ctx context.Context, name string) error {
	return a.storeUser(ctx, ofBroker(name), TokensRevoked, func(old *user) (record userRecord, err error) {
		if old == nil {
			return record, ErrNotFound
		}
		record = old.record
		record.Tokens = newVersion()
		return record, nil
	})
}
