package broker_test

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"millrace/broker"
)

// full has every field set.
func full() *broker.Message {
	return &broker.Message{
		ID: broker.ID{1, 2, 3}, Topic: "a/b", Payload: []byte("payload"), ContentType: "text/plain",
		Properties:    []broker.Property{{"k", "v"}, {"k", ""}, {"", "w"}},
		ResponseTopic: "r", Correlation: []byte{0, 1}, UTF8: true, QoS: 2, Retain: true,
		Published: 1, Expires: 2, NotBefore: 3, Publisher: "p", Key: "key", EventTime: -4,
		Producer: "prod", Sequence: 5, DedupKey: "d", BodyHash: 1 << 63, Origins: []string{"q1", "q2"},
	}
}

func TestAMessageComesBackAsItWasEncoded(t *testing.T) {
	for _, want := range []*broker.Message{full(), {Topic: "t", Payload: []byte{}}, {Payload: make([]byte, 1<<20)}} {
		b := broker.AppendMessage(nil, want)
		if len(b) != broker.SizeBound(want) {
			t.Errorf("encoding has %d bytes, SizeBound says %d", len(b), broker.SizeBound(want))
		}
		var got broker.Message
		if err := broker.DecodeMessage(b, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("got %+v, want %+v", &got, want)
		}
	}
}

func TestAnyMessageComesBackAndFitsItsBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 40, 200)
		want := &broker.Message{
			Topic: text.Draw(rt, "topic"), Payload: append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(rt, "payload")...),
			ContentType: text.Draw(rt, "type"), ResponseTopic: text.Draw(rt, "response"), Publisher: text.Draw(rt, "publisher"),
			Key: text.Draw(rt, "key"), Producer: text.Draw(rt, "producer"),
			UTF8: rapid.Bool().Draw(rt, "utf8"), Retain: rapid.Bool().Draw(rt, "retain"), QoS: rapid.ByteMax(2).Draw(rt, "qos"),
			Published: rapid.Int64().Draw(rt, "published"), Expires: rapid.Int64().Draw(rt, "expires"),
			NotBefore: rapid.Int64().Draw(rt, "not before"), EventTime: rapid.Int64().Draw(rt, "event"),
			Sequence: rapid.Uint64().Draw(rt, "sequence"),
		}
		if want.DedupKey = text.Draw(rt, "dedup"); want.DedupKey != "" {
			want.BodyHash = rapid.Uint64().Draw(rt, "hash")
		}
		for range rapid.IntRange(0, 3).Draw(rt, "properties") {
			want.Properties = append(want.Properties, broker.Property{text.Draw(rt, "name"), text.Draw(rt, "value")})
			want.Origins = append(want.Origins, text.Draw(rt, "origin"))
		}
		b := broker.AppendMessage(nil, want)
		if len(b) > broker.SizeBound(want) {
			rt.Fatalf("encoding has %d bytes, bound %d", len(b), broker.SizeBound(want))
		}
		var got broker.Message
		if err := broker.DecodeMessage(b, &got); err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(&got, want) {
			rt.Fatalf("got %+v, want %+v", &got, want)
		}
	})
}

func TestDecodingCopiesNeitherPayloadNorStrings(t *testing.T) {
	m := full()
	m.Properties, m.Origins = nil, nil // the lists themselves are allocated
	b := broker.AppendMessage(nil, m)
	var got broker.Message
	if n := testing.AllocsPerRun(100, func() { _ = broker.DecodeMessage(b, &got) }); n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
	into := make([]byte, 0, broker.SizeBound(m))
	if n := testing.AllocsPerRun(100, func() { into = broker.AppendMessage(into[:0], m) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
}

func TestATruncatedOrForeignEncodingIsAnError(t *testing.T) {
	b := broker.AppendMessage(nil, full())
	var m broker.Message
	for n := range b {
		if broker.DecodeMessage(b[:n:n], &m) == nil {
			t.Errorf("%d of %d bytes decode", n, len(b))
		}
	}
	if broker.DecodeMessage(append(bytes.Clone(b), 0), &m) == nil {
		t.Error("a byte too many decodes")
	}
	b[0]++
	if broker.DecodeMessage(b, &m) == nil {
		t.Error("a newer version decodes")
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(broker.AppendMessage(nil, full()))
	f.Add(broker.AppendMessage(nil, &broker.Message{Topic: "t"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again broker.Message
		if broker.DecodeMessage(b, &m) != nil {
			return
		}
		if err := broker.DecodeMessage(broker.AppendMessage(nil, &m), &again); err != nil {
			t.Fatalf("what was decoded does not decode again: %v", err)
		}
		if again.Topic != m.Topic || !bytes.Equal(again.Payload, m.Payload) || len(again.Properties) != len(m.Properties) {
			t.Fatalf("got %+v, want %+v", again, m)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	m := &broker.Message{Topic: "devices/0001/temperature", Payload: make([]byte, 256), Published: 1 << 40, Publisher: "device-0001", QoS: 1}
	into := make([]byte, 0, broker.SizeBound(m))
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			into = broker.AppendMessage(into[:0], m)
		}
	})
	into = broker.AppendMessage(into[:0], m)
	b.Run("decode", func(b *testing.B) {
		var got broker.Message
		for b.Loop() {
			_ = broker.DecodeMessage(into, &got)
		}
	})
}
