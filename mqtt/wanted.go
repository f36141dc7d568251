package mqtt

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// sourceForms are the ways to name a queue or a stream. Some libraries take
// "$queue/" away from what they subscribe to, so that there is a second one.
var sourceForms = []string{"$queue/", "$q/", streamForm}

const streamForm = "$stream/"

// startProperty of a SUBSCRIBE says where in a stream a new cursor begins:
// earliest, latest, an offset, or a time as RFC 3339.
const startProperty = "stream-offset"

// wanted is what a filter that names a queue or a stream says:
//
//	[$share/GROUP/]$queue/NAME[/FILTER]
//	[$share/GROUP/]$stream/NAME[/@START][/FILTER]
type wanted struct {
	filter string // as the client wrote it
	topic  string // of a delivery: the filter as far as what was published to follows
	name   string // of the queue or stream
	stream bool
	group  string // of a shared cursor
	start  string // where a new cursor begins
	deep   bool   // deliveries carry the topic they were published to,
	rest   string // which matches this filter
}

// wantedFrom splits a filter; ok tells whether it begins like one of a queue or
// stream.
func wantedFrom(filter string) (o wanted, ok bool) {
	o.filter = filter
	tail := filter
	if isShared(tail) {
		tail = sharedFilter(tail)
		o.group = strings.TrimSuffix(filter[len("$share/"):len(filter)-len(tail)], "/")
	}
	for _, form := range sourceForms {
		name, found := strings.CutPrefix(tail, form)
		if !found {
			continue
		}
		o.stream = form == streamForm
		o.name, o.rest, o.deep = strings.Cut(name, "/")
		if o.stream && strings.HasPrefix(o.rest, "@") {
			o.start, o.rest, o.deep = strings.Cut(o.rest[1:], "/")
		}
		o.topic = tail
		if o.deep {
			o.topic = strings.TrimSuffix(tail, "/"+o.rest)
		}
		return o, true
	}
	return o, false
}

// valid reports whether the parts are what they should be.
func (o *wanted) valid(b *broker.Broker) bool {
	if o.name == "" || strings.ContainsAny(o.name, "+#") || o.deep && b.CheckFilter(o.rest) != nil {
		return false
	}
	if strings.HasPrefix(o.filter, "$share/") && (o.group == "" || strings.ContainsAny(o.group, "+#")) {
		return false
	}
	if !o.stream {
		return true
	}
	name, err := url.PathUnescape(o.name)
	o.name = name
	_, bad := o.place(nil)
	return err == nil && !bad
}

// selects reports whether a part of the messages is wanted.
func (o *wanted) selects() bool { return o.deep && o.rest != "#" }

// resource is what the right to consume is asked for.
func (o *wanted) resource() auth.Resource {
	if o.stream {
		return auth.StreamResource(o.name)
	}
	return auth.QueueResource(o.name)
}

// kind is the word for people.
func (o *wanted) kind() string {
	if o.stream {
		return "stream"
	}
	return "queue"
}

// cursor is the name of the subscription that keeps where the client, or its
// group, stands. Those that select different parts stand in different places.
func (o *wanted) cursor(client string) string {
	name := "mqtt/client/" + client
	if o.group != "" {
		name = "mqtt/share/" + o.group
	}
	if o.selects() {
		name += "/" + o.rest
	}
	return name
}

// open opens the source. A cursor that is not there yet is made.
func (o *wanted) open(ctx context.Context, b *broker.Broker, client string) (broker.Source, error) {
	if !o.stream {
		return b.FromQueue(ctx, o.name)
	}
	cursor := o.cursor(client)
	s, err := b.FromSubscription(ctx, o.name, cursor)
	if e, ok := errors.AsType[*broker.Error](err); !ok || e.Subject != broker.SubscriptionSubject {
		return s, err
	}
	info, err := b.StreamFor(ctx, auth.Consume, o.name)
	if err != nil {
		return s, err
	}
	at, _ := o.place(info.Partitioned)
	_, err = b.CreateSubscription(ctx, broker.NewSubscriptionConfig(o.name, cursor), at)
	if err != nil && broker.KindOf(err) != broker.Conflict { // another one of the group was faster
		return s, err
	}
	return b.FromSubscription(ctx, o.name, cursor)
}

// place reads where a cursor begins. An offset means the same one in every
// partition, or the nearest that is there.
func (o *wanted) place(parts []broker.PartitionInfo) (p broker.Place, bad bool) {
	switch o.start {
	case "", "last", "latest":
		return broker.Place{Latest: true}, false
	case "first", "earliest":
		return p, false
	}
	if n, err := strconv.ParseUint(o.start, 10, 63); err == nil {
		for i, at := range parts {
			p.Offsets = append(p.Offsets, broker.Offset{Partition: uint32(i), Offset: min(max(n, at.First), at.Next)})
		}
		return p, false
	}
	t, err := time.Parse(time.RFC3339Nano, o.start)
	p.Time = t
	return p, err != nil
}
