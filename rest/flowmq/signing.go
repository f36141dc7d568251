package flowmq

import (
	"net/http"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

type signingKeyView struct {
	ID       string  `json:"id"`
	MadeAt   string  `json:"made_at"`
	Verifies *string `json:"verifies_until"` // null for the key that signs
}

func (a *api) listSigningKeys(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	return a.answerSigningKeys(w, r)
}

func (a *api) answerSigningKeys(w http.ResponseWriter, r *httpx.Request) error {
	views := []signingKeyView{}
	for _, k := range a.broker.Auth().SigningKeys() {
		views = append(views, signingKeyView{k.ID, timestamp(k.Made), timeOrNull(k.Verifies)})
	}
	return answer(w, r, http.StatusOK, struct {
		SigningKeys []signingKeyView `json:"signing_keys"`
	}{views})
}

// rotateSigningKey has another key sign tokens from this answer on.
func (a *api) rotateSigningKey(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	if err := a.broker.Auth().RotateSigningKey(r.Context()); err != nil {
		return httpx.AccountError(err, "the signing key")
	}
	a.setDurability(w, r)
	return a.answerSigningKeys(w, r)
}
