package broker

import (
	"context"
	"slices"
)

// Names of the properties that hold a Trace: those of the headers of W3C Trace
// Context, as its binding to MQTT 5 has them.
const (
	TraceParent = "traceparent"
	TraceState  = "tracestate"
)

// Trace is where a request stands in a distributed trace.
type Trace struct{ Parent, State string }

type traceKey struct{}

// WithTrace returns a context whose publishes carry t as user properties,
// unless a message has a traceparent of its own.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns the trace that a message carries; Parent is "" when it
// carries none.
func TraceOf(m *Message) (t Trace) {
	for _, p := range m.Properties {
		switch {
		case p.Name == TraceParent && t.Parent == "":
			t.Parent = p.Value
		case p.Name == TraceState && t.State == "":
			t.State = p.Value
		}
	}
	return t
}

// traceFrom returns the trace of a context; Parent is "" when it has none.
func traceFrom(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}

// mark gives the trace to a message that has none of its own.
func (t Trace) mark(m *Message) {
	if t.Parent == "" || TraceOf(m).Parent != "" {
		return
	}
	ps := append(slices.Clip(m.Properties), Property{Name: TraceParent, Value: t.Parent})
	if t.State != "" {
		ps = append(ps, Property{Name: TraceState, Value: t.State})
	}
	m.Properties = ps
}
