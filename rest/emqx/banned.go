package emqx

import (
	"errors"
	"net/http"
	"regexp"
	"time"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

type banView struct {
	As     auth.BanKind `json:"as"`
	Who    string       `json:"who"`
	By     string       `json:"by"`
	Reason string       `json:"reason"`
	At     string       `json:"at"`
	Until  string       `json:"until"`
}

func viewBan(b *auth.Ban) banView {
	v := banView{As: b.Kind, Who: b.Who, By: b.By, Reason: b.Reason, At: b.At.UTC().Format(time.RFC3339), Until: infinity}
	if !b.Until.IsZero() {
		v.Until = b.Until.UTC().Format(time.RFC3339)
	}
	return v
}

// banFilter is the one condition that a list of bans may have.
func banFilter(r *httpx.Request) (want func(*auth.Ban) bool, exact bool, err error) {
	want, exact = func(*auth.Ban) bool { return true }, true
	given := 0
	for _, kind := range auth.BanKinds {
		for _, like := range []string{"", "like_"} {
			s, err := r.Query(like + string(kind))
			if err != nil {
				return nil, false, badQuery(err)
			}
			if s == "" {
				continue
			}
			if given++; given > 1 {
				return nil, false, problemf(http.StatusBadRequest, invalidParameter, "only one condition can be given")
			}
			if like == "" {
				want = func(b *auth.Ban) bool { return b.Kind == kind && b.Who == s }
				continue
			}
			re, err := regexp.Compile(s)
			if err != nil {
				return nil, false, problemf(http.StatusBadRequest, invalidParameter, "%s%s is not a regular expression", like, kind)
			}
			exact = false
			want = func(b *auth.Ban) bool { return b.Kind == kind && re.MatchString(b.Who) }
		}
	}
	return want, exact, nil
}

func (a *api) listBans(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	want, exact, err := banFilter(r)
	if err != nil {
		return err
	}
	views := []banView{}
	for _, b := range a.auth.Bans() {
		if want(&b) {
			views = append(views, viewBan(&b))
		}
	}
	l := pageOf(views, p)
	if !exact {
		l.Meta.Count = nil
	}
	return answer(w, r, l)
}

// createBan bans, which ends the connections that the ban is about.
func (a *api) createBan(w http.ResponseWriter, r *httpx.Request) error {
	b := auth.Ban{By: "mgmt_api"}
	kind := ""
	err := readBody(r, maxBody, fields{
		"as": text(&kind), "who": text(&b.Who), "by": text(&b.By), "reason": text(&b.Reason),
		"at": readWhen(&b.At), "until": readWhen(&b.Until),
	}.read)
	if err != nil {
		return err
	}
	if kind == "" || b.Who == "" {
		return bad("as and who are needed")
	}
	b.Kind = auth.BanKind(kind)
	made, err := a.auth.AddBan(r.Context(), b)
	switch {
	case errors.Is(err, auth.ErrExists):
		return problemf(http.StatusConflict, alreadyExists, "%s %q is banned already", kind, httpx.Clip(b.Who))
	case err != nil:
		return httpx.AccountError(err, "the ban")
	}
	a.setDurability(w)
	return answer(w, r, viewBan(&made))
}

func (a *api) deleteBan(w http.ResponseWriter, r *httpx.Request) error {
	kind, who := r.Param("as"), r.Param("who")
	err := a.auth.RemoveBan(r.Context(), auth.BanKind(kind), who)
	switch {
	case errors.Is(err, auth.ErrNotFound):
		return missing(notFound, "%s %q is not banned", httpx.Clip(kind), httpx.Clip(who))
	case err != nil:
		return httpx.AccountError(err, "the ban")
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

func (a *api) deleteBans(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.auth.RemoveBans(r.Context()); err != nil {
		return httpx.AccountError(err, "the bans")
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}
