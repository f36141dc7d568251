package metrics

import (
	"time"

	"millrace/broker"
)

var (
	queuesThere = gauge("queues", "Queues that are defined.")

	queueReady   = gauge("queue_ready", "Messages that a consumer could have now.", "queue")
	queueLeased  = gauge("queue_in_flight", "Messages in the hands of consumers.", "queue")
	queueDelayed = gauge("queue_delayed", "Messages that wait for their time.", "queue")
	queueDead    = gauge("queue_dead", "Messages that failed and are kept for a redrive.", "queue")
	queueBytes   = gauge("queue_bytes", "Payload and headers of the messages there.", "queue")
	queueOldest  = gauge("queue_oldest_seconds", "Age of the oldest message there.", "queue")
	queueIn      = counter("queue_entered", "Messages that ever entered, also before the last start.", "queue")
	queueAcked   = counter("queue_acked", "Messages that a consumer acknowledged.", "queue")
	queueRemoved = counter("queue_removed", "Messages that left without an ack, by reason.", "queue", "reason")
	queueHanded  = counter("queue_deliveries", "Deliveries to consumers since the start, repeated ones too.", "queue")
	queueNacked  = counter("queue_nacked", "Deliveries that a consumer gave back, since the start.", "queue")
	queueLapsed  = counter("queue_expired_leases", "Leases that ended without an answer, since the start.", "queue")
	booksOff     = gauge("queue_books_difference", "What entered, less what is there and what left; anything but 0 is a fault of ours.", "queue")
)

// queues shows each queue, and those beyond MaxNames as one.
func (s Source) queues(to *scrape) {
	infos, err := s.Broker.Queues(s.Context)
	if err != nil {
		return // the store is closed or failed: ready says so
	}
	to.set(queuesThere, float64(len(infos)))
	if len(infos) > MaxNames {
		other := broker.QueueInfo{QueueConfig: broker.QueueConfig{Name: "other"}}
		for i := range infos[MaxNames:] {
			sum(&other.Info, &infos[MaxNames+i].Info)
		}
		infos = append(infos[:MaxNames], other)
	}
	now := s.Broker.Now()
	for i := range infos {
		to.queue(&infos[i], now)
	}
}

func (s *scrape) queue(q *broker.QueueInfo, now time.Time) {
	s.set(queueReady, float64(q.Ready), q.Name)
	s.set(queueLeased, float64(q.Leased), q.Name)
	s.set(queueDelayed, float64(q.Delayed), q.Name)
	s.set(queueDead, float64(q.Dead+q.Held), q.Name)
	s.set(queueBytes, float64(q.Bytes), q.Name)
	age := 0.0
	if !q.Oldest.IsZero() {
		age = max(0, now.Sub(q.Oldest).Seconds())
	}
	s.set(queueOldest, age, q.Name)
	s.set(queueIn, float64(q.In), q.Name)
	s.set(queueAcked, float64(q.Out[broker.ReasonAcked]), q.Name)
	for why := broker.ReasonAcked + 1; why < broker.Reasons; why++ {
		s.set(queueRemoved, float64(q.Out[why]), q.Name, why.String())
	}
	s.set(queueHanded, float64(q.Deliveries), q.Name)
	s.set(queueNacked, float64(q.Returns), q.Name)
	s.set(queueLapsed, float64(q.Lapses), q.Name)
	s.set(booksOff, float64(q.Difference()), q.Name)
}

// sum adds b to a. The older of the two oldest messages counts.
func sum(a, b *broker.Info) {
	a.Ready, a.Leased, a.Delayed = a.Ready+b.Ready, a.Leased+b.Leased, a.Delayed+b.Delayed
	a.Dead, a.Held, a.Bytes, a.In = a.Dead+b.Dead, a.Held+b.Held, a.Bytes+b.Bytes, a.In+b.In
	if a.Oldest.IsZero() || !b.Oldest.IsZero() && b.Oldest.Before(a.Oldest) {
		a.Oldest = b.Oldest
	}
	for i := range a.Out {
		a.Out[i] += b.Out[i]
	}
	a.Deliveries, a.Returns, a.Lapses = a.Deliveries+b.Deliveries, a.Returns+b.Returns, a.Lapses+b.Lapses
}
