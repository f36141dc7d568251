package local

import (
	"encoding/json"
	"fmt"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// storedDef is a definition as it is on disk: JSON, because definitions are few
// and gain fields with time. Names are never changed; durations are nanoseconds.
type storedDef struct {
	Name           string        `json:"name"`
	Kind           uint8         `json:"kind"`
	Meta           []byte        `json:"meta,omitempty"`
	Volatile       bool          `json:"volatile,omitempty"`
	MaxMessages    int64         `json:"max_messages,omitempty"`
	MaxBytes       int64         `json:"max_bytes,omitempty"`
	MaxPayload     int64         `json:"max_payload,omitempty"`
	DropOldest     bool          `json:"drop_oldest,omitempty"`
	DropNewest     bool          `json:"drop_newest,omitempty"`
	OverflowLapses bool          `json:"overflow_lapses,omitempty"`
	ExpiryLapses   bool          `json:"expiry_lapses,omitempty"`
	TTL            time.Duration `json:"ttl,omitempty"`
	Delay          time.Duration `json:"delay,omitempty"`
	LapseAt        uint32        `json:"lapse_at,omitempty"`
	MaxInFlight    int           `json:"max_in_flight,omitempty"`
	DeadRetention  time.Duration `json:"dead_retention,omitempty"`
	Paused         bool          `json:"paused,omitempty"`
	KeyedFIFO      bool          `json:"keyed_fifo,omitempty"`
	Partitions     uint32        `json:"partitions,omitempty"`
	Retention      time.Duration `json:"retention,omitempty"`

	Source broker.Target     `json:"source,omitempty"`
	Start  map[uint32]uint64 `json:"start,omitempty"` // by partition
}

// encodeDef appends the body of a define record.
func encodeDef(b []byte, id broker.Target, d *broker.Def) []byte {
	start := map[uint32]uint64{}
	for _, o := range d.Start {
		start[o.Partition] = o.Offset
	}
	j, err := json.Marshal(storedDef{
		Name: d.Name, Kind: uint8(d.Kind), Meta: d.Meta, Volatile: d.Volatile,
		MaxMessages: d.MaxMessages, MaxBytes: d.MaxBytes, MaxPayload: d.MaxPayload, DropOldest: d.DropOldest, DropNewest: d.DropNewest,
		OverflowLapses: d.OverflowLapses, ExpiryLapses: d.ExpiryLapses,
		TTL: d.TTL, Delay: d.Delay, LapseAt: d.LapseAt, MaxInFlight: d.MaxInFlight,
		DeadRetention: d.DeadRetention, Paused: d.Paused, KeyedFIFO: d.KeyedFIFO,
		Partitions: d.Partitions, Retention: d.Retention, Source: d.Source, Start: start,
	})
	if err != nil {
		panic("local: a definition always has an encoding: " + err.Error())
	}
	return append(fields.AppendUints(b, uint64(id)), j...)
}

// maxPartitions of a stream: a sequence of a subscription holds no more.
const maxPartitions = 1 << 16

// decodeDef reads the body of a define record.
func decodeDef(b []byte) (broker.Target, broker.Def, error) {
	f := fields.Reader{Rest: b}
	id := broker.Target(f.Uint())
	var d storedDef
	if err := json.Unmarshal(f.Rest, &d); err != nil {
		return 0, broker.Def{}, fmt.Errorf("definition of target %d: %w", id, err)
	}
	if !knownKind(broker.TargetKind(d.Kind)) || id == 0 || d.Partitions > maxPartitions {
		return 0, broker.Def{}, errRecord
	}
	var start []broker.Offset
	for p, o := range d.Start {
		start = append(start, broker.Offset{Partition: p, Offset: o})
	}
	return id, broker.Def{
		Name: d.Name, Kind: broker.TargetKind(d.Kind), Meta: d.Meta, Volatile: d.Volatile,
		MaxMessages: d.MaxMessages, MaxBytes: d.MaxBytes, MaxPayload: d.MaxPayload, DropOldest: d.DropOldest, DropNewest: d.DropNewest,
		OverflowLapses: d.OverflowLapses, ExpiryLapses: d.ExpiryLapses,
		TTL: d.TTL, Delay: d.Delay, LapseAt: d.LapseAt, MaxInFlight: d.MaxInFlight,
		DeadRetention: d.DeadRetention, Paused: d.Paused, KeyedFIFO: d.KeyedFIFO,
		Partitions: d.Partitions, Retention: d.Retention, Source: d.Source, Start: start,
	}, nil
}
