package emqx

import (
	"net/http"
	"time"

	"millrace/broker/alarms"
	"millrace/rest/internal/httpx"
)

type alarmView struct {
	Node         string         `json:"node"`
	Name         string         `json:"name"`
	Message      string         `json:"message"`
	Details      map[string]any `json:"details"`
	Duration     int64          `json:"duration"`
	ActivateAt   *string        `json:"activate_at"`
	DeactivateAt string         `json:"deactivate_at"`
}

func (a *api) viewAlarm(m *alarms.Alarm) alarmView {
	v := alarmView{Node: a.options.Node, Name: m.Name, Message: m.Message, Details: m.Details, ActivateAt: timestamp(m.Since), DeactivateAt: infinity}
	if v.Details == nil {
		v.Details = map[string]any{}
	}
	if m.Until.IsZero() {
		v.Duration = time.Since(m.Since).Milliseconds()
	} else {
		v.Duration, v.DeactivateAt = m.Until.Sub(m.Since).Milliseconds(), *timestamp(m.Until)
	}
	return v
}

// listAlarms lists those that hold, or with activated=false those that are over.
func (a *api) listAlarms(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	active, asked, err := queryBool(r, "activated")
	if err != nil {
		return err
	}
	views := []alarmView{}
	all := a.options.Alarms.Past
	if active || !asked {
		all = a.options.Alarms.Active
	}
	for _, m := range all() {
		views = append(views, a.viewAlarm(&m))
	}
	return answer(w, r, pageOf(views, p))
}

// forgetAlarms drops those that are over.
func (a *api) forgetAlarms(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.options.Alarms.Forget(r.Context()); err != nil {
		return err
	}
	return httpx.WriteNothing(w)
}

// deactivateAlarm ends an alarm, until its cause raises it again.
func (a *api) deactivateAlarm(w http.ResponseWriter, r *httpx.Request) error {
	name := ""
	if err := readBody(r, maxBody, fields{"name": text(&name)}.read); err != nil {
		return err
	}
	if !a.options.Alarms.Clear(name) {
		return bad("no alarm %q is active", httpx.Clip(name))
	}
	return httpx.WriteNothing(w)
}
