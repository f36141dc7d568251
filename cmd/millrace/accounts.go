package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"millrace/broker/auth"
)

// credentials are what a person needs to get in.
type credentials struct {
	user, password string
	keyID, secret  string
}

// bearer is the API key as HTTP takes it.
func (c credentials) bearer() string { return c.keyID + "." + c.secret }

// letters have no look-alikes: people copy passwords by eye.
const letters = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// randomText returns n characters, in groups of four when grouped.
func randomText(n int, grouped bool) string {
	var b strings.Builder
	for b.Len() < n {
		if grouped && b.Len()%5 == 4 {
			b.WriteByte('-')
			continue
		}
		var r [1]byte
		_, _ = rand.Read(r[:]) // never fails: crypto/rand aborts the process instead
		// Bytes beyond the last whole round of the alphabet would favour its start.
		if int(r[0]) < 256-256%len(letters) {
			b.WriteByte(letters[int(r[0])%len(letters)])
		}
	}
	return b.String()
}

func newCredentials(user string) credentials {
	return credentials{user: user, password: randomText(19, true), keyID: randomText(12, false), secret: randomText(43, false)}
}

// developmentKey is the name by which the key of an earlier --dev is found.
const developmentKey = "development"

// developmentAccount gives the user dev a new password and makes a new key; the
// key of the start before is gone.
func developmentAccount(ctx context.Context, a *auth.Auth) (credentials, error) {
	c := newCredentials("dev")
	for _, k := range a.Keys() {
		if k.Name != developmentKey {
			continue
		}
		if err := a.DeleteKey(ctx, k.ID); err != nil {
			return c, fmt.Errorf("remove the key of the last start: %w", err)
		}
	}
	if _, _, err := a.AddKey(ctx, auth.KeySpec{ID: c.keyID, Secret: c.secret, Name: developmentKey, Role: "administrator"}); err != nil {
		return c, fmt.Errorf("make the API key: %w", err)
	}
	user := auth.UserSpec{Username: c.user, Password: c.password, Superuser: true}
	err := a.AddUser(ctx, user)
	if errors.Is(err, auth.ErrExists) {
		err = a.UpdateUser(ctx, user)
	}
	if err != nil {
		return c, fmt.Errorf("make user dev: %w", err)
	}
	return c, nil
}

// credentialsFile is where the first administrator is written to when nobody
// watches the start.
const credentialsFile = "first-administrator"

// firstAdministrator makes the first administrator of a new broker. It tells
// before it creates: a crash in between leaves words without an account, and
// not an account that nobody can use.
func firstAdministrator(ctx context.Context, a *auth.Auth, dir string, out io.Writer) (path string, err error) {
	c := newCredentials("admin")
	text := fmt.Sprintf("First administrator of this broker. Keep this safe: it is not shown again.\n\n  user     %s\n  password %s\n  API key  %s\n\n", c.user, c.password, c.bearer())
	if terminal(out) {
		_, err = io.WriteString(out, text)
	} else {
		path = filepath.Join(dir, credentialsFile)
		err = writeWhole(path, []byte(text), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("tell the first administrator: %w", err)
	}
	err = a.AddUser(ctx, auth.UserSpec{Username: c.user, Password: c.password, Superuser: true})
	if errors.Is(err, auth.ErrExists) && a.HasAdministrator() { // another node on the store was faster
		return "", withdraw(path, out)
	}
	if errors.Is(err, auth.ErrExists) { // an ordinary user took the name
		err = a.UpdateUser(ctx, auth.UserSpec{Username: c.user, Password: c.password, Superuser: true})
	}
	if err != nil {
		return "", fmt.Errorf("make the first administrator: %w", err)
	}
	if _, _, err := a.AddKey(ctx, auth.KeySpec{ID: c.keyID, Secret: c.secret, Name: "first administrator", Role: "administrator"}); err != nil {
		return "", fmt.Errorf("make the first API key: %w", err)
	}
	return path, nil
}

// withdraw takes back what was told of an administrator that another node made.
func withdraw(path string, out io.Writer) error {
	if path != "" {
		return os.Remove(path)
	}
	_, err := io.WriteString(out, "Another node made the first administrator at the same moment: what it told counts, and the above does not.\n\n")
	return err
}
