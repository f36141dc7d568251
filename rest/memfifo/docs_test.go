package memfifo_test

import (
	"testing"

	"millrace/rest/internal/resttest"
)

func TestCommandsOfThePageWork(t *testing.T) {
	p := resttest.Page{
		Files:     []string{"../../docs/dialects/memfifo.md"},
		Document:  document,
		Variables: map[string]string{"MEMFIFO": ""},
		Send:      open(t).send,
	}
	p.Play(t)
}
