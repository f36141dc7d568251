package flowmq

import (
	"net/http"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

const day = 24 * time.Hour

// streamView is a stream with its settings and what it holds.
type streamView struct {
	Name           string          `json:"name"`
	TopicFilter    *string         `json:"topic_filter"`
	RetentionDays  int64           `json:"retention_days"`
	MaxSizeGB      int64           `json:"max_size_gb"`
	PartitionCount int             `json:"partition_count"`
	MessageCount   uint64          `json:"message_count"`
	SizeBytes      int64           `json:"size_bytes"`
	Partitions     []partitionView `json:"partitions"`
	CreatedAt      string          `json:"created_at"`
}

type partitionView struct {
	Partition  int    `json:"partition"`
	Earliest   uint64 `json:"earliest"`
	NextOffset uint64 `json:"next_offset"`
	SizeBytes  int64  `json:"size_bytes"`
}

func viewStream(s *broker.StreamInfo) streamView {
	v := streamView{
		Name: s.Name, TopicFilter: orNull(s.Filter, ""),
		RetentionDays: int64(s.Retention / day), MaxSizeGB: (s.MaxBytes + 1<<30 - 1) >> 30,
		PartitionCount: s.Partitions, SizeBytes: s.Bytes, Partitions: []partitionView{}, CreatedAt: timestamp(s.Created),
	}
	for i, p := range s.Partitioned {
		v.Partitions = append(v.Partitions, partitionView{i, p.First, p.Next, p.Bytes})
		v.MessageCount += p.Next - p.First
	}
	return v
}

// readStream reads the body of POST or PATCH over what c already says. A body
// of PATCH has no name.
func readStream(text []byte, c *broker.StreamConfig, named bool) error {
	return httpx.Decode(text, httpx.RefuseUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			var n int64
			switch string(name) {
			case "name":
				if !named {
					return httpx.Problem("cannot be changed")
				}
				c.Name, err = readText(d)
			case "topic_filter":
				c.Filter, err = readText(d)
			case "retention_days":
				n, err = readWhole(d, 1, 36_500)
				c.Retention = time.Duration(n) * day
			case "max_size_gb":
				n, err = readWhole(d, 1, 1<<30)
				c.MaxBytes = n << 30
			case "partition_count":
				n, err = readWhole(d, 1, 1<<31-1)
				c.Partitions = int(n)
			default:
				err = d.Unknown()
			}
			return err
		})
	})
}

func (a *api) createStream(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	c, err := DecodeStream(text)
	if err != nil {
		return err
	}
	s, err := a.broker.CreateStream(r.Context(), c)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	httpx.SetETag(w, s.StreamConfig)
	return answer(w, r, http.StatusCreated, viewStream(&s))
}

// DecodeStream reads the body of POST /streams, which is also an entry of a
// bootstrap file.
func DecodeStream(text []byte) (broker.StreamConfig, error) {
	c := broker.NewStreamConfig("", "")
	if err := readStream(text, &c, true); err != nil {
		return c, err
	}
	switch {
	case c.Name == "":
		return c, httpx.FieldError("name", "is missing")
	case c.Filter == "":
		return c, httpx.FieldError("topic_filter", "is missing")
	}
	return c, nil
}

func (a *api) listStreams(w http.ResponseWriter, r *httpx.Request) error {
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, err := a.broker.Streams(r.Context())
	if err != nil {
		return err
	}
	views := []streamView{}
	for _, s := range httpx.PageOf(all, page) {
		views = append(views, viewStream(&s))
	}
	return answer(w, r, http.StatusOK, struct {
		Streams []streamView `json:"streams"`
		Total   int          `json:"total"`
		Limit   int          `json:"limit"`
		Offset  int          `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) getStream(w http.ResponseWriter, r *httpx.Request) error {
	s, err := a.broker.Stream(r.Context(), r.Param("stream"))
	if err != nil {
		return err
	}
	httpx.SetETag(w, s.StreamConfig)
	return answer(w, r, http.StatusOK, viewStream(&s))
}

func (a *api) changeStream(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	var scratch broker.StreamConfig // a bad body is told before a missing stream
	if err := readStream(text, &scratch, false); err != nil {
		return err
	}
	s, err := a.broker.UpdateStream(r.Context(), r.Param("stream"), func(c *broker.StreamConfig) error {
		if err := r.Precondition(*c); err != nil {
			return err
		}
		return readStream(text, c, false)
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	httpx.SetETag(w, s.StreamConfig)
	return answer(w, r, http.StatusOK, viewStream(&s))
}

func (a *api) deleteStream(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("stream")
	if err := a.broker.DeleteStream(r.Context(), name); err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, deletedView{name, true})
}
