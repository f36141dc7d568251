package mqtt_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"

	"millrace/broker/auth"
	"millrace/cmd/millrace/certs"
	"millrace/cmd/millrace/certs/certstest"
	"millrace/mqtt"
)

// places are the addresses of an edge that has one listener of each kind, and
// of an HTTP server, plain and with TLS, that has it at /mqtt.
type places struct {
	*edge
	ca     *certstest.CA
	listen map[string]net.Addr
	unix   string
	http   *httptest.Server
	https  *httptest.Server
}

var kinds = []string{"tcp", "tls", "ws", "wss", "unix", "http", "https"}

func openPlaces(tb testing.TB, change ...func(*mqtt.Options)) *places {
	tb.Helper()
	p := &places{ca: certstest.NewCA(tb, "authority"), listen: map[string]net.Addr{}}
	own := p.ca.Issue(tb, certstest.Server("127.0.0.1"))
	server := &tls.Config{Certificates: []tls.Certificate{*own.TLS()}, MinVersion: tls.VersionTLS12}
	p.unix = filepath.Join(tb.TempDir(), "mqtt.sock")
	p.edge = open(tb, slices.Insert(change, 0, func(o *mqtt.Options) {
		o.Listeners = []mqtt.Listener{
			{Address: "127.0.0.1:0", AllowAnonymous: true},
			{Address: "127.0.0.1:0", AllowAnonymous: true, TLS: server},
			{Address: "127.0.0.1:0", AllowAnonymous: true, WebSocket: true, Origins: []string{"https://panel.example"}},
			{Address: "127.0.0.1:0", AllowAnonymous: true, WebSocket: true, TLS: server},
			{Address: "unix:" + p.unix, Mode: 0o600, AllowAnonymous: true},
		}
	})...)
	for i, at := range p.Addrs() {
		p.listen[kinds[i]] = at
	}
	h := p.WebSocket(mqtt.Listener{AllowAnonymous: true})
	p.http, p.https = httptest.NewServer(h), httptest.NewUnstartedServer(h)
	p.https.Listener = mqtt.Sockets(p.https.Listener)
	p.https.TLS = server
	p.https.StartTLS()
	tb.Cleanup(p.http.Close)
	tb.Cleanup(p.https.Close)
	p.listen["http"], p.listen["https"] = p.http.Listener.Addr(), p.https.Listener.Addr()
	return p
}

// dial opens a connection of a kind, up to where MQTT begins.
func (p *places) dial(tb testing.TB, kind string) *raw {
	tb.Helper()
	var c net.Conn
	var err error
	at := p.listen[kind]
	switch kind {
	case "tls", "wss", "https":
		c, err = tls.Dial("tcp", at.String(), p.client())
	default:
		c, err = net.Dial(at.Network(), at.String())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if strings.HasPrefix(kind, "ws") || strings.HasPrefix(kind, "http") {
		c = switchProtocols(tb, c, "")
	}
	return &raw{Conn: c, t: tb, br: bufio.NewReader(c)}
}

func (p *places) client() *tls.Config {
	return &tls.Config{RootCAs: p.ca.Pool(), MinVersion: tls.VersionTLS12}
}

func TestEveryTransportCarriesThePackets(t *testing.T) {
	p := openPlaces(t)
	p.queue(t, "q", "t/#")
	big := strings.Repeat("0123456789abcdef", 70_000) // over any buffer
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			r := p.dial(t, kind)
			r.v5 = true
			hello := connectPacket(true, "c-"+kind, nil)
			r.send(hello[:9]) // in two writes
			r.send(hello[9:])
			if head, body := r.packet(); head != 0x20 || body[1] != 0 {
				t.Fatalf("CONNACK is %x %x", head, body)
			}
			r.subscribe(1, 1, "t/"+kind)
			for i, payload := range []string{"", "small", big} {
				id := uint16(i + 1)
				r.publish("t/"+kind, payload, 1, id)
				acked, came := false, false
				for !acked || !came {
					switch head, body := r.packet(); head >> 4 {
					case 4:
						acked = body[0] == 0 && body[1] == byte(id)
					case 3:
						came = strings.HasSuffix(string(body), payload)
						at := 2 + int(body[0])<<8 + int(body[1])
						r.send([]byte{0x40, 2, body[at], body[at+1]})
					}
				}
			}
			var many []byte // three in one write, and many bytes
			for range 3 {
				many = append(many, 0xC0, 0)
			}
			r.send(many)
			r.want("D0 00")
			r.want("D0 00")
			r.want("D0 00")
			r.send([]byte{0xE0, 0})
			r.wantEnd(0)
		})
	}
}

func TestPahoOverEveryTransport(t *testing.T) {
	p := openPlaces(t)
	for kind, url := range map[string]string{
		"tls": "ssl://" + p.listen["tls"].String(), "ws": "ws://" + p.listen["ws"].String() + "/mqtt",
		"wss": "wss://" + p.listen["wss"].String() + "/mqtt", "http": "ws://" + p.listen["http"].String() + "/mqtt",
		"https": "wss://" + p.listen["https"].String() + "/mqtt", "unix": "unix://" + p.unix,
	} {
		got := make(chan string, 1000)
		c := paho3.NewClient(paho3.NewClientOptions().AddBroker(url).SetClientID("paho-" + kind).
			SetAutoReconnect(false).SetTLSConfig(p.client()))
		if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
			t.Fatalf("%s: %v", kind, tok.Error())
		}
		if tok := c.Subscribe("p/"+kind, 1, func(_ paho3.Client, m paho3.Message) { got <- string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
			t.Fatalf("%s: %v", kind, tok.Error())
		}
		for i := range 1000 {
			c.Publish("p/"+kind, 1, false, fmt.Sprint(i))
		}
		for i := range 1000 {
			select {
			case m := <-got:
				if m != fmt.Sprint(i) {
					t.Fatalf("%s: message %d is %s", kind, i, m)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: message %d never came", kind, i)
			}
		}
		c.Disconnect(100)
	}
}

func TestSlowReadersAreClosedOnEveryTransport(t *testing.T) { // B25
	p := openPlaces(t, func(o *mqtt.Options) {
		o.StallTimeout, o.MaxOutput = 400*time.Millisecond, 256<<10
	})
	for _, kind := range kinds {
		r := p.dial(t, kind)
		r.send(connectPacket(false, "slow-"+kind, nil))
		r.want("20 02 00 00")
		r.subscribe(1, 0, "flood")
	}
	pub := login(t, p.edge, false, "pub")
	payload := strings.Repeat("x", 64<<10)
	eventually(t, "all closed as slow consumers", func() bool {
		pub.publish("flood", payload, 0, 0)
		return p.Stats().Closed["slow_consumer"] == int64(len(kinds))
	})
	pub.send([]byte{0xC0, 0})
	pub.want("D0 00")
}

func TestALateReaderGetsAllOfIt(t *testing.T) {
	p := openPlaces(t, func(o *mqtt.Options) { o.StallTimeout = 4 * time.Second })
	payload := strings.Repeat("0123456789abcdef", 128<<10) // 2 MiB, more than a socket takes
	late := map[string]*raw{}
	for _, kind := range kinds {
		r := p.dial(t, kind)
		r.send(connectPacket(false, "late-"+kind, nil))
		r.want("20 02 00 00")
		r.subscribe(1, 0, "late")
		late[kind] = r
	}
	pub := login(t, p.edge, false, "pub")
	pub.publish("late", payload, 0, 0)
	pub.publish("late", payload, 0, 0)
	<-time.After(1200 * time.Millisecond) // longer than the step in which a stalled write is looked at
	for kind, r := range late {
		for range 2 {
			if _, body := r.packet(); string(body[6:]) != payload {
				t.Errorf("%s: the message came broken", kind)
			}
		}
	}
}

func TestHandshakesHaveADeadline(t *testing.T) { // X172, X016
	p := openPlaces(t, func(o *mqtt.Options) { o.ConnectTimeout = 300 * time.Millisecond })
	start := time.Now()
	for kind, first := range map[string]string{"tls": "\x16\x03\x01\x02\x00\x01", "ws": "GET /mqtt HTTP/1.1\r\nHost: x\r\n", "wss": ""} {
		c, err := net.Dial("tcp", p.listen[kind].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, first)
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !stopped(err) {
			t.Errorf("%s: got %x, %v", kind, b, err)
		}
		_ = c.Close()
	}
	if took := time.Since(start); took < 250*time.Millisecond || took > 20*time.Second {
		t.Errorf("closed after %v", took)
	}
	plain := p.dial(t, "tcp")
	tlsRaw, err := net.Dial("tcp", p.listen["tls"].String())
	if err != nil {
		t.Fatal(err)
	}
	_ = plain.Close()
	_ = tlsRaw.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = tlsRaw.Write(connectPacket(false, "c", nil)) // MQTT on the TLS port
	if b, err := io.ReadAll(tlsRaw); bytes.HasPrefix(b, []byte{0x20}) || err != nil && !stopped(err) {
		t.Errorf("got %x, %v", b, err)
	}
	_ = tlsRaw.Close()
	eventually(t, "counted", func() bool { s := p.Stats(); return s.Refused["tls"] == 1 && s.Refused["timeout"] == 3 })
}

func TestClientCertificateIsTheUser(t *testing.T) { // X173, X174
	ca := certstest.NewCA(t, "authority")
	own := ca.Issue(t, certstest.Server("127.0.0.1"))
	e := open(t, func(o *mqtt.Options) {
		for _, need := range []tls.ClientAuthType{tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven} {
			o.Listeners = append(o.Listeners, mqtt.Listener{
				Address: "127.0.0.1:0", AllowAnonymous: true, Identity: certs.CommonName.Client,
				TLS: &tls.Config{Certificates: []tls.Certificate{*own.TLS()}, ClientCAs: ca.Pool(), ClientAuth: need},
			})
		}
	})
	for _, name := range []string{"pump7", "ann"} {
		if err := e.auth.AddUser(system(), auth.UserSpec{Username: name, Password: "long enough 1"}); err != nil {
			t.Fatal(err)
		}
	}
	e.rules(t, auth.Rule{Effect: "allow", Who: "user:pump7", Do: []string{"subscribe"}, Filter: "pump/%u"})
	for _, row := range []struct {
		cn, user, password string
		listener           int
		want               byte
	}{
		{"pump7", "", "", 2, 0},
		{"pump7", "pump7", "", 2, 0},
		{"pump7", "pump7", "wrong", 2, 0}, // nobody asks for it
		{"pump7", "ann", "long enough 1", 2, 0x87},
		{"nobody", "", "", 2, 0x86},
		{"nobody", "ann", "long enough 1", 2, 0x87},
		{"pump7", "ann", "long enough 1", 3, 0x87},
		{"", "ann", "long enough 1", 3, 0},
		{"", "ann", "wrong password", 3, 0x86},
		{"", "", "", 3, 0},
	} {
		conf := &tls.Config{RootCAs: ca.Pool()}
		if row.cn != "" {
			conf.Certificates = []tls.Certificate{*ca.Issue(t, certstest.Client(row.cn)).TLS()}
		}
		c, err := tls.Dial("tcp", e.Addrs()[row.listener].String(), conf)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		r := &raw{Conn: c, t: t, br: bufio.NewReader(c), v5: true}
		b := connectPacket(true, "c", nil)[2:]
		if row.user != "" {
			b[7] |= 0xC0
			b = str(str(b, row.user), row.password)
		}
		r.send(packet(0x10, b))
		if head, body := r.packet(); head != 0x20 || body[1] != row.want {
			t.Errorf("%+v: CONNACK %x", row, body)
		} else if row.cn == "pump7" && row.want == 0 {
			r.send(r.subscribePacket(1, 0, nil, "pump/pump7", "other"))
			r.want("90 05 00 01 00 00 87")
		}
		_ = c.Close()
	}
}

func TestNoCertificateNoLogin(t *testing.T) { // X173
	ca := certstest.NewCA(t, "authority")
	own := ca.Issue(t, certstest.Server("127.0.0.1"))
	e := open(t, func(o *mqtt.Options) {
		o.Listeners = []mqtt.Listener{{
			Address: "127.0.0.1:0", AllowAnonymous: true, Identity: certs.CommonName.Client,
			TLS: &tls.Config{Certificates: []tls.Certificate{*own.TLS()}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
		}}
	})
	foreign := certstest.NewCA(t, "foreign").Issue(t, certstest.Client("pump7"))
	for _, chain := range [][]tls.Certificate{nil, {*foreign.TLS()}} {
		c, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{RootCAs: ca.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if chain == nil {
				return &tls.Certificate{}, nil
			}
			return &chain[0], nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write(connectPacket(true, "c", nil))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("got %x", b)
		}
		_ = c.Close()
	}
	eventually(t, "counted", func() bool { return e.Stats().Refused["tls"] == 2 })
}

func TestHTTPAtTheWrongPlace(t *testing.T) {
	p := openPlaces(t)
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.Leaf)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	for url, want := range map[string]int{
		"http://" + p.listen["ws"].String() + "/mqtt":     http.StatusUpgradeRequired,
		"https://" + p.listen["wss"].String() + "/mqtt":   http.StatusUpgradeRequired,
		"http://" + p.listen["http"].String() + "/mqtt":   http.StatusUpgradeRequired,
		"https://" + p.listen["https"].String() + "/mqtt": http.StatusUpgradeRequired,
	} {
		res, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != want || !strings.Contains(string(text), "MQTT client") {
			t.Errorf("%s: %d %s", url, res.StatusCode, text)
		}
	}
}
