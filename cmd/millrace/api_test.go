package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// service is an HTTP client of /api/v1, as a service would write it.
type service struct {
	url    string
	client *http.Client
}

func newService(s *server) *service {
	return &service{url: s.url() + "/api/v1", client: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: 16},
	}}
}

// call makes one request and decodes the data of its answer into data. The
// error of an answer that is not 2xx holds its text.
func (s *service) call(ctx context.Context, method, path string, body, data any) error {
	return s.callWith(ctx, nil, method, path, body, data)
}

// callWith is call with more headers.
func (s *service) callWith(ctx context.Context, headers http.Header, method, path string, body, data any) error {
	var text []byte
	var err error
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if headers != nil {
		req.Header = headers
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if data == nil {
		return nil
	}
	return json.Unmarshal(answer, &struct{ Data any }{data})
}

// held is a message in the hands of a consumer.
type held struct {
	ID       string `json:"message_id"`
	Receipt  string `json:"receipt_handle"`
	Payload  string `json:"payload"`
	Encoding string `json:"payload_encoding"`
	Attempt  int    `json:"receive_count"`

	Properties map[string]string `json:"properties"`
}

func (h held) bytes() []byte {
	if h.Encoding != "base64" {
		return []byte(h.Payload)
	}
	b, err := base64.StdEncoding.DecodeString(h.Payload)
	if err != nil {
		return nil
	}
	return b
}

// pathOf is the path of a queue, or of what is named by its path.
func pathOf(source string) string {
	if strings.HasPrefix(source, "/") {
		return source
	}
	return "/queues/" + source
}

// consume leases messages for some seconds, and waits up to wait seconds for the first.
func (s *service) consume(ctx context.Context, queue string, most, wait, lease int) ([]held, error) {
	var got struct{ Messages []held }
	err := s.call(ctx, http.MethodPost, pathOf(queue)+"/messages/consume",
		map[string]int{"max_messages": most, "timeout_seconds": wait, "visibility_timeout_seconds": lease}, &got)
	return got.Messages, err
}

func (s *service) ack(ctx context.Context, queue string, h held) error {
	return s.call(ctx, http.MethodPost, pathOf(queue)+"/messages/"+h.ID+"/ack", map[string]string{"receipt_handle": h.Receipt}, nil)
}

func (s *service) nack(ctx context.Context, queue string, h held) error {
	return s.call(ctx, http.MethodPost, pathOf(queue)+"/messages/"+h.ID+"/nack", map[string]any{"receipt_handle": h.Receipt, "delay_seconds": 0}, nil)
}

// ackAll acknowledges a batch, and reports for each whether it is settled.
func (s *service) ackAll(ctx context.Context, queue string, hs []held) ([]bool, error) {
	type entry struct {
		ID      string `json:"message_id"`
		Receipt string `json:"receipt_handle"`
	}
	var body struct {
		Messages []entry `json:"messages"`
	}
	for _, h := range hs {
		body.Messages = append(body.Messages, entry{h.ID, h.Receipt})
	}
	var got struct {
		Results []struct {
			State string `json:"state"`
		}
	}
	if err := s.call(ctx, http.MethodPost, pathOf(queue)+"/messages/ack", body, &got); err != nil {
		return nil, err
	}
	if len(got.Results) != len(hs) {
		return nil, fmt.Errorf("%d results for %d acks", len(got.Results), len(hs))
	}
	settled := make([]bool, len(hs))
	for i, r := range got.Results {
		settled[i] = r.State != ""
	}
	return settled, nil
}

func (s *service) publish(ctx context.Context, topic, payload string) error {
	return s.call(ctx, http.MethodPost, "/topics/"+topic+"/messages", map[string]string{"payload": payload}, nil)
}

func (s *service) publishBatch(ctx context.Context, topic string, payloads []string) error {
	var body struct {
		Messages []map[string]string `json:"messages"`
	}
	for _, p := range payloads {
		body.Messages = append(body.Messages, map[string]string{"payload": p})
	}
	return s.call(ctx, http.MethodPost, "/topics/"+topic+"/messages/batch", body, nil)
}

// counts are those of a queue.
type counts struct {
	Waiting int `json:"message_count"`
	Held    int `json:"in_flight_count"`
	Dead    int `json:"dead_count"`
	Books   struct {
		Difference int `json:"difference"`
	} `json:"books"`
}

func (s *service) counts(ctx context.Context, queue string) (c counts, err error) {
	return c, s.call(ctx, http.MethodGet, pathOf(queue), nil, &c)
}
