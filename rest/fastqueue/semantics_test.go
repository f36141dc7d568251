package fastqueue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
	"millrace/rest/fastqueue"
	"millrace/rest/flowmq"
)

// message is what a consumer is given.
type message struct {
	MessageID               string `json:"MessageId"`
	Body                    string
	BodyEncoding            string
	Attributes              map[string]string
	ReceiptHandle           string
	ApproximateReceiveCount int
}

// ok sends a request that must succeed with status, and returns its answer.
func ok[T any](tb testing.TB, d *door, status int, method, path, body string) (answer T) {
	tb.Helper()
	w := d.Do(tb, method, path, body)
	if w.Code != status {
		tb.Fatalf("%s %s %s: status %d, want %d: %s", method, path, body, w.Code, status, w.Body)
	}
	must(tb, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer
}

func (d *door) queue(tb testing.TB, body string) {
	tb.Helper()
	ok[any](tb, d, 201, "POST", "/v1/queues", body)
}

// act performs an action on the queue q; more are members of the body.
func (d *door) act(tb testing.TB, action, more string) *httptest.ResponseRecorder {
	tb.Helper()
	if more != "" {
		more = "," + more
	}
	return d.Do(tb, "POST", "/v1/queue/q", `{"Action":"`+action+`"`+more+`}`)
}

func (d *door) sendText(tb testing.TB, body string) string {
	tb.Helper()
	text, _ := json.Marshal(body)
	return ok[message](tb, d, 200, "POST", "/v1/queue/q", `{"Action":"SendMessage","MessageBody":`+string(text)+`}`).MessageID
}

func (d *door) receive(tb testing.TB, more string) []message {
	tb.Helper()
	w := d.act(tb, "ReceiveMessage", more)
	if w.Code != 200 {
		tb.Fatalf("receive: %d %s", w.Code, w.Body)
	}
	var got struct{ Messages []message }
	must(tb, json.Unmarshal(w.Body.Bytes(), &got))
	return got.Messages
}

func bodies(ms []message) string {
	var all []string
	for _, m := range ms {
		all = append(all, m.Body)
	}
	return strings.Join(all, " ")
}

func TestConsumersNeverShareAMessageInsideALease(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","visibility_timeout":600}`)
	const n, consumers = 400, 8
	for i := range n {
		d.sendText(t, strconv.Itoa(i))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wait sync.WaitGroup
	for range consumers {
		wait.Go(func() {
			for {
				got := d.receive(t, `"MaxNumberOfMessages":7`)
				if len(got) == 0 {
					return
				}
				mu.Lock()
				for _, m := range got {
					seen[m.Body]++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for body, times := range seen {
		if times != 1 {
			t.Errorf("message %s was given to %d consumers", body, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d messages of %d were received", len(seen), n)
	}
}

func TestARestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	d := openOn(t, local.Options{Dir: dir})
	password := `{"username":"ann","password":"correct horse"}`
	ok[any](t, d, 200, "POST", "/v1/auth/register", password)
	type pair struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	tokens := ok[pair](t, d, 200, "POST", "/v1/auth/login", password)
	d.queue(t, `{"name":"q","max_length":7,"visibility_timeout":600}`)
	d.queue(t, `{"name":"fed","topic_filter":"a/#"}`)
	d.sendText(t, "leased")
	d.sendText(t, "deleted")
	got := d.receive(t, `"MaxNumberOfMessages":2`)
	d.sendText(t, "ready")
	if w := d.act(t, "DeleteMessage", `"ReceiptHandle":"`+got[1].ReceiptHandle+`"`); w.Code != 200 || w.Header().Get("Millrace-Durability") != "disk" {
		t.Fatalf("delete: %d %v", w.Code, w.Header())
	}
	before := d.Do(t, "GET", "/v1/queues", "").Body.String()
	d.End()

	d = openOn(t, local.Options{Dir: dir})
	if after := d.Do(t, "GET", "/v1/queues", "").Body.String(); !strings.Contains(after, `"name":"fed"`) || !strings.Contains(after, `"max_length":7`) {
		t.Errorf("before %s, after %s", before, after)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/queues", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	if w := d.Send(r); w.Code != 200 {
		t.Errorf("the access token: %d", w.Code)
	}
	ok[any](t, d, 200, "POST", "/v1/auth/refresh", `{"refresh_token":"`+tokens.Refresh+`"}`)
	// Leases may end with the process; the handle is good until the message is handed out again.
	if w := d.act(t, "DeleteMessage", `"ReceiptHandle":"`+got[0].ReceiptHandle+`"`); w.Code != 200 {
		t.Errorf("a handle of before: %d %s", w.Code, w.Body)
	}
	if w := d.act(t, "DeleteMessage", `"ReceiptHandle":"`+got[1].ReceiptHandle+`"`); w.Code != 404 {
		t.Errorf("a message deleted before: %d %s", w.Code, w.Body)
	}
	if got := d.receive(t, `"MaxNumberOfMessages":10`); bodies(got) != "ready" {
		t.Errorf("received %v", got)
	}
}

func TestRedeliveryKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q"}`)
		for _, b := range []string{"1", "2", "3"} {
			d.sendText(t, b)
		}
		d.receive(t, "")
		time.Sleep(16 * time.Second)
		if got := d.receive(t, `"MaxNumberOfMessages":3`); bodies(got) != "1 2 3" || got[0].ApproximateReceiveCount != 2 {
			t.Errorf("received %v", got)
		}
	})
}

func TestAPatchHoldsForTheNextLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","visibility_timeout":60}`)
		d.sendText(t, "old lease")
		d.sendText(t, "new lease")
		d.receive(t, "")
		ok[any](t, d, 200, "PATCH", "/v1/queues/q", `{"visibility_timeout":5,"max_length":2}`)
		d.receive(t, "")
		if w := d.act(t, "SendMessage", `"MessageBody":"x"`); w.Code != 400 {
			t.Errorf("over the new length: %d %s", w.Code, w.Body)
		}
		time.Sleep(6 * time.Second)
		if got := d.receive(t, `"MaxNumberOfMessages":2`); bodies(got) != "new lease" {
			t.Errorf("received %v", got)
		}
	})
}

func TestAWaitIsAnsweredByASendADeletionAndTheDrain(t *testing.T) {
	for name, c := range map[string]struct {
		act    func(t *testing.T, d *door)
		status int
		text   string
	}{
		"send":   {func(t *testing.T, d *door) { d.sendText(t, "x") }, 200, `"Body":"x"`},
		"delete": {func(t *testing.T, d *door) { d.Do(t, "DELETE", "/v1/queues/q", "") }, 404, `Queue not found.`},
		"drain":  {func(_ *testing.T, d *door) { d.Drain() }, 200, `{"Messages":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t)
				d.queue(t, `{"name":"q"}`)
				start := time.Now()
				answered := make(chan *httptest.ResponseRecorder, 1)
				go func() { answered <- d.act(t, "ReceiveMessage", `"WaitTimeSeconds":20`) }()
				synctest.Wait()
				c.act(t, d)
				w := <-answered
				if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) || time.Since(start) > time.Second {
					t.Errorf("after %v: %d %s", time.Since(start), w.Code, w.Body)
				}
			})
		})
	}
}

func TestAClientThatLeftTookNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q"}`)
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "POST", "/v1/queue/q", strings.NewReader(`{"Action":"ReceiveMessage","WaitTimeSeconds":20}`))
		r.Header.Set("Authorization", "Bearer root."+secret)
		left := make(chan struct{})
		go func() { d.Send(r); close(left) }()
		synctest.Wait()
		leave()
		<-left
		d.sendText(t, "x")
		if got := d.receive(t, ""); len(got) != 1 || got[0].ApproximateReceiveCount != 1 {
			t.Errorf("received %v", got)
		}
	})
}

func TestHandlesOfOtherQueuesAreNotFound(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q"}`)
	d.queue(t, `{"name":"other"}`)
	d.sendText(t, "x")
	handle := `"ReceiptHandle":"` + d.receive(t, "")[0].ReceiptHandle + `"`
	for _, action := range []string{"DeleteMessage", "ChangeMessageVisibility"} {
		w := d.Do(t, "POST", "/v1/queue/other", `{"Action":"`+action+`","VisibilityTimeout":1,`+handle+`}`)
		if w.Code != 404 {
			t.Errorf("%s in another queue: %d %s", action, w.Code, w.Body)
		}
	}
	for i := range handle[18:60] {
		bad := []byte(handle)
		if bad[18+i] ^= 1; bad[18+i] == handle[18+i] {
			continue
		}
		text, _ := json.Marshal(string(bad[17 : len(bad)-1]))
		if w := d.act(t, "DeleteMessage", `"ReceiptHandle":`+string(text)); w.Code != 404 {
			t.Fatalf("a changed handle: %d %s", w.Code, w.Body)
		}
	}
	ok[any](t, d, 200, "POST", "/v1/queue/q", `{"Action":"DeleteMessage",`+handle+`}`)
	must(t, d.remake(t))
	if w := d.act(t, "DeleteMessage", handle); w.Code != 404 {
		t.Errorf("a handle of the queue before: %d %s", w.Code, w.Body)
	}
}

// remake deletes the queue q and makes it anew.
func (d *door) remake(t *testing.T) error {
	t.Helper()
	if w := d.Do(t, "DELETE", "/v1/queues/q", ""); w.Code != 204 || w.Body.Len() > 0 {
		return fmt.Errorf("delete: %d %s", w.Code, w.Body)
	}
	d.queue(t, `{"name":"q"}`)
	return nil
}

func TestMessagesOfOtherDoorsComeThrough(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a/#"}`)
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	for _, payload := range []string{"text", "\xff\x00"} {
		_, err := d.Broker.Publish(ctx, &broker.Message{Topic: "a/b", QoS: 1, Payload: []byte(payload), Properties: []broker.Property{{Name: "k", Value: "1"}, {Name: "k", Value: "2"}}})
		must(t, err)
	}
	got := d.receive(t, `"MaxNumberOfMessages":2`)
	if len(got) != 2 || got[0].Body != "text" || got[1].Body != "/wA=" || got[1].BodyEncoding != "base64" || got[0].Attributes["k"] != "2" {
		t.Errorf("received %+v", got)
	}
}

func TestASendReachesItsQueueAlone(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q"}`)
	d.queue(t, `{"name":"all","topic_filter":"#"}`)
	id := d.sendText(t, "x")
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	got, err := d.Broker.Receive(ctx, "q", broker.ReceiveOptions{Max: 2, Lease: broker.DefaultLease})
	must(t, err)
	if len(got) != 1 || got[0].Topic != "$queue/q" || got[0].ID.String() != id || got[0].Publisher != "root" {
		t.Errorf("received %+v", got)
	}
	if got, err := d.Broker.Receive(ctx, "all", broker.ReceiveOptions{Max: 2}); err != nil || len(got) > 0 {
		t.Errorf("the filter saw %v, %v", got, err)
	}
}

func TestTokensOpenNothingElse(t *testing.T) {
	d := open(t)
	password := `{"username":"root","password":"correct horse"}`
	ok[any](t, d, 200, "POST", "/v1/auth/register", password)
	token := ok[map[string]string](t, d, 200, "POST", "/v1/auth/login", password)["access_token"]
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/v1/queues", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	if flowmq.New(d.Broker, d.Shared).ServeHTTP(w, r); w.Code != 401 {
		t.Errorf("/api/v1 takes it: %d", w.Code)
	}
	if _, err := d.Auth.Login(t.Context(), "root", "correct horse", "c", "127.0.0.1:1", true); err == nil {
		t.Error("MQTT takes the account")
	}
	if _, err := d.Auth.LoginPassword(t.Context(), "root", "correct horse", "127.0.0.1:1"); err == nil {
		t.Error("a login elsewhere takes the account")
	}
}

func TestRegistrationIsOffUnlessSwitchedOn(t *testing.T) {
	d := open(t)
	d.Mux = fastqueue.New(d.Broker, d.Shared, fastqueue.Options{})
	w := d.Do(t, "POST", "/v1/auth/register", `{"username":"ann","password":"correct horse"}`)
	if w.Code != 403 || !strings.Contains(w.Body.String(), "fastqueue.registration") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	must(t, d.Auth.AddUser(t.Context(), auth.UserSpec{Username: "ann", Password: "correct horse", Door: fastqueue.Door}))
	ok[any](t, d, 200, "POST", "/v1/auth/login", `{"username":"ann","password":"correct horse"}`)
}

func TestTooManyWrongPasswordsHaveToWait(t *testing.T) {
	d := open(t)
	ok[any](t, d, 200, "POST", "/v1/auth/register", `{"username":"ann","password":"correct horse"}`)
	for range 10 {
		d.Do(t, "POST", "/v1/auth/login", `{"username":"ann","password":"wrong horse"}`)
	}
	if w := d.Do(t, "POST", "/v1/auth/login", `{"username":"ann","password":"correct horse"}`); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
