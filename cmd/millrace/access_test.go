package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// administration runs client commands with the administrator's key.
type administration struct {
	t *testing.T
	s *server
}

func (a administration) run(want int, args ...string) (out, errs string) {
	a.t.Helper()
	out, errs, code := command(a.t, append(args, "--url", a.s.url(), "--key", testKey)...)
	if code != want {
		a.t.Fatalf("millrace %s: exit code %d, want %d: %s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeysUsersAndRulesFromTheCommandLine(t *testing.T) {
	data := t.TempDir()
	s := startServer(t, "--data", data, "--bootstrap-file", bootstrapFile(t, testKeyYAML))
	a := administration{t, s}

	var made, second struct{ ID, Secret string }
	out, _ := a.run(0, "key", "add", "--name", "hall 7", "--scope", "hall/#", "--expires", "90d")
	if err := json.Unmarshal([]byte(out), &made); err != nil || len(made.Secret) != 43 {
		t.Fatalf("%v: %s", err, out)
	}
	as := func(secret string, want int) {
		t.Helper()
		if _, errs, code := command(t, "queue", "ls", "--url", s.url(), "--key", made.ID+"."+secret); code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, errs)
		}
	}
	as(made.Secret, 0)
	out, _ = a.run(0, "key", "rotate", made.ID)
	if err := json.Unmarshal([]byte(out), &second); err != nil {
		t.Fatal(err)
	}
	as(made.Secret, 0)
	as(second.Secret, 0)
	a.run(0, "key", "rotate", made.ID, "--finish")
	as(made.Secret, 4)
	as(second.Secret, 0)
	a.run(0, "key", "disable", made.ID)
	as(second.Secret, 4)
	a.run(0, "key", "enable", made.ID)
	as(second.Secret, 0)
	if out, _ := a.run(0, "key", "ls"); !strings.Contains(out, made.ID) || strings.Contains(out, second.Secret) {
		t.Errorf("got %s", out)
	}
	a.run(0, "key", "info", made.ID)
	a.run(2, "key", "rm", made.ID)
	a.run(0, "key", "rm", made.ID, "--yes")
	a.run(3, "key", "info", made.ID)
	if _, errs := a.run(1, "key", "rm", testKeyID, "--yes"); !strings.Contains(errs, "last administrator") {
		t.Errorf("got %s", errs)
	}

	a.run(2, "user", "add", "ann")
	if _, errs := a.run(1, "user", "add", "ann", "--password", "password1"); !strings.Contains(errs, "warning: other users") {
		t.Errorf("a password in a flag is taken without a warning: %s", errs)
	}
	a.run(0, "user", "add", "ann", "--password-file", secretFile(t, "correct horse battery"))
	a.run(0, "user", "passwd", "ann", "--password-file", secretFile(t, "staple that one now"))
	a.run(4, "user", "passwd", "ann", "--old-password-file", secretFile(t, "not this one"), "--password-file", secretFile(t, "one of her own"))
	a.run(0, "user", "passwd", "ann", "--old-password-file", secretFile(t, "staple that one now"), "--password-file", secretFile(t, "one of her own"))
	a.run(2, "user", "passwd", "ann", "--own")
	a.run(2, "key", "rotate-signing")
	if out, _ := a.run(0, "key", "rotate-signing", "--yes"); !strings.Contains(out, "verifies_until") {
		t.Errorf("got %s", out)
	}
	if out, _ := a.run(0, "user", "ls"); !strings.Contains(out, `"ann"`) {
		t.Errorf("got %s", out)
	}

	a.run(0, "acl", "test", "user:ann", "publish", "plant/3/stop")
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	text := "rules:\n- {effect: deny, who: all, do: [publish], filter: plant/+/stop}\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.run(0, "acl", "set", rules, "--yes")
	if _, errs := a.run(4, "acl", "test", "user:ann", "publish", "plant/3/stop"); !strings.Contains(errs, "deny all publish plant/+/stop") {
		t.Errorf("got %s", errs)
	}
	out, _ = a.run(0, "acl", "ls")
	if err := os.WriteFile(rules, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	a.run(0, "acl", "set", rules, "--yes")
	a.run(0, "user", "rm", "ann", "--yes")
	s.stop()

	out, errs, code := command(t, "audit", "verify", "--data", data)
	if code != 0 || !strings.Contains(out, "each as it was written\nhead ") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	_, head, _ := strings.Cut(strings.TrimSpace(out), "head ")
	if !strings.Contains(tail(s.log), head) {
		t.Errorf("the log does not tell the head %s of the audit log", head)
	}
	if _, errs, code := command(t, "audit", "verify", "--data", data, "--expect", head); code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, errs, code := command(t, "audit", "verify", "--data", data, "--expect", strings.Repeat("0", 64)); code != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, errs, code := command(t, "audit", "verify", "--data", t.TempDir()); code != 3 {
		t.Errorf("exit code %d: %s", code, errs)
	}

	audit, err := os.ReadFile(filepath.Join(data, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"key made", "secret added", "secret retired", "key revoked", "user made", "user removed", "rules changed", "signing key rotated"} {
		if !strings.Contains(string(audit), want) {
			t.Errorf("no %q in the audit log:\n%s", want, audit)
		}
	}
	if !strings.Contains(string(audit), `"who":"key:`+testKeyID+`","remote":"127.0.0.1`) {
		t.Errorf("the audit log does not say who and from where:\n%s", audit)
	}
	for _, secret := range []string{made.Secret, second.Secret, testSecret, "correct horse", "staple that", "password1", "one of her"} {
		if strings.Contains(string(audit), secret) || strings.Contains(tail(s.log), secret) {
			t.Errorf("%q was written down", secret)
		}
	}
	forged := strings.Replace(string(audit), "user made", "user nade", 1)
	if err := os.WriteFile(filepath.Join(data, "audit.log"), []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := command(t, "audit", "verify", "--data", data); code != 1 || !strings.Contains(errs, "is not the one that was written") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if info, err := os.Stat(filepath.Join(data, "audit.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("audit.log: %v, %v", info.Mode(), err)
	}
}
