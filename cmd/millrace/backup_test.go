package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestABackupOfARunningBrokerRestoresAndOldReceiptsAreNoneOfItsOwn(t *testing.T) {
	boot := bootstrapFile(t, testKeyYAML+"- {id: look, secret: look-at-this-secret, role: viewer}\nqueues:\n- {name: work, topic_filter: \"work/#\"}\nstreams:\n- {name: log, topic_filter: \"work/#\"}\n")
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", boot)
	d := &doors{t: t, s: s}
	for n := range 30 {
		d.admin("POST", "/topics/work/a/messages", fmt.Sprintf(`{"payload":"%d","retain":true}`, n))
	}
	old := d.admin("POST", "/queues/work/messages/consume", `{"max_messages":1}`)
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.tar")
	if out, errs, code := command(t, "backup", "create", file, "--url", s.url(), "--key", "look.look-at-this-secret"); code != 4 {
		t.Fatalf("a viewer's backup ends with %d: %s%s", code, out, errs)
	}
	if out, errs, code := command(t, "backup", "create", file, "--url", s.url(), "--key", testKey); code != 0 {
		t.Fatalf("create ends with %d: %s%s", code, out, errs)
	}
	if _, _, code := command(t, "backup", "create", file, "--url", s.url(), "--key", testKey); code != 2 {
		t.Errorf("create over a file ends with %d", code)
	}
	d.admin("POST", "/topics/work/a/messages", `{"payload":"after"}`)
	later := d.admin("POST", "/queues/work/messages/consume", `{"max_messages":1}`)
	s.stop()

	data := filepath.Join(dir, "new", "data")
	if out, errs, code := command(t, "backup", "restore", file, "--data", data); code != 0 {
		t.Fatalf("restore ends with %d: %s%s", code, out, errs)
	}
	if _, errs, code := command(t, "backup", "restore", file, "--data", data); code == 0 || !strings.Contains(errs, "not empty") {
		t.Errorf("restore over a directory ends with %d: %s", code, errs)
	}
	if out, errs, code := command(t, "check", "--data", data); code != 0 {
		t.Errorf("check ends with %d: %s%s", code, out, errs)
	}
	d.s = startServer(t, "--data", data, "--bootstrap-file", boot)
	for what, receipt := range map[string][]byte{"before": old, "after": later} {
		id, handle := field(receipt, "message_id"), field(receipt, "receipt_handle")
		status, answer := d.call("Bearer "+testKey, "POST", "/queues/work/messages/"+id+"/ack", fmt.Sprintf(`{"receipt_handle":%q}`, handle), false)
		if status/100 == 2 {
			t.Errorf("a receipt of %s the backup is taken: %s", what, answer)
		}
	}
	if answer := string(d.admin("GET", "/queues/work", "")); !strings.Contains(answer, `"message_count":30`) || !strings.Contains(answer, `"in_flight_count":1`) {
		t.Errorf("restored %s", answer)
	}
	if answer := string(d.admin("GET", "/streams/log/partitions/0/messages?offset=0&limit=100", "")); strings.Count(answer, `"offset"`) < 30 || strings.Contains(answer, "after") {
		t.Errorf("restored %.300s", answer)
	}

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut.tar")
	if err := os.WriteFile(cut, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	nothing := filepath.Join(dir, "nothing")
	if _, errs, code := command(t, "backup", "restore", cut, "--data", nothing); code != 1 || !strings.Contains(errs, "not a whole backup") {
		t.Errorf("restore of half a backup ends with %d: %s", code, errs)
	}
	if _, err := os.Stat(nothing); err == nil {
		t.Error("half a backup left a directory")
	}
}

// field is a string member of an answer.
func field(answer []byte, name string) string {
	_, rest, _ := strings.Cut(string(answer), `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
