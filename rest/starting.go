package rest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"millrace/rest/internal/httpx"
)

// Starting answers at an address for a process that has not opened its store yet:
// GET /livez with 200, all else with 503 and, to users of this machine, why. stop ends
// that and frees the address.
func Starting(ctx context.Context, address, why string) (stop func(), err error) {
	var config net.ListenConfig
	bound, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for http: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"ok"}`)) // whoever asked has left
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body := []byte(`{"status":"unavailable"`)
		if httpx.FromLoopback(r) {
			body = httpx.AppendString(append(body, `,"reason":`...), why)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write(append(body, '}'))
	})
	s := &http.Server{Handler: mux, ReadTimeout: headerTimeout, IdleTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(bound) }() // ends with stop
	return func() {
		_ = s.Close() // it takes no requests to their end
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			_ = bound.Close()
		}
	}, nil
}
