package mqtt_test

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

// TestRefusedLoginsAreToldOfOnceASecond, however many there are of one address,
// and counted.
func TestRefusedLoginsAreToldOfOnceASecond(t *testing.T) { // D31
	bubble(t, func(t *testing.T, e *edge) {
		refused := func() {
			c, s := net.Pipe()
			e.ServeAs(s, mqtt.Listener{}) // nobody is anonymous
			r := &raw{Conn: c, t: t, br: bufio.NewReader(c)}
			r.send(connectPacket(false, "stranger", nil))
			if head, body := r.packet(); head != 0x20 || body[1] == 0 {
				t.Errorf("CONNACK is %x %x", head, body)
			}
			_ = c.Close()
		}
		lines := func() int { return strings.Count(e.log.String(), "login refused") }
		for range 20 {
			refused()
		}
		if n := lines(); n != 1 {
			t.Errorf("%d lines about twenty in one second", n)
		}
		<-time.After(time.Second)
		refused()
		if n := lines(); n != 2 || !strings.Contains(e.log.String(), `"others":19`) {
			t.Errorf("%d lines after the next second: %s", n, e.log)
		}
	})
}
