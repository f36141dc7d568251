package auth_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
)

func TestTheAuditFileRotatesAndStaysBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	f, err := auth.OpenAuditFile(path, 310, 2)
	must(t, err)
	for i := range 20 {
		if _, err := fmt.Fprintf(f, `{"n":"%02d %s"}`+"\n", i, strings.Repeat("x", 16)); err != nil { // 102 bytes at most
			t.Fatal(err)
		}
	}
	must(t, f.Close())
	must(t, f.Close())
	if _, err := f.Write([]byte("{\"n\":1}\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	all := ""
	for _, file := range slices.Backward(files) {
		b, err := os.ReadFile(filepath.Join(dir, file.Name()))
		must(t, err)
		if info, _ := file.Info(); len(b) > 310 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has %d bytes, mode %v", file.Name(), len(b), info.Mode())
		}
		all += string(b)
	}
	var got []string
	for line := range strings.Lines(all) {
		got = append(got, line[6:8])
	}
	if want := "12 13 14 15 16 17 18 19"; len(files) != 3 || strings.Join(got, " ") != want {
		t.Errorf("%d files hold %q, want %q", len(files), got, want)
	}
}

func TestTheAuditFileGoesOnAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	must(t, os.WriteFile(path, []byte("whole\nhal"), 0o600))
	f, err := auth.OpenAuditFile(path, 0, 0)
	must(t, err)
	_, err = f.Write([]byte("{\"n\":1}\n"))
	must(t, err)
	must(t, f.Close())
	if b, _ := os.ReadFile(path); string(b) != "whole\nhal\n{\"n\":1,\"prev\":\""+auth.LineHash([]byte("hal"))+"\"}\n" {
		t.Errorf("got %q", b)
	}
	if _, err := auth.OpenAuditFile(t.TempDir(), 0, 0); err == nil {
		t.Error("opened a directory")
	}
}

func TestTheAuditFileStaysBoundedWhenItCannotRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f, err := auth.OpenAuditFile(path, 20, 1)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700))
	line := []byte("{\"n\":123456}\n")
	_, err = f.Write(line)
	must(t, err)
	for range 2 {
		if _, err := f.Write(line); err == nil {
			t.Error("grew past its bound")
		}
	}
	must(t, os.RemoveAll(path+".1"))
	_, err = f.Write(line)
	must(t, err)
	must(t, f.Close())
}

func TestTheAuditFileIsSyncedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := auth.OpenAuditFile(filepath.Join(t.TempDir(), "audit.log"), 0, 0)
		must(t, err)
		for range 3 {
			if _, err := f.Write([]byte("{\"n\":1}\n")); err != nil {
				t.Fatal(err)
			}
			if !auth.Unsynced(f) {
				t.Error("nothing is going to sync this")
			}
			<-time.After(time.Second)
			synctest.Wait()
			if auth.Unsynced(f) {
				t.Error("not synced after a second")
			}
		}
		must(t, f.Close())
	})
}
