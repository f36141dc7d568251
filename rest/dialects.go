package rest

import (
	"net/http"
	"strings"

	"millrace/rest/emqx"
	"millrace/rest/fastqueue"
	"millrace/rest/flowmq"
	"millrace/rest/internal/httpx"
	"millrace/rest/memfifo"
	"millrace/rest/pulsar"
)

// Dialect names one of the HTTP APIs.
type Dialect string

// The dialects.
const (
	FlowMQ    Dialect = "flowmq"
	EMQX      Dialect = "emqx"
	FastQueue Dialect = "fastqueue"
	Memfifo   Dialect = "memfifo"
	Pulsar    Dialect = "pulsar"
)

// prefixes says whose a path is, before any routing, so that also the answer to
// a wrong path has the right shape.
var prefixes = []struct {
	path    string
	dialect Dialect
}{
	{flowmq.Prefix, FlowMQ},
	{emqx.Prefix, EMQX},
	{emqx.StatusPath, EMQX},
	{emqx.DocumentPath, EMQX},
	{emqx.SpecPath, EMQX},
	{fastqueue.Prefix, FastQueue},
	{fastqueue.HealthPath, FastQueue},
	{pulsar.Prefix, Pulsar},
	{pulsar.AdminPrefix, Pulsar},
	{memfifo.Prefix, Memfifo},
}

// dialectOf returns the dialect of an escaped path, "" when it is nobody's.
func dialectOf(path string) Dialect {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(path, p.path); ok && (rest == "" || rest[0] == '/') {
			return p.dialect
		}
	}
	return ""
}

// open returns the handler of a dialect.
func (d Dialect) open(o *Options, s *httpx.Shared) http.Handler {
	switch d {
	case FlowMQ:
		return flowmq.New(o.Broker, s)
	case EMQX:
		return emqx.New(o.Broker, s, o.EMQX)
	case FastQueue:
		return fastqueue.New(o.Broker, s, o.FastQueue)
	case Pulsar:
		return pulsar.New(o.Broker, s, o.Pulsar)
	default: // Memfifo
		return memfifo.New(o.Broker, s, memfifo.Options{Open: o.MemfifoOpen})
	}
}
