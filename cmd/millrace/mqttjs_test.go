package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace/cmd/millrace/certs/certstest"
)

// TestMQTTjs has MQTT.js, which browsers and Node use, over every transport.
func TestMQTTjs(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	modules := os.Getenv("MILLRACE_MQTTJS")
	if modules == "" {
		modules = "../../.cache/mqttjs"
	}
	modules, err = filepath.Abs(filepath.Join(modules, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "mqtt")); err != nil {
		t.Skip("MQTT.js is not installed: make mqttjs installs it")
	}
	dir := t.TempDir()
	certstest.NewCA(t, "authority").Issue(t, certstest.Server("127.0.0.1")).Write(t, dir, "server")
	s := startServer(t, "--dev", "--mqtt-tls-listen", "127.0.0.1:0", "--mqtt-ws-listen", "127.0.0.1:0", "--mqtt-wss-listen", "127.0.0.1:0",
		"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key"))
	urls := []string{
		"mqtt://" + s.ports["mqtt"], "mqtts://" + s.ports["mqtt-tls"], "ws://" + s.ports["mqtt-ws"] + "/mqtt",
		"wss://" + s.ports["mqtt-wss"] + "/mqtt", "ws://" + s.ports["http"] + "/mqtt",
	}
	cmd := exec.CommandContext(t.Context(), node, append([]string{"testdata/mqttjs/check.cjs"}, urls...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "ok ") != 2*len(urls) {
		t.Errorf("%v:\n%s", err, out)
	}
}
