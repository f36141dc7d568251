package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// pulsarCursor is what GET .../cursor answers.
type pulsarCursor struct {
	Cursor struct {
		Marks []struct {
			Partition int
			MessageID string
		} `json:"mark_delete"`
		Acked   int `json:"individually_acked"`
		Backlog int
	}
}

func TestPulsarCursorsAndSchemasOutliveAKill(t *testing.T) {
	args := []string{"--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML)}
	c := &crossing{t, startServer(t, args...)}
	const topic = "/topics/shop/eu/carts"
	c.call("PUT", "http", "/admin/v2/persistent/shop/eu/carts/partitions", nil, "2")
	var messages []string
	for i := range 10 {
		messages = append(messages, fmt.Sprintf(`{"value":%d,"partition":%d}`, i, i%2))
	}
	h, _ := c.call("POST", "http", topic, nil, `{"schema_type":"INT64","messages":[`+strings.Join(messages, ",")+`]}`)
	if h.Get("Millrace-Durability") != "disk" {
		t.Errorf("produced with durability %q", h.Get("Millrace-Durability"))
	}
	join := func() string {
		base := ask[struct {
			Base string `json:"base_uri"`
		}](c, "POST", topic+"/subscription/s", map[string]any{"position": "earliest"}).Base
		return strings.TrimPrefix(base, c.s.url())
	}
	consumer := join()
	got := ask[pulsarMessages](c, "GET", consumer+"/messages", nil).Messages
	if len(got) != 10 {
		t.Fatalf("fetched %d messages", len(got))
	}
	acks := []string{got[2].MessageID, got[8].MessageID}
	h, _ = c.call("POST", "http", topic+"/subscription/s/cursor", nil, fmt.Sprintf(`{"type":"cumulative","messageIds":[%q]}`, acks[0]))
	if h.Get("Millrace-Durability") != "disk" {
		t.Errorf("acknowledged with durability %q", h.Get("Millrace-Durability"))
	}
	ask[any](c, "POST", topic+"/subscription/s/cursor", map[string]any{"type": "individual", "messageIds": acks[1:]})
	before := ask[pulsarCursor](c, "GET", topic+"/subscription/s/cursor", nil)

	c.s.kill()
	c.s = startServer(t, args...)
	if after := ask[pulsarCursor](c, "GET", topic+"/subscription/s/cursor", nil); fmt.Sprint(after) != fmt.Sprint(before) || after.Cursor.Backlog != 10-3-1 {
		t.Errorf("the cursor was %+v, and is %+v", before, after)
	}
	read := ask[pulsarMessages](c, "GET", topic+"/partitions/1/messages?include_schema=true", nil).Messages
	if len(read) != 5 || string(read[4].Value) != "9" || read[4].SchemaVersion == nil || *read[4].SchemaVersion != 0 {
		t.Errorf("read %+v", read)
	}
	again := ask[struct {
		Version int `json:"schema_version"`
	}](c, "POST", topic, map[string]any{"schema_type": "INT64", "messages": []any{map[string]any{"value": 10}}})
	if again.Version != 0 {
		t.Errorf("the schema has version %d now", again.Version)
	}
}
