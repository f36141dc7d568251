package mqtt

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 wants it; nothing depends on its strength
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxUpgrade bounds the request that asks for WebSocket.
const maxUpgrade = 16 << 10

// subProtocols are those of MQTT over WebSocket, MQTT 5 section 6 and 3.1.
var subProtocols = []string{"mqtt", "mqttv3.1"}

// refusal answers a request that does not become a WebSocket.
type refusal struct {
	status int
	text   string
}

// judge looks at a request for WebSocket, RFC 6455 section 4.2.1, and returns
// the answer that switches protocols, or why there is none.
func judge(r *http.Request, origins []string) (answer string, no *refusal) {
	key := r.Header.Get("Sec-WebSocket-Key")
	raw, err := base64.StdEncoding.DecodeString(key)
	protocol := ""
	for _, p := range tokens(r.Header, "Sec-WebSocket-Protocol") {
		if slices.Contains(subProtocols, p) {
			protocol = p
			break
		}
	}
	switch {
	case r.Method != http.MethodGet:
		return "", &refusal{http.StatusMethodNotAllowed, "MQTT over WebSocket begins with GET"}
	case !slices.ContainsFunc(tokens(r.Header, "Upgrade"), func(s string) bool { return strings.EqualFold(s, "websocket") }),
		!slices.ContainsFunc(tokens(r.Header, "Connection"), func(s string) bool { return strings.EqualFold(s, "upgrade") }):
		return "", &refusal{http.StatusUpgradeRequired, "this is MQTT over WebSocket: connect with an MQTT client"}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return "", &refusal{http.StatusUpgradeRequired, "WebSocket version 13 is the only one"}
	case err != nil || len(raw) != 16:
		return "", &refusal{http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64"}
	case protocol == "":
		return "", &refusal{http.StatusBadRequest, "Sec-WebSocket-Protocol must offer mqtt or mqttv3.1"}
	case !ownOrigin(r, origins):
		return "", &refusal{http.StatusForbidden, "pages of this origin may not connect; http.allowed_origins lists those that may"}
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see above
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" +
		"Sec-WebSocket-Protocol: " + protocol + "\r\n\r\n", nil
}

// tokens splits a header that is a list.
func tokens(h http.Header, name string) []string {
	var all []string
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			all = append(all, strings.TrimSpace(t))
		}
	}
	return all
}

// ownOrigin lets through what no browser sent for a page, pages of our own
// host, and those of origins.
func ownOrigin(r *http.Request, origins []string) bool {
	v := r.Header.Values("Origin")
	if len(v) == 0 {
		return true
	}
	if len(v) > 1 {
		return false
	}
	u, err := url.Parse(v[0])
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) || slices.Contains(origins, v[0])
}

// upgrade takes the request of a client of a listener that is WebSocket alone.
func (c *conn) upgrade(o *Listener) error {
	var sock io.ReadWriter = c.Conn
	if c.via.tls != nil {
		sock = c.via.tls
	}
	br := bufio.NewReader(&io.LimitedReader{R: sock, N: maxUpgrade})
	r, err := http.ReadRequest(br)
	if err != nil {
		return c.handshakeFailed("WebSocket", closeUpgrade, err)
	}
	answer, no := judge(r, o.Origins)
	if no == nil && r.URL.Path != "/" && r.URL.Path != "/mqtt" {
		no = &refusal{http.StatusNotFound, "MQTT is at /mqtt"}
	}
	if no != nil {
		_, err := fmt.Fprintf(sock, "HTTP/1.1 %d %s\r\nSec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
			no.status, http.StatusText(no.status), len(no.text)+1, no.text)
		if err != nil {
			return err
		}
		return &faultError{success, "WebSocket refused: " + no.text, closeUpgrade}
	}
	c.via.pre, _ = br.Peek(br.Buffered()) // there they are
	return c.switched(sock, answer)
}

// switched sends the answer; frames follow.
func (c *conn) switched(sock io.Writer, answer string) error {
	if _, err := io.WriteString(sock, answer); err != nil {
		return err
	}
	c.via.ws = &webSocket{most: uint64(c.srv.o.MaxPacket)}
	return nil
}

// WebSocket returns a handler for an HTTP server that takes requests at one
// path and makes MQTT connections of them. Of o, AllowAnonymous, Identity and
// Origins count. Under TLS the server's listener must be one that Sockets has
// wrapped; otherwise a client that reads slowly is cut off early.
func (s *Server) WebSocket(o Listener) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, no := judge(r, o.Origins)
		if no != nil {
			w.Header().Set("Sec-WebSocket-Version", "13")
			http.Error(w, no.text, no.status)
			return
		}
		if !s.pace.try(time.Now()) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many connections at once; come back in a second", http.StatusServiceUnavailable)
			return
		}
		sock, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "WebSocket needs HTTP/1.1", http.StatusNotImplemented)
			return
		}
		var pre []byte
		if n := buf.Reader.Buffered(); n > 0 {
			pre, _ = buf.Peek(n) // there they are
		}
		s.adopt(sock, &o, answer, pre) //nolint:contextcheck // the connection outlives the request
	})
}

// adopt admits a connection that an HTTP server gave away.
func (s *Server) adopt(sock net.Conn, o *Listener, answer string, pre []byte) {
	var low *lower
	over, _ := sock.(*tls.Conn)
	if over != nil {
		low, _ = over.NetConn().(*lower)
	}
	if low != nil {
		sock = low.Conn
	}
	s.admit(sock, o, func(c *conn) error {
		c.via.pre = pre
		if err := c.arm(); err != nil {
			return err
		}
		if over != nil {
			if f := c.certified(o, over.ConnectionState()); f != nil {
				return f
			}
		}
		var w io.Writer = c.Conn
		if low != nil {
			low.c, c.via.tls, w = c, over, over
		}
		err := c.switched(w, answer)
		c.via.ready = true
		return err
	})
}

// Sockets wraps a listener of an HTTP server with TLS, so that connections that
// it gives to WebSocket cost as little as those of our own listeners.
func Sockets(l net.Listener) net.Listener { return sockets{l} }

type sockets struct{ net.Listener }

func (l sockets) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lower{Conn: c}, nil
}
