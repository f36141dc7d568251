package emqx

import (
	"net/http"
	"slices"
	"strings"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// The rules of EMQX's built-in database are the broker's rules about users,
// client ids and all, as far as they speak of publishing to topics and
// subscribing to them. Others are neither shown nor touched here.

// builtIn is the one source of rules.
const builtIn = "built_in_database"

// Kinds of rules, as paths name them, and how our rules begin to name them.
const (
	ofUsers   = "users"
	ofClients = "clients"
	ofAll     = "all"
)

var whoOf = map[string]string{ofUsers: "user:", ofClients: "client:"}

type sourceView struct {
	Type   string `json:"type"`
	Enable bool   `json:"enable"`
}

func (a *api) listSources(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, struct {
		Sources []sourceView `json:"sources"`
	}{[]sourceView{{builtIn, true}}})
}

func (a *api) getSource(w http.ResponseWriter, r *httpx.Request) error {
	if r.Param("type") != builtIn {
		return noSource(r)
	}
	return answer(w, r, sourceView{builtIn, true})
}

// accessMetrics are the questions of MQTT clients whether they may publish or
// subscribe. Each is answered by the one source there is, and none passed on.
type accessMetrics struct {
	Total   int64 `json:"total"`
	Allow   int64 `json:"allow"`
	Deny    int64 `json:"deny"`
	Ignore  int64 `json:"ignore"`
	NoMatch int64 `json:"nomatch"`
}

type sourceStatusView struct {
	Status      string              `json:"status"`
	Metrics     accessMetrics       `json:"metrics"`
	NodeMetrics []nodeAccessMetrics `json:"node_metrics"`
	NodeStatus  []nodeStatusView    `json:"node_status"`
	NodeError   []string            `json:"node_error"`
}

type nodeAccessMetrics struct {
	Node    string        `json:"node"`
	Metrics accessMetrics `json:"metrics"`
}

// sourcePart serves GET /authorization/sources/:type/status.
func (a *api) sourcePart(w http.ResponseWriter, r *httpx.Request) error {
	switch {
	case r.Param("type") != builtIn:
		return noSource(r)
	case r.Param("part") != "status":
		return httpx.ErrNoRoute
	}
	n := a.counters()
	m := accessMetrics{Total: n["mqtt.access.asked"], Allow: n["mqtt.access.allowed"], Deny: n["mqtt.access.denied"]}
	return answer(w, r, sourceStatusView{
		Status: "connected", Metrics: m, NodeMetrics: []nodeAccessMetrics{{a.options.Node, m}},
		NodeStatus: []nodeStatusView{{a.options.Node, "connected"}}, NodeError: []string{},
	})
}

func noSource(r *httpx.Request) error {
	return missing(notFound, "there is no source %q, only %s", httpx.Clip(r.Param("type")), builtIn)
}

// authorizationSettings says what happens where no rule decides: the role of
// the client does, which lets it publish and subscribe within its scopes.
func (a *api) authorizationSettings(w http.ResponseWriter, r *httpx.Request) error {
	type cache struct {
		Enable bool `json:"enable"`
	}
	return answer(w, r, struct {
		NoMatch    string `json:"no_match"`
		DenyAction string `json:"deny_action"`
		Cache      cache  `json:"cache"`
	}{"allow", a.options.DenyAction, cache{}})
}

// ruleView is a rule as EMQX writes it.
type ruleView struct {
	Topic      string `json:"topic"`
	Permission string `json:"permission"`
	Action     string `json:"action"`
}

// ruleSet is the rules about one user, or one client id, or all.
type ruleSet struct {
	Username string     `json:"username,omitempty"`
	ClientID string     `json:"clientid,omitempty"`
	Rules    []ruleView `json:"rules"`
}

var (
	toPlaceholder   = strings.NewReplacer("%c", "${clientid}", "%u", "${username}")
	fromPlaceholder = strings.NewReplacer("${clientid}", "%c", "${username}", "%u")
)

// viewRule shows a rule, if EMQX has words for it.
func viewRule(rule *auth.Rule) (v ruleView, ok bool) {
	if strings.HasPrefix(rule.Filter, "queue:") || strings.HasPrefix(rule.Filter, "stream:") {
		return v, false
	}
	v = ruleView{Topic: toPlaceholder.Replace(rule.Filter), Permission: rule.Effect}
	publish, subscribe := slices.Contains(rule.Do, "publish"), slices.Contains(rule.Do, "subscribe")
	switch {
	case slices.ContainsFunc(rule.Do, func(do string) bool { return do != "publish" && do != "subscribe" }):
		return v, false
	case publish && subscribe:
		v.Action = "all"
	case publish:
		v.Action = "publish"
	default:
		v.Action = "subscribe"
	}
	return v, true
}

// readRule reads one. What our rules cannot say is refused, not forgotten.
func readRule(d *httpx.Decoder) (rule auth.Rule, err error) {
	var v ruleView
	var qos []int64
	retain := "all"
	unknown := func(d *httpx.Decoder) error {
		if d.Null() {
			return nil
		}
		return httpx.Problem("is not a condition that rules have here")
	}
	err = fields{
		"topic": text(&v.Topic), "permission": text(&v.Permission), "action": text(&v.Action),
		"qos": func(d *httpx.Decoder) error {
			return d.Array(func(int) error {
				var n int64
				err := whole(&n, 0, 2)(d)
				qos = append(qos, n)
				return err
			})
		},
		"retain": func(d *httpx.Decoder) (err error) {
			if d.Peek() == 't' {
				retain = "one"
				return d.Skip()
			}
			return text(&retain)(d)
		},
		"clientid_re": unknown, "username_re": unknown, "ipaddr": unknown, "listener": unknown, "listener_re": unknown, "zone": unknown, "zone_re": unknown,
	}.read(d)
	switch {
	case err != nil:
		return rule, err
	case retain != "all":
		return rule, httpx.FieldError("retain", "must be all: rules hold for retained messages and others alike")
	case qos != nil && len(slices.Compact(slices.Sorted(slices.Values(qos)))) != 3:
		return rule, httpx.FieldError("qos", "must be [0,1,2]: rules hold for every QoS alike")
	case strings.HasPrefix(v.Topic, "eq "):
		return rule, httpx.FieldError("topic", "begins with eq, and filters here cover what they match")
	}
	do := map[string][]string{"publish": {"publish"}, "subscribe": {"subscribe"}, "all": {"publish", "subscribe"}, "": {"publish", "subscribe"}}[v.Action]
	if do == nil {
		return rule, httpx.FieldError("action", "is %q, it must be publish, subscribe or all", httpx.Clip(v.Action))
	}
	return auth.Rule{Effect: v.Permission, Do: do, Filter: fromPlaceholder.Replace(v.Topic)}, nil
}

// namedRules are the rules of a body about one name.
type namedRules struct {
	name  string
	rules []auth.Rule
}

func readNamedRules(d *httpx.Decoder) (n namedRules, err error) {
	return n, fields{
		"username": text(&n.name), "clientid": text(&n.name),
		"rules": func(d *httpx.Decoder) error {
			return d.Array(func(int) error {
				rule, err := readRule(d)
				n.rules = append(n.rules, rule)
				return err
			})
		},
	}.read(d)
}

// rulesAbout shows the rules about who, in their order.
func rulesAbout(all []auth.Rule, who string) (views []ruleView) {
	for i := range all {
		if v, ok := viewRule(&all[i]); ok && all[i].Who == who {
			views = append(views, v)
		}
	}
	return views
}

// about says whose rules a path below a source is about.
func about(kind, name string) (who string, err error) {
	prefix, ok := whoOf[kind]
	switch {
	case kind == ofAll && name == "":
		return ofAll, nil
	case !ok:
		return "", httpx.ErrNoRoute
	}
	return prefix + name, nil
}

// checkRules checks the first part of a path of rules.
func checkRules(r *httpx.Request) error {
	switch {
	case r.Param("type") != builtIn:
		return noSource(r)
	case r.Param("part") != "rules":
		return httpx.ErrNoRoute
	}
	return nil
}

// listRules answers the rules about all, or a page of those about users or clients.
func (a *api) listRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	all, kind := a.auth.Rules(), r.Param("kind")
	if kind == ofAll {
		return answer(w, r, ruleSet{Rules: append([]ruleView{}, rulesAbout(all, ofAll)...)})
	}
	prefix, ok := whoOf[kind]
	if !ok {
		return httpx.ErrNoRoute
	}
	p, err := readPage(r)
	if err != nil {
		return err
	}
	like, err := r.Query(map[string]string{ofUsers: "like_username", ofClients: "like_clientid"}[kind])
	if err != nil {
		return badQuery(err)
	}
	sets, seen := []ruleSet{}, map[string]bool{}
	for i := range all {
		name, ok := strings.CutPrefix(all[i].Who, prefix)
		if !ok || seen[name] || !strings.Contains(name, like) {
			continue
		}
		seen[name] = true
		if views := rulesAbout(all, all[i].Who); views != nil {
			sets = append(sets, named(kind, name, views))
		}
	}
	l := pageOf(sets, p)
	if like != "" {
		l.Meta.Count = nil
	}
	return answer(w, r, l)
}

func named(kind, name string, views []ruleView) ruleSet {
	if kind == ofUsers {
		return ruleSet{Username: name, Rules: views}
	}
	return ruleSet{ClientID: name, Rules: views}
}

func (a *api) getRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	kind, name := r.Param("kind"), r.Param("who")
	who, err := about(kind, name)
	if err != nil {
		return err
	}
	views := rulesAbout(a.auth.Rules(), who)
	if views == nil {
		return missing(notFound, "there are no rules about %s", httpx.Clip(who))
	}
	return answer(w, r, named(kind, name, views))
}

// createRules takes rules about all, or a list of those about names that have
// none yet.
func (a *api) createRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	kind := r.Param("kind")
	var sets []namedRules
	read := func(d *httpx.Decoder) error {
		n, err := readNamedRules(d)
		if err == nil && n.name == "" && kind != ofAll {
			err = httpx.Problem("names nobody")
		}
		sets = append(sets, n)
		return err
	}
	if _, err := about(kind, ""); err != nil {
		return err
	}
	err := readBody(r, maxBody, func(d *httpx.Decoder) error {
		if kind == ofAll {
			return read(d)
		}
		return d.Array(func(int) error { return read(d) })
	})
	if err != nil {
		return err
	}
	return a.updateRules(w, r, func(rules []auth.Rule) ([]auth.Rule, error) {
		for _, n := range sets {
			who, _ := about(kind, n.name) // checked above
			if kind != ofAll && rulesAbout(rules, who) != nil {
				return nil, problemf(http.StatusConflict, alreadyExists, "there are rules about %s already", httpx.Clip(who))
			}
			rules = replaceRules(rules, who, n.rules)
		}
		return rules, nil
	})
}

// replaceRules puts rules in the place of those about who that EMQX could see.
func replaceRules(all []auth.Rule, who string, rules []auth.Rule) []auth.Rule {
	all = slices.DeleteFunc(all, func(rule auth.Rule) bool {
		_, ok := viewRule(&rule)
		return ok && rule.Who == who
	})
	for _, rule := range rules {
		rule.Who = who
		all = append(all, rule)
	}
	return all
}

func (a *api) updateRules(w http.ResponseWriter, r *httpx.Request, change func([]auth.Rule) ([]auth.Rule, error)) error {
	if err := a.auth.UpdateRules(r.Context(), change); err != nil {
		return httpx.AccountError(err, "the rules")
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// setRules replaces the rules about one name, which the body repeats.
func (a *api) setRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	name := r.Param("who")
	who, err := about(r.Param("kind"), name)
	if err != nil {
		return err
	}
	n := namedRules{}
	if err := readBody(r, maxBody, func(d *httpx.Decoder) (err error) { n, err = readNamedRules(d); return err }); err != nil {
		return err
	}
	if n.name != name {
		return bad("the body is about %q and the path about %q", httpx.Clip(n.name), httpx.Clip(name))
	}
	return a.updateRules(w, r, func(rules []auth.Rule) ([]auth.Rule, error) {
		if rulesAbout(rules, who) == nil {
			return nil, missing(notFound, "there are no rules about %s", httpx.Clip(who))
		}
		return replaceRules(rules, who, n.rules), nil
	})
}

// deleteRules deletes the rules about one name, or about all.
func (a *api) deleteRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	who, err := about(r.Param("kind"), r.Param("who"))
	if err != nil {
		return err
	}
	return a.updateRules(w, r, func(rules []auth.Rule) ([]auth.Rule, error) {
		if who != ofAll && rulesAbout(rules, who) == nil {
			return nil, missing(notFound, "there are no rules about %s", httpx.Clip(who))
		}
		return replaceRules(rules, who, nil), nil
	})
}

// purgeRules deletes all rules that can be seen here.
func (a *api) purgeRules(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkRules(r); err != nil {
		return err
	}
	return a.updateRules(w, r, func(rules []auth.Rule) ([]auth.Rule, error) {
		return slices.DeleteFunc(rules, func(rule auth.Rule) bool {
			_, ok := viewRule(&rule)
			return ok && (rule.Who == ofAll || strings.HasPrefix(rule.Who, whoOf[ofUsers]) || strings.HasPrefix(rule.Who, whoOf[ofClients]))
		}), nil
	})
}
