package main_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// TestAFleetWithPasswordsComesBackAtOnce has many devices with few passwords
// lose their connections together. Passwords that proved right are remembered,
// and equal attempts share one run, so that the second time costs no hashing.
func TestAFleetWithPasswordsComesBackAtOnce(t *testing.T) {
	const (
		users    = 20
		patience = 5 // each of some 20 s
	)
	clients := int(fromEnv(t, "MILLRACE_FLEET", 400))
	wantFiles(t, clients)
	var boot strings.Builder
	boot.WriteString(testKeyYAML + "users:\n")
	for n := range users {
		fmt.Fprintf(&boot, "- {username: device-%d, password: password of device %d}\n", n, n)
	}
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, boot.String()))
	fleet := make([]*wire.Conn, clients)
	arrive := func() time.Duration {
		t.Helper()
		start, errs := time.Now(), make([]error, clients)
		var wait sync.WaitGroup
		for n := range fleet {
			wait.Go(func() {
				user := n % users
				login := wire.Login{
					ClientID: fmt.Sprintf("client-%d", n), User: fmt.Sprintf("device-%d", user), Password: fmt.Sprintf("password of device %d", user),
				}
				for range patience { // a server that is slow to hash refuses for now
					if fleet[n], errs[n] = wire.Dial(t.Context(), s.ports["mqtt"], login); errs[n] == nil {
						return
					}
				}
			})
		}
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	first := arrive()
	for _, c := range fleet {
		_ = c.Close() // as a switch does that loses power
	}
	again := arrive()
	t.Logf("%d clients came in %s, and again in %s", clients, first.Round(time.Millisecond), again.Round(time.Millisecond))
	if again > 20*time.Second {
		t.Errorf("they needed %s to come back", again)
	}
	for _, c := range fleet {
		_ = c.Close()
	}
}
