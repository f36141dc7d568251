package mqtt

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace/broker"
)

// failing is a listener that has no file descriptor left at first.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptRecovers(t *testing.T) { // B24
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: l}
	f.left.Store(4)
	s := newServer(Options{Broker: &broker.Broker{}, Limits: Limits{MaxWaiting: 10}, StallTimeout: 1, ConnectTimeout: DefaultConnectTimeout})
	s.sockets = []*socket{{o: &Listener{}, at: f.Addr(), l: f}}
	s.accepting.Go(func() { s.accept(f, &Listener{}) })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{0xC0, 0}); err != nil { // no CONNECT: closed by the server
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	_ = c.Close()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestEveryKindHasAnAnswer(t *testing.T) {
	want := map[broker.Kind]answer{
		broker.Internal: {code: 0x80}, broker.Invalid: {code: 0x83}, broker.Unauthenticated: {code: 0x87},
		broker.Forbidden: {code: 0x87}, broker.NotFound: {code: 0x83}, broker.Conflict: {code: 0x83},
		broker.TooLarge: {code: 0x95, end: true}, broker.Full: {code: 0x97}, broker.Unavailable: {code: 0x83},
		broker.Unknown: {code: 0x80, end: true}, broker.Damaged: {code: 0x80},
	}
	for _, k := range broker.Kinds() {
		w, ok := want[k]
		if got := answerOf(&broker.Error{Kind: k}); !ok || got != w {
			t.Errorf("kind %d is answered with %+v, want %+v (%v)", k, got, w, ok)
		}
	}
	if got := answerOf(&broker.Error{Kind: broker.Invalid, Subject: broker.TopicSubject}); got.code != badTopic {
		t.Errorf("a bad topic is answered with %02x", got.code)
	}
	if got := answerOf(errors.New("unclassified")); got.code != unspecified {
		t.Errorf("an unclassified error is answered with %02x", got.code)
	}
}

func TestVarints(t *testing.T) {
	for _, v := range []uint32{0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, maxRemaining} {
		b := appendVarint(nil, v)
		if got, n, st := varint(b); got != v || n != len(b) || st != varintOK || n != varintLen(v) {
			t.Errorf("%d became %x and then %d", v, b, got)
		}
		if _, _, st := varint(b[:len(b)-1]); st != varintShort {
			t.Errorf("%x cut short is state %d", b, st)
		}
	}
	if _, _, st := varint([]byte{0x80, 0x80, 0x80, 0x80, 1}); st != varintLong {
		t.Errorf("five bytes are state %d", st)
	}
}

func TestPaceLetsASecondsWorthComeAtOnce(t *testing.T) { // D22
	p, now := newPace(4), time.Unix(1000, 0)
	var waits []time.Duration
	for range 6 {
		waits = append(waits, p.take(now))
	}
	const tick = time.Second / 4
	if want := []time.Duration{0, 0, 0, 0, tick, 2 * tick}; !slices.Equal(waits, want) {
		t.Errorf("waits are %v, want %v", waits, want)
	}
	if p.try(now) || p.try(now.Add(2*tick)) || !p.try(now.Add(3*tick)) || p.try(now.Add(3*tick)) {
		t.Error("who cannot wait gets in early, or not at all")
	}
	if free := newPace(0); free.take(now) != 0 || !free.try(now) {
		t.Error("no limit makes wait")
	}
}
