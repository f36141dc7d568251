package flowmq

import (
	"net/http"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

func (a *api) getRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	return a.answerRules(w, r)
}

func (a *api) answerRules(w http.ResponseWriter, r *httpx.Request) error {
	rules := a.broker.Auth().Rules()
	httpx.SetETag(w, rules)
	return answer(w, r, http.StatusOK, struct {
		Rules []auth.Rule `json:"rules"`
		Total int         `json:"total"`
	}{append([]auth.Rule{}, rules...), len(rules)})
}

// setRules puts a list in the place of the one in force, all of it or nothing.
func (a *api) setRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var rules []auth.Rule
	given := false
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			if string(name) != "rules" {
				return d.Unknown()
			}
			given = true
			return d.Array(func(int) error {
				rule, err := readRule(d)
				rules = append(rules, rule)
				return err
			})
		})
	})
	if err != nil {
		return err
	}
	if !given { // an empty list would be said as one
		return httpx.FieldError("rules", "is missing")
	}
	err = a.broker.Auth().UpdateRules(r.Context(), func(now []auth.Rule) ([]auth.Rule, error) { return rules, r.Precondition(now) })
	if err != nil {
		return httpx.AccountError(err, "the list of rules")
	}
	a.setDurability(w, r)
	return a.answerRules(w, r)
}

// readRule reads one rule; what its values may be is for auth to say, of all
// rules at once.
func readRule(d *httpx.Decoder) (rule auth.Rule, err error) {
	return rule, d.Object(func(name []byte) (err error) {
		switch string(name) {
		case "effect":
			rule.Effect, err = d.String()
		case "who":
			rule.Who, err = d.String()
		case "do":
			rule.Do, err = readTexts(d)
		case "filter":
			rule.Filter, err = d.String()
		default:
			err = d.Unknown()
		}
		return err
	})
}
