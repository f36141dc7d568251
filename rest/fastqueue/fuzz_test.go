package fastqueue_test

import (
	"encoding/json"
	"testing"
)

// FuzzBodies sends a body to the calls that read by hand: none may fail
// inside, every error has a detail that is a string, and what a send took is
// what encoding/json reads in it.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"Action":"SendMessage","MessageBody":"\u00fc\ud83d\ude00","MessageAttributes":{"a":"b","c":{"DataType":"Number","StringValue":"1"},"d":1}}`,
		`{"Action":"ReceiveMessage","MaxNumberOfMessages":1,"WaitTimeSeconds":0,"VisibilityTimeout":1}`,
		`{"Action":"DeleteMessage","ReceiptHandle":"r"}`, `{"Action":"ChangeMessageVisibility","ReceiptHandle":"r","VisibilityTimeout":0}`,
		`{"Entries":[{"Id":"a","MessageBody":"x"},{"Id":"b","ReceiptHandle":"y"}],"Action":"SendMessageBatch"}`,
		`{"Action":"DeleteMessageBatch","Entries":[{"Id":"a","ReceiptHandle":null}]}`, `{"Action":"GetQueueAttributes","AttributeNames":["All"]}`,
		`{"name":"q","max_length":1,"max_queue_length":null,"visibility_timeout":2}`, `{"username":"a","password":"b","refresh_token":"c"}`, `{"Action":null}`,
	} {
		f.Add(s)
	}
	d := open(f)
	d.queue(f, `{"name":"q","visibility_timeout":1}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, c := range [][2]string{
			{"POST", "/v1/queue/none"}, {"PATCH", "/v1/queues/none"}, {"POST", "/v1/auth/refresh"}, {"POST", "/v1/queue/q"},
		} {
			w := d.Do(t, c[0], c[1], body)
			if w.Code >= 500 {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
			var e struct{ Detail *string }
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || (w.Code >= 400) != (e.Detail != nil) {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
		}
		var sent map[string]json.RawMessage // which, unlike a struct, takes names as they are spelled
		if json.Unmarshal([]byte(body), &sent) != nil || string(sent["Action"]) != `"SendMessage"` {
			d.act(t, "PurgeQueue", "")
			return
		}
		for _, m := range d.receive(t, "") {
			var want string
			must(t, json.Unmarshal(sent["MessageBody"], &want))
			if m.Body != want {
				t.Fatalf("sent %q, received %q", want, m.Body)
			}
		}
		d.act(t, "PurgeQueue", "")
	})
}
