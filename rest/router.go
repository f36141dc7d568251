package rest

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"millrace/rest/apidocs"
	"millrace/rest/internal/httpx"
)

// router finds who answers a request of one listener: a dialect by its prefix, a
// mount, the operators' paths, the documents.
type router struct {
	ops      http.Handler
	mounts   map[string]http.Handler
	docs     http.Handler
	dialects map[Dialect]http.Handler
	rest     http.Handler
	notice   []string
	hsts     []string
}

// newRouter has a listener of one dialect answer in that dialect's shape throughout.
func newRouter(o Options, l Listener, all map[Dialect]http.Handler, ops http.Handler, s *httpx.Shared) *router {
	r := &router{ops: ops, docs: apidocs.New(s, documentsAt(l.Dialects), renderPlain), dialects: map[Dialect]http.Handler{}, rest: ops}
	for _, d := range l.Dialects {
		r.dialects[d] = all[d]
	}
	if len(l.Dialects) == 1 {
		r.rest = all[l.Dialects[0]]
	} else {
		r.mounts = o.Mounts
	}
	if l.TLS != nil && o.HSTS > 0 {
		r.hsts = []string{fmt.Sprintf("max-age=%d", int(o.HSTS/time.Second))}
	}
	if o.Notice != "" {
		r.notice = []string{o.Notice}
	}
	return r
}

var (
	serverHeader  = []string{"millrace"}
	nosniffHeader = []string{"nosniff"}
)

// ServeHTTP goes by the path as it was sent: net/http's own mux would clean
// doubled slashes and dots away, which are legal in topics.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	showTLS(req)
	h := w.Header()
	h["Server"], h["X-Content-Type-Options"] = serverHeader, nosniffHeader
	if r.notice != nil {
		h["Millrace-Notice"] = r.notice
	}
	if r.hsts != nil {
		h["Strict-Transport-Security"] = r.hsts
	}
	path := req.URL.EscapedPath()
	if d, ok := r.dialects[dialectOf(path)]; ok {
		d.ServeHTTP(w, req)
		return
	}
	if m, ok := r.mounts[path]; ok {
		m.ServeHTTP(bare{w}, req)
		return
	}
	if slices.Contains(opsPaths, path) {
		r.ops.ServeHTTP(w, req)
		return
	}
	if apidocs.Has(path) {
		r.docs.ServeHTTP(w, req)
		return
	}
	r.rest.ServeHTTP(w, req)
}
