package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// api is a client of /api/v1.
type api struct {
	url, key, output string
}

// register adds the flags of every command that speaks HTTP.
func (a *api) register(c *cobra.Command) {
	c.PersistentFlags().StringVar(&a.url, "url", "", "HTTP address of the broker (MILLRACE_URL; default http://127.0.0.1:8080)")
	c.PersistentFlags().StringVar(&a.key, "key", "", "API key, id.secret (better MILLRACE_KEY or MILLRACE_KEY_FILE: other users of this machine can see flags)")
	c.PersistentFlags().StringVarP(&a.output, "output", "o", "", "table or json; default: table on a terminal, else json")
}

// resolve fills in what comes from the environment.
func (a *api) resolve() error {
	if a.url == "" {
		a.url = os.Getenv("MILLRACE_URL")
	}
	if a.url == "" {
		a.url = "http://127.0.0.1:8080"
	}
	if u, err := url.Parse(a.url); err != nil || u.Host == "" {
		return usage("--url %q is not a URL: write for example http://127.0.0.1:8080", a.url)
	}
	a.url = strings.TrimRight(a.url, "/")
	if a.key == "" {
		a.key = os.Getenv("MILLRACE_KEY")
	}
	if file := os.Getenv("MILLRACE_KEY_FILE"); a.key == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return usage("MILLRACE_KEY_FILE: %w", err)
		}
		a.key = strings.TrimSpace(string(text))
	}
	if a.output != "" && a.output != "table" && a.output != "json" {
		return usage("-o %s: the output is table or json", a.output)
	}
	return nil
}

// envelope is the form of every answer.
type envelope struct {
	Data  json.RawMessage `json:"data"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// call makes one request and returns the data of its answer.
func (a *api) call(ctx context.Context, method, path string, body any) (json.RawMessage, error) {
	resp, err := a.send(ctx, &http.Client{Timeout: 2 * time.Minute}, method, path, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // everything was read
	return a.read(path, resp)
}

// send makes a request; no answer at all is an error.
func (a *api) send(ctx context.Context, client *http.Client, method, path string, body any) (*http.Response, error) {
	if err := a.resolve(); err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+"/api/v1"+path, r)
	if err != nil {
		return nil, usage("--url %q: %w", a.url, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if a.key != "" {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("cannot reach %s: %w", a.url, err), hint: "start the broker with millrace serve, or name it with --url or MILLRACE_URL"}
	}
	return resp, nil
}

// read returns the data of an answer in the envelope.
func (a *api) read(path string, resp *http.Response) (json.RawMessage, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("the answer of %s broke off: %w", a.url, err)}
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil || resp.StatusCode >= 300 && e.Error == nil {
		return nil, &failure{code: exitFailed, err: fmt.Errorf("%s answered %s, which is not the answer of a Millrace API", a.url, resp.Status), hint: "check --url"}
	}
	if resp.StatusCode < 300 {
		return e.Data, nil
	}
	return nil, refusal(path, resp.StatusCode, e.Error.Code, e.Error.Message)
}

// refusal makes the error for an answer that is not 2xx.
func refusal(path string, status int, code, message string) error {
	f := &failure{code: exitFailed, err: fmt.Errorf("%s (%d %s)", oneLine(message), status, code)}
	switch status {
	case http.StatusUnauthorized:
		f.code, f.hint = exitNotAllowed, "give an API key as MILLRACE_KEY=id.secret or --key"
	case http.StatusForbidden:
		f.code, f.hint = exitNotAllowed, "use a key with more rights"
	case http.StatusNotFound:
		f.code = exitNotFound
		switch code {
		case "QUEUE_NOT_FOUND":
			f.hint = "millrace queue ls shows the queues there are"
		case "STREAM_NOT_FOUND":
			f.hint = "millrace stream ls shows the streams there are"
		}
	case http.StatusConflict:
		if code == "ALREADY_EXISTS" && strings.HasPrefix(path, "/queues") {
			f.hint = "millrace queue edit changes it"
		}
	}
	return f
}
