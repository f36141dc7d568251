package main_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"
)

// TestASubscriberHasAllInSpiteOfShortCuts: its node loses its way to the servers again
// and again, and with it what the leader has sent for a client that stays connected.
func TestASubscriberHasAllInSpiteOfShortCuts(t *testing.T) {
	const rounds, each = 6, 100
	f := startNodes(t, "a", "b")
	sub, pub, all := newDeviceSub("sub", 1), newDevicePub(1), newDevicePub(1)
	sub.begin(t, f.node(1))
	all.next = rounds * each
	got := make(chan error, 1)
	go func() { got <- sub.run(t.Context(), f.node(1), nil, []*devicePub{all}) }()
	for round := range rounds {
		sent := make(chan error, 1)
		go func() { sent <- pub.run(t.Context(), f.node(0), pub.next+each) }()
		<-time.After(time.Duration(round) * 2 * time.Millisecond)
		f.ways["b"].Cut()
		<-time.After(20 * time.Millisecond)
		f.ways["b"].Mend()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	sub.check(t, all)
}

// TestDevicesHaveAllInSpiteOfADeadLeader: they are connected to other nodes than the one
// that is killed, and with it what it has sent for them. A subscriber of QoS 1 stays
// connected; who waits for an answer that nobody knows is sent away and comes again.
func TestDevicesHaveAllInSpiteOfADeadLeader(t *testing.T) {
	const each = 2000
	f := startNodes(t, "a", "b", "c")
	var subs []*deviceSub
	var pubs, all []*devicePub
	for qos := byte(1); qos <= 2; qos++ {
		subs, pubs, all = append(subs, newDeviceSub(fmt.Sprint("sub", qos), qos)), append(pubs, newDevicePub(qos)), append(all, newDevicePub(qos))
		subs[qos-1].begin(t, f.node(2))
		all[qos-1].next = each
	}
	var devices sync.WaitGroup
	for i := range subs {
		devices.Go(func() {
			err := pubs[i].run(t.Context(), f.node(1), each)
			for ; errors.Is(err, io.EOF); err = pubs[i].run(t.Context(), f.at("b"), each) {
			}
			if err != nil {
				t.Error(err)
			}
		})
		devices.Go(func() {
			err := subs[i].run(t.Context(), f.node(2), nil, all)
			for ; i == 1 && errors.Is(err, io.EOF); err = subs[i].run(t.Context(), f.at("c"), nil, all) {
			}
			if err != nil {
				t.Error(err)
			}
			for _, p := range all {
				subs[i].check(t, p)
			}
		})
	}
	<-time.After(200 * time.Millisecond)
	f.down("a").kill()
	devices.Wait()
}
