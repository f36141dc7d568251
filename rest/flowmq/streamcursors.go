package flowmq

import (
	"math"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// cursorView is a named place in a stream.
type cursorView struct {
	Name      string       `json:"name"`
	Offsets   []offsetView `json:"offsets"`
	UpdatedAt string       `json:"updated_at"`
}

type offsetView struct {
	Partition uint32 `json:"partition"`
	Offset    uint64 `json:"offset"`
}

func viewCursor(c *broker.Cursor) cursorView {
	v := cursorView{Name: c.Name, Offsets: []offsetView{}, UpdatedAt: timestamp(c.Updated)}
	for _, o := range c.Offsets {
		v.Offsets = append(v.Offsets, offsetView(o))
	}
	return v
}

func (a *api) commitCursor(w http.ResponseWriter, r *httpx.Request) error {
	var offsets []broker.Offset
	force := false
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "offsets":
				return d.Array(func(int) error {
					o, err := readOffset(d)
					offsets = append(offsets, o)
					return err
				})
			case "force":
				force, err = d.Bool()
				return err
			}
			return d.Unknown()
		})
	})
	if err != nil {
		return err
	}
	c, err := a.broker.CommitCursor(r.Context(), r.Param("stream"), r.Param("cursor"), offsets, force)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, a.broker.State().Durability)
	return answer(w, r, http.StatusOK, viewCursor(&c))
}

// readOffset reads {"partition", "offset"}, both of which must be there.
func readOffset(d *httpx.Decoder) (o broker.Offset, err error) {
	var partition, offset bool
	err = d.Object(func(name []byte) error {
		switch string(name) {
		case "partition":
			n, err := readWhole(d, 0, math.MaxUint32)
			o.Partition, partition = uint32(n), true
			return err
		case "offset":
			n, err := readWhole(d, 0, math.MaxInt64)
			o.Offset, offset = uint64(n), true
			return err
		}
		return d.Unknown()
	})
	if err == nil && (!partition || !offset) {
		err = httpx.Problem("must have partition and offset")
	}
	return o, err
}

func (a *api) getCursor(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.broker.Cursor(r.Context(), r.Param("stream"), r.Param("cursor"))
	if err != nil {
		return err
	}
	return answer(w, r, http.StatusOK, viewCursor(&c))
}

func (a *api) listCursors(w http.ResponseWriter, r *httpx.Request) error {
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, err := a.broker.Cursors(r.Context(), r.Param("stream"))
	if err != nil {
		return err
	}
	views := []cursorView{}
	for _, c := range httpx.PageOf(all, page) {
		views = append(views, viewCursor(&c))
	}
	return answer(w, r, http.StatusOK, struct {
		Cursors []cursorView `json:"cursors"`
		Total   int          `json:"total"`
		Limit   int          `json:"limit"`
		Offset  int          `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) deleteCursor(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("cursor")
	if err := a.broker.DeleteCursor(r.Context(), r.Param("stream"), name); err != nil {
		return err
	}
	httpx.SetDurability(w, a.broker.State().Durability)
	return answer(w, r, http.StatusOK, deletedView{name, true})
}
