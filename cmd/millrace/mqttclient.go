package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
)

// mqttFlags are those that pub and sub share. Their letters and meanings are
// mosquitto's, so that habits and scripts keep working.
type mqttFlags struct {
	host, user, password, id string
	port, qos, keepAlive     int
}

func (f *mqttFlags) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.host, "host", "h", "127.0.0.1", "broker")
	c.Flags().IntVarP(&f.port, "port", "p", 1883, "its port")
	c.Flags().StringVarP(&f.user, "username", "u", "", "user, or id of an API key")
	c.Flags().StringVarP(&f.password, "pw", "P", "", "password, or secret of the key (other users of this machine can see it)")
	c.Flags().StringVarP(&f.id, "id", "i", "", "client id")
	c.Flags().IntVarP(&f.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	c.Flags().IntVarP(&f.keepAlive, "keepalive", "k", 60, "seconds between signs of life")
	c.Flags().Bool("help", false, "help for "+c.Name())
}

func (f *mqttFlags) check() error {
	if f.qos < 0 || f.qos > 2 {
		return usage("-q %d: quality of service is 0, 1 or 2", f.qos)
	}
	if f.port < 1 || f.port > 65535 {
		return usage("-p %d: a port is 1 to 65535", f.port)
	}
	if f.keepAlive < 0 || f.keepAlive > 65535 {
		return usage("-k %d: a keep-alive is 0 to 65535 seconds", f.keepAlive)
	}
	return nil
}

func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// mqttSession is a connection of a client command.
type mqttSession struct {
	*paho.Client
	lost chan error // why the connection ended, once
}

// connect logs in. on gets every message, and acknowledges it itself.
func (f *mqttFlags) connect(ctx context.Context, on func(*paho.Client, *paho.Publish)) (*mqttSession, error) {
	addr := net.JoinHostPort(f.host, strconv.Itoa(f.port))
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("cannot connect to MQTT at %s: %w", addr, err), hint: "start the broker with millrace serve, or name it with -h and -p"}
	}
	s := &mqttSession{lost: make(chan error, 1)}
	end := func(err error) {
		select {
		case s.lost <- err:
		default:
		}
	}
	s.Client = paho.NewClient(paho.ClientConfig{
		Conn:                       conn,
		EnableManualAcknowledgment: true,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			if on != nil {
				on(r.Client, r.Packet)
			}
			return true, nil
		}},
		OnClientError: end,
		OnServerDisconnect: func(d *paho.Disconnect) {
			end(fmt.Errorf("the broker closed the connection: %s", reasonOf(d.ReasonCode, d.Properties)))
		},
	})
	id := f.id
	if id == "" {
		id = fmt.Sprintf("millrace-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffff)
	}
	ack, err := s.Connect(ctx, &paho.Connect{
		ClientID: id, CleanStart: true, KeepAlive: uint16(f.keepAlive),
		Username: f.user, UsernameFlag: f.user != "", Password: []byte(f.password), PasswordFlag: f.password != "",
	})
	if err != nil {
		_ = conn.Close() // the refusal is what matters
		return nil, refusedLogin(addr, ack, err)
	}
	return s, nil
}

func refusedLogin(addr string, ack *paho.Connack, err error) error {
	if ack == nil || ack.ReasonCode < 0x80 {
		return &failure{code: exitUnreachable, err: fmt.Errorf("no MQTT login at %s: %w", addr, err)}
	}
	text := (&packets.Connack{ReasonCode: ack.ReasonCode}).Reason()
	if ack.Properties != nil && ack.Properties.ReasonString != "" {
		text = ack.Properties.ReasonString
	}
	f := &failure{code: exitFailed, err: fmt.Errorf("%s refused the login: %s (0x%02X)", addr, oneLine(text), ack.ReasonCode)}
	switch ack.ReasonCode {
	case packets.ConnackBadUsernameOrPassword, packets.ConnackNotAuthorized:
		f.code, f.hint = exitNotAllowed, "give -u and -P: a user, or the id and secret of an API key"
	}
	return f
}

func reasonOf(code byte, p *paho.DisconnectProperties) string {
	if p != nil && p.ReasonString != "" {
		return fmt.Sprintf("%s (0x%02X)", p.ReasonString, code)
	}
	return fmt.Sprintf("%s (0x%02X)", oneLine((&packets.Disconnect{ReasonCode: code}).Reason()), code)
}

// leave says goodbye and waits for nothing more.
func (s *mqttSession) leave() error {
	if err := s.Disconnect(&paho.Disconnect{}); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}
