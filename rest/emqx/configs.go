package emqx

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"millrace/rest/internal/httpx"
)

// Setting is one of the broker's own, under its own name; there are none that
// EMQX has and Millrace has not.
type Setting struct {
	Key   string // as mqtt.max_inflight
	Value any    // of JSON; what may be a secret is hidden
}

// settings are all of them as one object of objects.
func (a *api) settings() map[string]any {
	root := map[string]any{}
	if a.options.Settings == nil {
		return root
	}
	for _, s := range a.options.Settings() {
		at, key := root, s.Key
		for {
			head, tail, deeper := strings.Cut(key, ".")
			if !deeper {
				at[key] = s.Value
				break
			}
			below, ok := at[head].(map[string]any)
			if !ok {
				below = map[string]any{}
				at[head] = below
			}
			at, key = below, tail
		}
	}
	return root
}

// getConfigs answers the settings in force, or with ?key= one part of them.
func (a *api) getConfigs(w http.ResponseWriter, r *httpx.Request) error {
	key, err := r.Query("key")
	if err != nil {
		return badQuery(err)
	}
	all := a.settings()
	if key == "" {
		return answerConfig(w, r, all)
	}
	return a.answerRoot(w, r, all, key)
}

func (a *api) getConfig(w http.ResponseWriter, r *httpx.Request) error {
	return a.answerRoot(w, r, a.settings(), r.Param("root"))
}

func (a *api) answerRoot(w http.ResponseWriter, r *httpx.Request, all map[string]any, root string) error {
	part, ok := all[root]
	if !ok {
		return missing(notFound, "there are no settings %q, only %s", httpx.Clip(root), strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return answerConfig(w, r, map[string]any{root: part})
}

// answerConfig writes JSON, which is the HOCON that EMQX answers to whoever does
// not ask for JSON.
func answerConfig(w http.ResponseWriter, r *httpx.Request, v map[string]any) error {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		return answer(w, r, v)
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteText(w, r, "text/plain; charset=utf-8", httpx.AppendJSON(nil, v))
}
