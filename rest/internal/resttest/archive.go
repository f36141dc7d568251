package resttest

import (
	"bytes"
	"regexp"
)

// archive is a text of files, each behind a line "-- name --", in the txtar format.
type archive struct {
	comment []byte
	files   []file
}

type file struct {
	name string
	data []byte
}

var marker = regexp.MustCompile(`(?m)^-- (.+) --\n`)

func parseArchive(text []byte) *archive {
	a := &archive{comment: text}
	at := marker.FindAllSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		a.files = append(a.files, file{string(text[m[2]:m[3]]), text[m[1]:end]})
	}
	if len(at) > 0 {
		a.comment = text[:at[0][0]]
	}
	return a
}

func (a *archive) format() []byte {
	b := bytes.NewBuffer(bytes.Clone(a.comment))
	for _, f := range a.files {
		b.WriteString("-- " + f.name + " --\n")
		b.Write(f.data)
	}
	return b.Bytes()
}
