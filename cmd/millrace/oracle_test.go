package main_test

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
)

// rule is one access rule as a client writes it.
type rule struct {
	Effect string   `json:"effect"`
	Who    string   `json:"who"`
	Do     []string `json:"do"`
	Filter string   `json:"filter"`
}

// identity is one who asks at the doors.
type identity struct {
	who, role string // user:ann; super is a superuser
	scopes    []string
	login     [2]string   // of MQTT
	client    string      // MQTT client id
	bearer    string      // of HTTP; "" has no way in
	tls       *tls.Config // with its certificate, which is all it shows; nil = it has none
	web       *http.Client
}

// name is what %u stands for.
func (i *identity) name() string {
	_, name, _ := strings.Cut(i.who, ":")
	return name
}

// question is one cell: who asks for what at which door.
type question struct {
	door          string // mqtt, rest, emqx, fastqueue, memfifo or pulsar
	action        string
	kind, subject string    // topic, queue, stream or server
	path          string    // by which it is asked, for what more than one leads to
	client        string    // MQTT client id
	also          *question // has to be answered yes as well
}

// oracle answers a question by the words of docs/access.md and of package auth,
// and knows nothing of how the broker decides.
func oracle(i *identity, rules []rule, q question) bool {
	client := q.client
	if q.also != nil && !oracle(i, rules, *q.also) {
		return false
	}
	if q.kind == "server" {
		return i.role == "super" || i.role == "administrator" || i.role == "viewer" && q.action == "view"
	}
	if i.role == "super" {
		return true
	}
	if q.action == "view" {
		denied := slices.ContainsFunc(rules, func(r rule) bool { return r.Effect == "deny" && speaks(r, i, client, "consume", q) })
		return i.role == "administrator" || i.role == "viewer" && !denied && inScope(i, q) ||
			oracle(i, rules, q.with("consume")) || oracle(i, rules, q.with("manage"))
	}
	named, allowed := false, false
	for _, r := range rules {
		switch {
		case r.Effect == "deny":
			if speaks(r, i, client, q.action, q) {
				return false
			}
		case about(r, i, client):
			named = named || i.role != "administrator" || r.Who != "all" // what is for all narrows no administrator
			allowed = allowed || speaks(r, i, client, q.action, q)
		}
	}
	if named {
		return allowed
	}
	does := map[string][]string{
		"administrator": {"publish", "subscribe", "consume", "manage"}, "publisher": {"publish"},
		"client": {"publish", "subscribe", "consume"}, "anonymous": {"publish", "subscribe", "consume"},
	}[i.role]
	return slices.Contains(does, q.action) && inScope(i, q)
}

// with is the same question about another action.
func (q question) with(action string) question {
	q.action = action
	return q
}

func about(r rule, i *identity, client string) bool {
	return r.Who == "all" || r.Who == i.who || client != "" && r.Who == "client:"+client
}

func speaks(r rule, i *identity, client, action string, q question) bool {
	does := slices.Contains(r.Do, action) || q.kind != "topic" && action == "consume" && slices.Contains(r.Do, "subscribe")
	return does && about(r, i, client) && covers(r.Filter, q.kind, q.subject, map[string]string{"%c": client, "%u": i.name()})
}

func inScope(i *identity, q question) bool {
	return len(i.scopes) == 0 || slices.ContainsFunc(i.scopes, func(s string) bool { return covers(s, q.kind, q.subject, nil) })
}

// covers compares level by level; names of queues and streams have a star at
// the end at most.
func covers(filter, kind, subject string, stand map[string]string) bool {
	for _, named := range []string{"queue", "stream"} {
		if glob, ok := strings.CutPrefix(filter, named+":"); ok || kind == named {
			head, _, star := strings.Cut(glob, "*")
			return ok && kind == named && (glob == subject || star && strings.HasPrefix(subject, head))
		}
	}
	levels := strings.Split(subject, "/")
	for n, f := range strings.Split(filter, "/") {
		if v, ok := stand[f]; ok {
			if f = v; v == "" {
				return false
			}
		}
		if f == "#" {
			return true
		}
		if n >= len(levels) || f != "+" && f != levels[n] {
			return false
		}
	}
	return strings.Count(filter, "/")+1 == len(levels)
}
