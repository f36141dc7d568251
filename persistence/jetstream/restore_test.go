package jetstream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
)

// backup takes a stream as it is, and returns what puts it back in place of what there is.
func (x *clients) backup(stream string) (restore func()) {
	x.Helper()
	nc := dial(x.T, x.c)
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		x.Fatal(err)
	}
	ask := func(subject, body string) []byte {
		x.Helper()
		m, err := nc.Request("$JS.API.STREAM."+subject+"."+stream, []byte(body), time.Minute)
		if err != nil || strings.Contains(string(m.Data), `"error"`) {
			x.Fatalf("%s: %s %v", subject, m.Data, err)
		}
		return m.Data
	}
	answer := string(ask("SNAPSHOT", fmt.Sprintf(`{"deliver_subject":%q}`, inbox)))
	var chunks [][]byte
	for {
		m, err := sub.NextMsg(time.Minute)
		if err != nil {
			x.Fatal(err)
		}
		if len(m.Data) == 0 {
			break
		}
		chunks = append(chunks, slices.Clone(m.Data))
		if m.Reply != "" {
			if err := m.Respond(nil); err != nil {
				x.Fatal(err)
			}
		}
	}
	_, config, _ := strings.Cut(answer, `"config":`)
	return func() {
		x.Helper()
		_, _ = nc.Request("$JS.API.STREAM.DELETE."+stream, nil, time.Minute) // it may be gone
		var to struct {
			Deliver string `json:"deliver_subject"`
		}
		if err := json.Unmarshal(ask("RESTORE", `{"config":`+config), &to); err != nil {
			x.Fatal(err)
		}
		for _, c := range append(chunks, nil) {
			if _, err := nc.Request(to.Deliver, c, time.Minute); err != nil {
				x.Fatal(err)
			}
		}
	}
}

// TestAQueueThatIsRestoredTakesMessagesAgain, with books that are right: before anybody saw
// that it was gone, after that, and after it was made again.
func TestAQueueThatIsRestoredTakesMessagesAgain(t *testing.T) {
	for _, seen := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("seen ", seen), func(t *testing.T) {
			inBubble(t, func(x *clients) {
				x.sure()
				q := x.queue("q")
				x.fill(q, 4)
				restore := x.backup("mr_q_1")
				if seen > 1 {
					x.restore("mr_q_1", 0)
					time.Sleep(2 * time.Minute)
					x.refuses(q)
				}
				x.end()
				if seen == 1 {
					x.restore("mr_q_1", 0)
				}
				if seen > 0 {
					x.start()
					x.refuses(q)
					x.end()
				}
				restore()
				x.start()
				x.losses()
				x.fill(q, 1)
				if in, err := x.Info(x.Context(), q); err != nil || in.Difference() != 0 || in.Ready != 5 {
					x.Errorf("the books are out by %d: %+v, %v", in.Difference(), in, err)
				}
				x.ack(x.expect(q, "0", "1", "2", "3", "0")...)
				x.again()
				counts(x.T, x.Store, q, 0, 0)
			})
		})
	}
}

// TestAStreamThatAllShareIsRestored: the start that was refused succeeds.
func TestAStreamThatAllShareIsRestored(t *testing.T) {
	for _, stream := range []string{"mr_log", "KV_mr_defs"} {
		t.Run(stream, func(t *testing.T) {
			inBubble(t, func(x *clients) {
				x.sure()
				c := x.session("c")
				x.fill(c, 3)
				restore := x.backup(stream)
				x.end()
				x.restore(stream, 0)
				if _, err := jetstream.Open(x.Context(), x.o); !errors.Is(err, jetstream.ErrUnfit) {
					x.Fatalf("the start ends in %v", err)
				}
				restore()
				x.start()
				x.losses()
				x.fill(c, 1)
				x.expect(c, "0", "1", "2", "0")
			})
		})
	}
}

// TestWhatIsAddedToAnOlderStreamIsNoRestore: publishes that nobody acknowledged bring it as
// far as it was.
func TestWhatIsAddedToAnOlderStreamIsNoRestore(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		q := x.queue("q")
		x.fill(q, 5)
		x.restore("mr_q_1", 3)
		if err := x.publish("more", q); !errors.Is(err, broker.ErrUnknown) {
			x.Fatal(err)
		}
		time.Sleep(time.Second) // it is written down
		x.end()
		if _, err := jetStream(x.T, x.c).Publish(x.Context(), "mr.q.1.m", nil); err != nil { // as one that was under way
			x.Fatal(err)
		}
		x.start()
		x.refuses(q)
	})
}

// TestThatAStreamIsGoneIsSeenByThePublishThatNobodyTook, and not a minute later.
func TestThatAStreamIsGoneIsSeenByThePublishThatNobodyTook(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		q := x.queue("q")
		x.fill(q, 5)
		x.restore("mr_q_1", 0)
		if err := x.publish("more", q); err == nil {
			x.Error("a publish to nobody is acknowledged")
		}
		time.Sleep(time.Second)
		x.refuses(q)
	})
}

// TestTheBucketThatSaysHowFarStreamsGoIsMissed: the store ends without it, and a start is
// refused, unless it is accepted that nobody knows any more.
func TestTheBucketThatSaysHowFarStreamsGoIsMissed(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.end()
		failed := make(chan error, 1)
		x.o.Sync, x.o.Failed = jetstream.SyncAlways, func(err error) { failed <- err }
		x.start()
		q := x.queue("q")
		x.fill(q, 2)
		x.restore("KV_mr_node", 0)
		select {
		case err := <-failed:
			if !strings.Contains(err.Error(), "KV_mr_node") {
				x.Errorf("the store ends with %v", err)
			}
		case <-time.After(time.Minute):
			x.Error("the store goes on without its bucket")
		}
		x.end()
		if _, err := jetstream.Open(x.Context(), x.o); !errors.Is(err, jetstream.ErrUnfit) || !strings.Contains(err.Error(), "KV_mr_node") {
			x.Fatalf("the start ends in %v", err)
		}
		x.o.AcceptLoss = true
		x.start()
		x.losses(broker.Loss{Place: "KV_mr_node", Accepted: true})
		x.expect(q, "0", "1")
		x.fill(q, 1)
		x.end()
		x.o.AcceptLoss = false
		x.start()
		x.losses()
	})
}
