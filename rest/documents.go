package rest

import (
	"slices"

	"millrace/rest/apidocs"
	"millrace/rest/emqx"
	"millrace/rest/fastqueue"
	"millrace/rest/flowmq"
	"millrace/rest/memfifo"
	"millrace/rest/pulsar"
)

// documents are those of all dialects, in the order of lists. EMQX's is answered
// by the dialect itself, as JSON.
var documents = []struct {
	dialect Dialect
	apidocs.Document
}{
	{FlowMQ, apidocs.Document{
		Name: "flowmq", Title: "FlowMQ", About: "Publish, queues, streams, keys, users, rules: Millrace's main API.",
		Base: flowmq.Prefix, Path: apidocs.Folder + "/flowmq.yaml", Text: flowmq.OpenAPI,
	}},
	{EMQX, apidocs.Document{
		Name: "emqx", Title: "EMQX", About: "EMQX's management API: MQTT clients, sessions, bans, figures.",
		Base: emqx.Prefix, Path: emqx.DocumentPath,
	}},
	{FastQueue, apidocs.Document{
		Name: "fastqueue", Title: "FastQueue", About: "FastQueue's queues, with accounts of their own.",
		Base: fastqueue.Prefix, Path: apidocs.Folder + "/fastqueue.yaml", Text: fastqueue.OpenAPI,
	}},
	{Pulsar, apidocs.Document{
		Name: "pulsar", Title: "Pulsar", About: "Pulsar's REST API of PIP-64: produce, read, consume.",
		Base: pulsar.Prefix, Path: apidocs.Folder + "/pulsar.yaml", Text: pulsar.OpenAPI,
	}},
	{Memfifo, apidocs.Document{
		Name: "memfifo", Title: "memfifo", About: "memfifo's simple queues.",
		Base: memfifo.Prefix, Path: apidocs.Folder + "/memfifo.yaml", Text: memfifo.OpenAPI,
	}},
}

// documentsAt are those of a listener: a dialect's own has its alone. The others
// also show that of memfifo, which is never served beside another dialect.
func documentsAt(dialects []Dialect) (all []apidocs.Document) {
	for _, d := range documents {
		switch {
		case slices.Contains(dialects, d.dialect):
		case d.dialect == Memfifo && len(dialects) > 1:
			d.Elsewhere = "a listener of its own (memfifo.listen)"
		default:
			continue
		}
		all = append(all, d.Document)
	}
	return all
}
