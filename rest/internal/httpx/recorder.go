package httpx

import (
	"net/http"
	"time"
)

// Recorder is the ResponseWriter that handlers are given: it knows what was
// answered, and renews the write deadline of clients that keep reading.
type Recorder struct {
	http.ResponseWriter
	ID     string
	Start  time.Time
	Status int
	Bytes  int64
}

// Unwrap lets http.ResponseController through.
func (w *Recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the status.
func (w *Recorder) WriteHeader(status int) {
	if w.Status == 0 {
		w.Status = status
		w.renew()
	}
	w.ResponseWriter.WriteHeader(status)
}

// WritePart is how much of an answer a client has WriteTimeout to take.
const WritePart = 64 << 10

// Write sends b in parts, each of which the client has WriteTimeout to take.
func (w *Recorder) Write(b []byte) (n int, err error) {
	if w.Status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for parts := len(b) > WritePart; ; {
		if parts {
			w.deadline()
		}
		k, err := w.ResponseWriter.Write(b[:min(len(b), WritePart)])
		n, b = n+k, b[k:]
		if w.Bytes += int64(k); err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// WriteTimeout is how long a client may take nothing of an answer.
const WriteTimeout = 10 * time.Second

// renew moves the deadline that net/http set when the request began, if a
// handler took a good part of it.
func (w *Recorder) renew() {
	if time.Since(w.Start) > WriteTimeout/10 {
		w.deadline()
	}
}

func (w *Recorder) deadline() {
	// Not every ResponseWriter has deadlines, those of tests do not.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(WriteTimeout))
}
