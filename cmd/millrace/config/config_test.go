package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/cmd/millrace/config"
)

// load loads from a file with the text, beside other sources.
func load(t *testing.T, text string, s config.Source) (*config.Config, error) {
	t.Helper()
	if text != "" {
		s.File = filepath.Join(t.TempDir(), "millrace.yaml")
		if err := os.WriteFile(s.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(s)
}

func TestLaterSourcesWin(t *testing.T) {
	file := "mqtt:\n  listen: 127.0.0.1:1\n  max_inflight: 2\n  receive_maximum: 3\nlimits:\n"
	env := []string{"MILLRACE_MQTT_MAX_INFLIGHT=20", "MILLRACE_MQTT_RECEIVE_MAXIMUM=30", "PATH=/bin"}
	c, err := load(t, file, config.Source{
		Environ: env, Sets: []string{"mqtt.receive_maximum=300"}, Flags: map[string]string{"http.listen": "127.0.0.1:4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.Listen != "127.0.0.1:1" || c.MQTT.MaxInflight != 20 || c.MQTT.ReceiveMaximum != 300 || c.HTTP.Listen != "127.0.0.1:4" {
		t.Errorf("got %+v %+v", c.MQTT, c.HTTP)
	}
	if c.MQTT.MaxPacketSize != config.Default().MQTT.MaxPacketSize || c.Limits != config.Default().Limits {
		t.Errorf("a section in the file took away the defaults of its other keys: %+v %+v", c.MQTT, c.Limits)
	}
	for key, want := range map[string]string{"mqtt.max_inflight": "MILLRACE_MQTT_MAX_INFLIGHT", "http.listen": "--http-listen", "data": "default"} {
		if got := c.Origin(key); got != want {
			t.Errorf("origin of %s is %q, want %q", key, got, want)
		}
	}
}

func TestValuesHaveUnits(t *testing.T) {
	c, err := load(t, "drain_timeout: 90s\nlimits: {payload: 1MiB}\nmqtt: {max_output: 65536}\nallow_anonymous: true\n", config.Source{})
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.DrainTimeout) != 90*time.Second || c.Limits.Payload != 1<<20 || c.MQTT.MaxOutput != 65536 || c.AllowAnonymous != config.On {
		t.Errorf("got %+v", c)
	}
}

func TestALimitIsTakenAtItsEdgesAndNotBeyond(t *testing.T) {
	for value, want := range map[string]string{
		"65536": "", "4GiB": "", "16MiB": "",
		"65535":      "nats.node_buffer is 65535 (from --set), outside 64KiB to 4GiB",
		"4294967297": "nats.node_buffer is 4294967297 (from --set), outside 64KiB to 4GiB",
	} {
		_, err := config.Load(config.Source{Flags: map[string]string{"store.url": "nats://x:4222"}, Sets: []string{"nats.node_buffer=" + value}})
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s gives %q, want %q", value, got, want)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		source     config.Source
		want       []string
	}{
		{"misspelt key", "mqtt:\n  max_packet_siez: 1MiB\n", config.Source{}, []string{">  2 |   max_packet_siez", "did you mean max_packet_size?"}},
		{"wrong type", "mqtt:\n  max_inflight: many\n", config.Source{}, []string{"2 |   max_inflight: many"}},
		{"bad size", "limits: {payload: big}\n", config.Source{}, []string{`"big" is not a size`}},
		{"repeated key", "data: a\ndata: b\n", config.Source{}, []string{"2 | data: b"}},
		{"two documents", "data: a\n---\ndata: b\n", config.Source{}, []string{"more than one YAML document"}},
		{"missing file", "", config.Source{File: "/no/such/file.yaml"}, []string{"/no/such/file.yaml"}},
		{"variable", "", config.Source{Environ: []string{"MILLRACE_MQTT_LISTN=x"}}, []string{"did you mean MILLRACE_MQTT_LISTEN?"}},
		{"set", "", config.Source{Sets: []string{"mqtt.listn=x", "data"}}, []string{"did you mean mqtt.listen?", "write --set key=value"}},
		{"address", "", config.Source{Flags: map[string]string{"http.listen": "8080"}}, []string{`http.listen is "8080" (from --http-listen)`, "or none"}},
		{"open development", "", config.Source{Flags: map[string]string{"dev": "true", "mqtt.listen": ":1883"}}, []string{"--dev=any in a container"}},
		{"open memfifo", "", config.Source{Sets: []string{"memfifo.auth=false", "memfifo.listen=0.0.0.0:7532"}}, []string{"memfifo.listen is 0.0.0.0:7532", "memfifo.auth is false (from --set)"}},
		{"same address", "", config.Source{Flags: map[string]string{"emqx.listen": "127.0.0.1:8080"}}, []string{"http.listen and emqx.listen are both"}},
		{"choice", "log: {level: loud}\n", config.Source{}, []string{"one of debug, info, warn, error"}},
		{"all at once", "log: {level: loud}\nlimits: {waiting: 0}\n", config.Source{}, []string{"log.level", "limits.waiting is 0"}},
		{"no certificate", "", config.Source{Flags: map[string]string{"mqtt.tls_listen": "127.0.0.1:8883"}}, []string{"mqtt.tls_listen is 127.0.0.1:8883", "set tls.cert and tls.key"}},
		{"no key", "tls: {cert: a.pem}\n", config.Source{}, []string{"tls.cert is a.pem", "name the file of its key"}},
		{"no authority", "tls: {cert: a.pem, key: a.key, client_crl: b.crl}\n", config.Source{}, []string{"tls.client_crl is b.crl", "tls.client_ca is not set"}},
		{"proxies", "mqtt: {proxy_from: [10.0.0.0/8, ten], proxy_listeners: [mqtt, http]}\n", config.Source{}, []string{`mqtt.proxy_from has "ten"`, `mqtt.proxy_listeners has "http"`}},
		{"mode", "mqtt: {unix_mode: rw}\n", config.Source{}, []string{`"rw" is not a file mode`}},
		{"wildcard", "", config.Source{Flags: map[string]string{"mqtt.response_information": "reply/+"}}, []string{"mqtt.response_information is \"reply/+\"", "without wildcards"}},
		{"told user", "", config.Source{Flags: map[string]string{"public_url": "https://u:planted@x"}}, []string{"public_url (from --public-url) names a user"}},
		{"no server", "", config.Source{Flags: map[string]string{"store.url": "nats://x:4222,http://y"}}, []string{"store.url (from --store) has a server that is not nats://HOST:PORT"}},
		{"other store", "", config.Source{Flags: map[string]string{"store.url": "nats://x:4222"}, Sets: []string{"store.sync=interval"}}, []string{"store.sync (from --set) has no effect", "store.url keeps messages in NATS"}},
		{"advertised", "", config.Source{Flags: map[string]string{"store.url": "nats://x:4222"}, Sets: []string{"nats.advertise=mqtt-1"}}, []string{`nats.advertise is "mqtt-1" (from --set)`, "write host:port"}},
		{"advertised port", "", config.Source{Flags: map[string]string{"store.url": "nats://x:4222"}, Sets: []string{"nats.advertise=a:0"}}, []string{`nats.advertise is "a:0"`}},
		{"advertised list", "", config.Source{Flags: map[string]string{"store.url": "nats://x:4222"}, Sets: []string{"nats.advertise=a b:1"}}, []string{`nats.advertise is "a b:1"`}},
		{"no nats", "", config.Source{Flags: map[string]string{"nats.prefix": "x"}}, []string{"nats.prefix (from --nats-prefix) has no effect", "store.url names no NATS server"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.source)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("want %q in:\n%v", w, err)
				}
			}
		})
	}
}

func TestWhatKubernetesSetsIsNoMistake(t *testing.T) {
	env := []string{
		"MILLRACE_SERVICE_HOST=10.0.0.1", "MILLRACE_SERVICE_PORT=1883", "MILLRACE_SERVICE_PORT_MQTT=1883", "MILLRACE_PORT=tcp://10.0.0.1:1883",
		"MILLRACE_PORT_1883_TCP=tcp://10.0.0.1:1883", "MILLRACE_PORT_1883_TCP_ADDR=10.0.0.1", "MILLRACE_KEY=a.b", "MILLRACE_URL=http://x",
	}
	if _, err := config.Load(config.Source{Environ: env}); err != nil {
		t.Error(err)
	}
}

func TestEveryFlagAndVariableParses(t *testing.T) {
	for _, s := range config.Settings() {
		value := config.Default().Get(s)
		c, err := config.Load(config.Source{Environ: []string{s.Env() + "=" + value}})
		if err != nil {
			t.Errorf("%s=%s: %v", s.Env(), value, err)
		} else if s.Key != "data" && c.Get(s) != value {
			t.Errorf("%s=%s gave %s", s.Env(), value, c.Get(s))
		}
		if s.Doc == "" {
			t.Errorf("%s has no documentation", s.Key)
		}
	}
}

func TestASecretMayComeFromAFile(t *testing.T) {
	f := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(f, []byte("nats://u:p@h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{Environ: []string{"MILLRACE_STORE_URL_FILE=" + f}})
	if err != nil || c.Store.URL != "nats://u:p@h" || c.Origin("store.url") != "MILLRACE_STORE_URL_FILE" {
		t.Errorf("got %+v from %v, %v", c.Store, c.Origin("store.url"), err)
	}
	_, err = config.Load(config.Source{Environ: []string{"MILLRACE_DATA_FILE=" + f}})
	if err == nil || !strings.Contains(err.Error(), "MILLRACE_DATA_FILE is not a setting") {
		t.Errorf("got %v", err)
	}
}

func TestADumpShowsWhatIsSaidToBeHarmlessAndNothingElse(t *testing.T) { // D36
	type settings struct {
		Free   string        `yaml:"free"`
		List   []string      `yaml:"list"`
		Level  string        `yaml:"level" one:"a|b"`
		Switch config.Switch `yaml:"switch" one:"false|true"`
		Path   string        `yaml:"path" shown:"yes"`
		Number int           `yaml:"number"`
		Size   config.Size   `yaml:"size"`
	}
	var shown []string
	for _, s := range config.CollectOf[settings]() {
		if s.Shown {
			shown = append(shown, s.Key)
		}
	}
	if got := strings.Join(shown, " "); got != "level switch path number size" {
		t.Errorf("shown are %s", got)
	}
	c, err := config.Load(config.Source{Sets: []string{
		"store.url=nats://u:planted@h:4222", "nats.creds=planted", "nats.nkey=planted", "nats.prefix=told", "tls.cert=a.pem", "tls.key=a.key", "http.allowed_origins=https://a,https://b",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var hidden []string
	for _, s := range config.Settings() {
		text := fmt.Sprint(c.Value(s))
		if strings.Contains(text, "planted") {
			t.Errorf("%s is shown as %s", s.Key, text)
		}
		if text == "******" {
			hidden = append(hidden, s.Key)
		} else if !strings.Contains("["+strings.ReplaceAll(c.Get(s), ",", " ")+"]", strings.Trim(text, "[]")) {
			t.Errorf("%s is shown as %s, and is %s", s.Key, text, c.Get(s))
		}
	}
	if got := strings.Join(hidden, " "); got != "store.url nats.creds nats.nkey" {
		t.Errorf("hidden are %s", got)
	}
}

func TestDevelopmentOpensEveryDoorOnLoopback(t *testing.T) {
	c, err := config.Load(config.Source{Flags: map[string]string{"dev": "true", "fastqueue.listen": "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.EMQX.Listen != "127.0.0.1:18083" || c.FastQueue.Listen != "127.0.0.1:1" || c.Memfifo.Listen != "127.0.0.1:7532" ||
		c.Memfifo.Auth || !c.FastQueue.Registration || c.AllowAnonymous != config.On || c.Data != "" {
		t.Errorf("got %+v", c)
	}
	if c.Given("emqx.listen") || !c.Given("fastqueue.listen") {
		t.Error("a default of --dev counts as given, or a flag does not")
	}
	c, err = config.Load(config.Source{Flags: map[string]string{"dev": "any"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.Listen != "0.0.0.0:1883" || c.HTTP.Listen != "0.0.0.0:8080" || c.Memfifo.Listen != config.None ||
		!c.Memfifo.Auth || c.FastQueue.Registration || c.AllowAnonymous != config.Off {
		t.Errorf("got %+v", c)
	}
	c, err = config.Load(config.Source{Sets: []string{"memfifo.auth=false", "memfifo.listen=[::1]:7532"}})
	if err != nil || c.Memfifo.Auth {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestFilesAreSearchedInOrder(t *testing.T) {
	home, system := t.TempDir(), t.TempDir()
	s := config.Source{User: true, ConfigHome: home, DataHome: "/d", SystemDir: system}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, waiting int) {
		t.Helper()
		c, err := config.Load(s)
		if err != nil {
			t.Fatal(err)
		}
		if c.Limits.Waiting != waiting {
			t.Errorf("%s: limits.waiting is %d, want %d", what, c.Limits.Waiting, waiting)
		}
		if c.Data != "/d/millrace" {
			t.Errorf("%s: data is %s", what, c.Data)
		}
	}
	expect("no file", config.Default().Limits.Waiting)
	write(filepath.Join(system, "millrace.yaml"), "limits: {waiting: 1}\n")
	expect("system file", 1)
	write(filepath.Join(system, "conf.d", "20-b.yaml"), "limits: {waiting: 3}\n")
	write(filepath.Join(system, "conf.d", "10-a.yaml"), "limits: {waiting: 2}\n")
	expect("fragments", 3)
	write(filepath.Join(home, "millrace", "millrace.yaml"), "limits: {waiting: 4}\n")
	expect("user's file", 4)
}

func TestASizeOrDurationReadsWhatItWrites(t *testing.T) {
	for _, text := range []string{"0", "1", "64KiB", "4160KiB", "2GiB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != text {
			t.Errorf("%s became %s, %v", text, s, err)
		}
	}
	for _, text := range []string{"0s", "30s", "7d", "1h30m0s"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != text {
			t.Errorf("%s became %s, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "9999999999GiB", "1 TB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, s)
		}
	}
}
