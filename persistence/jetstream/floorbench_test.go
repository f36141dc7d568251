//go:build unix

package jetstream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/persistence/jetstream/jetstreamtest"
)

// BenchmarkFloor publishes 256 bytes with an id to a stream through nats.go alone, so
// many at once: what BenchmarkPublish cannot be cheaper than.
func BenchmarkFloor(b *testing.B) {
	for _, x := range []struct{ servers, depth int }{{3, 64}, {3, 1024}} {
		b.Run(fmt.Sprintf("%d servers, %d", x.servers, x.depth), func(b *testing.B) {
			c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: x.servers})
			nc, err := nats.Connect(c.URL())
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			js, err := natsjs.New(nc, natsjs.WithPublishAsyncMaxPending(x.depth))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := js.CreateStream(b.Context(), natsjs.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: x.servers, Retention: natsjs.WorkQueuePolicy, Duplicates: 5 * time.Minute}); err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 256)
			n := 0
			b.ResetTimer()
			before := spent(b)
			for b.Loop() {
				n++
				if _, err := js.PublishMsgAsync(&nats.Msg{Subject: "s", Data: payload, Header: nats.Header{"Nats-Msg-Id": []string{fmt.Sprint(n)}}}, natsjs.WithStallWait(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			b.ReportMetric(float64(spent(b)-before)/float64(time.Microsecond)/float64(n), "cpu-µs/msg")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
