package local

import (
	"errors"
	"io/fs"

	"millrace/broker"
)

// fileAt returns the file that holds offset o or what follows it, where the
// file after it begins, and where this one must not end before; nil if o is not
// in a file.
func (p *partition) fileAt(o uint64) (f *streamFile, next, end uint64, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	switch {
	case p.dropped:
		return nil, 0, 0, broker.ErrGone
	case o < p.first:
		return nil, 0, 0, p.outOfRange()
	case o >= p.copied || len(p.files) == 0:
		return nil, 0, 0, nil
	}
	i := 0
	for lo, hi := 0, len(p.files); lo < hi; {
		if mid := int(uint(lo+hi) >> 1); p.files[mid].base <= o {
			i, lo = mid, mid+1
		} else {
			hi = mid
		}
	}
	if i+1 < len(p.files) {
		n := p.files[i+1]
		return p.files[i], n.base, n.prev, nil
	}
	return p.files[i], p.copied, p.copied, nil
}

// readCold appends what lies in files, from one file at most. It returns where
// to go on, and whether that may be tried again: the file ended, and there was
// room for more.
func (p *partition) readCold(from uint64, w want, dst *[]broker.Delivery) (next uint64, more bool, err error) {
	f, after, end, err := p.fileAt(from)
	if f == nil || err != nil {
		return from, false, err
	}
	if f.lost {
		return after, true, nil
	}
	list, next, ended, err := p.readFile(f, from, w, *dst)
	got := len(list) - len(*dst)
	*dst = list
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if _, _, _, now := p.fileAt(from); now != nil {
				err = now // it was cut off meanwhile
			}
		}
		return next, false, err
	}
	if !ended {
		return next, false, nil
	}
	if next < end {
		return next, false, f.damage(f.length(), "the file ends before the next one begins")
	}
	if next < after {
		next = after
	}
	return next, got < w.limit && (w.maxBytes == 0 || got == 0), nil
}

// sinceFiles returns the first offset in a file that is not older than time,
// and whether there is one.
func (p *partition) sinceFiles(time int64) (uint64, bool, error) {
	p.mu.RLock()
	files, copied, last := p.files, p.copied, p.copiedLast
	p.mu.RUnlock()
	if len(files) == 0 || last < time {
		return 0, false, nil
	}
	i := len(files) - 1
	for i > 0 && files[i].time >= time {
		i--
	}
	if files[i].lost {
		return files[i].base, true, nil
	}
	marks, err := files[i].index()
	if err != nil {
		return 0, false, p.unlessCut(files[i].base, err)
	}
	if len(marks) == 0 {
		return 0, false, files[i].damage(fileHeader, "the file holds no message")
	}
	at, _ := seek(marks, func(m *mark) bool { return m.time < time })
	o := copied
	if i+1 < len(files) {
		o = files[i+1].base
	}
	err = files[i].scan(at, ahead{block: markEvery}, func(r *fileRecord) bool {
		if r.time >= time {
			o = r.offset
			return false
		}
		return true
	})
	if err != nil {
		return 0, false, p.unlessCut(files[i].base, err)
	}
	return o, true, nil
}

// unlessCut is err, or nil if the file is missing because it was cut off.
func (p *partition) unlessCut(base uint64, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		p.mu.RLock()
		defer p.mu.RUnlock()
		if p.first > base || p.dropped {
			return nil
		}
	}
	return err
}
