package pulsar_test

import (
	"encoding/json"
	"testing"
)

// FuzzBodies sends a body to the calls that read by hand: none may fail inside,
// and every error has a code of its status. What a produce without a schema took
// is what encoding/json reads in it.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"key":"k","value":"\u00fc\ud83d\ude00","partition":0,"properties":{"a":"b","c":1},"eventTime":"5","sequenceId":1,"replicationClusters":["a"],"disableReplication":true,"deliverAt":5}],"producerName":"p"}`,
		`{"schema_type":"AVRO","value_schema":{"type":"record","name":"r","fields":[{"name":"f","type":["null","long"]}]},"messages":[{"value":{"f":1}}]}`,
		`{"schemaType":"KEY_VALUE","keySchema":"{\"type\":\"INT8\"}","valueSchema":{"type":"JSON","schema":"e30="},"messages":[{"key":1,"payload":{"a":[1,2,{"b":null}]}}]}`,
		`{"schema_version":0,"messages":[{"value":null}]}`, `{"id":"x","name":"n","position":"earliest","ack_timeout_ms":5}`,
		`{"type":"individual","messageIds":["CAEQAhgD","1:2:3"]}`, `{"ackType":"CUMULATIVE","messagePositions":[{"ledgerId":1,"entryId":2,"partition":-1}]}`,
		`{"type":"seek","timestamp":5}`, `{"messageIds":["1:2:3"],"delayMs":5}`, `3`,
	} {
		f.Add(s)
	}
	d := open(f)
	d.produce(f, topic, "0")
	consumer := d.join(f, "")
	f.Fuzz(func(t *testing.T, body string) {
		for _, c := range [][2]string{
			{"POST", sub + "/cursor"},
			{"POST", consumer + "/nack"},
			{"POST", sub},
			{"PUT", "/admin/v2/persistent/a/b/c/partitions"},
			{"POST", topic + "/partitions/0"},
			{"POST", topic},
		} {
			w := d.Do(t, c[0], c[1], body)
			if w.Code >= 500 {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
			var e struct {
				Code int `json:"error_code"`
			}
			if w.Body.Len() > 0 {
				must(t, json.Unmarshal(w.Body.Bytes(), &e))
			}
			if (w.Code >= 400) != (e.Code != 0) || e.Code != 0 && e.Code/100 != w.Code {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
			if c[1] == topic && w.Code == 200 {
				checkTaken(t, d, body, w.Body.Bytes())
			}
		}
	})
}

// checkTaken compares the first message of a produce with what is read.
func checkTaken(t *testing.T, d *door, body string, answer []byte) {
	t.Helper()
	var sent struct { // with json.RawMessage: a map takes names as they are spelled
		Messages []map[string]json.RawMessage
	}
	var all map[string]json.RawMessage
	var got produced
	must(t, json.Unmarshal([]byte(body), &all))
	must(t, json.Unmarshal(all["messages"], &sent.Messages))
	must(t, json.Unmarshal(answer, &got))
	var want string
	first := got.MessageIDs[0]
	if got.SchemaVersion != nil || all["schema_type"] != nil || all["schemaType"] != nil || first.MessageID == nil || first.Duplicate || json.Unmarshal(sent.Messages[0]["value"], &want) != nil {
		return
	}
	latest := ok[read](t, d, 200, "GET", topic+"/partitions/0/messages?timeout=0&max_messages=1000&message_id="+*first.MessageID, "")
	back := ok[read](t, d, 200, "GET", topic+"/partitions/0/messages?timeout=0&max_messages=1&offset="+jsonNumber(latest.Next-uint64(len(latest.Messages))-1), "")
	var is string
	if must(t, json.Unmarshal(back.Messages[0].Value, &is)); is != want {
		t.Fatalf("sent %q, read %q", want, is)
	}
}

func jsonNumber(n uint64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
