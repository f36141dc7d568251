package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
)

// TestTwoNodesMakeOneFirstAdministrator: the slower of two that start on one empty store
// takes back what it told.
func TestTwoNodesMakeOneFirstAdministrator(t *testing.T) {
	s, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	ctx := asSystem(t.Context(), "first start")
	var nodes [2]*auth.Auth
	var files [2]string
	for i := range nodes {
		if nodes[i], err = auth.Open(ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth)}); err != nil {
			t.Fatal(err)
		}
		defer nodes[i].Close(ctx)
		files[i] = t.TempDir()
	}
	for i, a := range nodes {
		if a.HasAdministrator() {
			t.Fatal("there is one already")
		}
		path, err := firstAdministrator(ctx, a, files[i], new(bytes.Buffer))
		_, there := os.Stat(filepath.Join(files[i], credentialsFile))
		if told := i == 0; err != nil || (path != "") != told || (there == nil) != told || !told && !errors.Is(there, os.ErrNotExist) {
			t.Errorf("node %d: told %q, %v; its file: %v", i, path, err, there)
		}
	}
	if n := len(nodes[1].Users()); n != 1 || !nodes[1].HasAdministrator() {
		t.Errorf("%d users", n)
	}
}
