package mqtt_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/scenario"
)

// mqttDoor plays steps over MQTT as far as it has words for them: publish,
// receive, ack, and nack with the queue's back-off. The rest goes to the core.
type mqttDoor struct {
	scenario.Core
	core bool // the script needs receipts, which MQTT has not
	t    *testing.T
	e    *edge
	pub  *raw
	id   uint16
	held map[string]delivery // by queue and text
}

// delivery is a message in the hands of a client.
type delivery struct {
	of *raw
	m  message
}

func (d *mqttDoor) Restart() error { return fmt.Errorf("no scenario restarts through this door") }
func (d *mqttDoor) Settle()        { synctest.Wait() }

func (d *mqttDoor) Do(s *scenario.Step) (string, error) {
	switch s.Verb {
	case "queue", "set":
		word, err := d.Core.Do(s)
		if err == nil && word == "ok" {
			// The texts speak of leases that end, whoever holds them.
			_, err = d.Broker.UpdateQueue(d.Ctx, s.Args[0], func(q *broker.QueueConfig) error {
				q.MQTTLease = q.Lease
				return nil
			})
		}
		return word, err
	case "publish":
		if s.Options["key"] == "" && s.Options["once"] == "" {
			return d.publish(s)
		}
	case "receive":
		if !d.core && s.Options["lease"] == "" && s.Options["wait"] == "" {
			return d.receive(s)
		}
	case "ack", "nack":
		if h, ok := d.held[s.Args[0]+" "+s.Args[1]]; ok {
			return d.settle(s, h)
		}
	}
	return d.Core.Do(s)
}

// publish answers what PUBACK says.
func (d *mqttDoor) publish(s *scenario.Step) (string, error) {
	topic, text := s.Args[0], strings.Join(s.Args[1:], " ")
	var props []byte
	if v := s.Options["delay"]; v != "" {
		topic = fmt.Sprintf("$delayed/%s/%s", strings.TrimSuffix(v, "s"), topic)
	}
	if v := s.Options["expires"]; v != "" {
		n, err := time.ParseDuration(v)
		if err != nil {
			return "", err
		}
		props = []byte{2, 0, 0, byte(n / time.Second >> 8), byte(n / time.Second)}
	}
	d.id++
	b := d.pub.publishPacket(topic, text, 1, d.id, props...)
	if s.Options["retain"] == "true" {
		b[0] |= 1
	}
	d.pub.send(b)
	_, body := d.pub.packet()
	switch {
	case len(body) == 2 || body[2] < 0x80:
		return "ok", nil
	case body[2] == 0x97:
		return "full", nil
	case body[2] == 0x90:
		return "invalid", nil
	}
	return "", fmt.Errorf("PUBACK is %x", body)
}

// receive takes what is there, each message over a connection of its own, so
// that one can be given back by its end.
func (d *mqttDoor) receive(s *scenario.Step) (string, error) {
	most, err := strconv.Atoi(s.Option("max", "10"))
	if err != nil {
		return "", err
	}
	queue := s.Args[0]
	var seen []string
	for len(seen) < most {
		r := pipeIn(d.t, d.e, true, "", 0x21, 0, 1)
		if code := r.subscribe(1, 1, "$q/"+queue); code[0] == 0x83 {
			return "unknown", nil
		}
		synctest.Wait()
		r.send(packet(0xA2, str([]byte{0, 2, 0}, "$q/"+queue)))
		head, b := r.packet()
		if head == 0xB0 {
			break
		}
		m := r.parse(head, b)
		if head, b = r.packet(); head != 0xB0 {
			return "", fmt.Errorf("got %x %x, want UNSUBACK", head, b)
		}
		props := m.props
		if len(props) > 0 && props[0] == 2 { // an expiry
			props = props[5:]
		}
		attempt := users(props)["delivery-count"]
		seen = append(seen, fmt.Sprintf("%s (attempt %s)", m.payload, attempt))
		key := queue + " " + m.payload
		d.held[key], d.held[key+"@"+attempt] = delivery{r, m}, delivery{r, m}
	}
	return scenario.List(seen), nil
}

// settle sends a PUBACK, or ends the connection for a message that is to be
// ready at once. A PUBACK has no answer: "gone", "stale" and "unknown" mean
// that nothing changes.
func (d *mqttDoor) settle(s *scenario.Step, h delivery) (string, error) {
	before, _ := d.look(s.Args[0])
	switch {
	case s.Verb == "ack":
		h.of.ackFor(h.m)
		h.of.ping()
	case s.Options["delay"] == "0s":
		_ = h.of.Close()
	default:
		h.of.nackFor(h.m, 0x80)
		h.of.ping()
	}
	synctest.Wait()
	after, err := d.look(s.Args[0])
	switch {
	case err != nil:
		return "", err
	case s.Verb == "nack":
		return "ok", nil
	case before != after:
		return "removed", nil
	case s.Want == "removed" || s.Want == "":
		return "unchanged", nil
	}
	return s.Want, nil
}

func (d *mqttDoor) look(queue string) (string, error) {
	return d.Core.Do(&scenario.Step{Verb: "counts", Args: []string{queue}})
}

func TestScenariosOverMQTT(t *testing.T) {
	scripts, err := scenario.Load("../testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	over := 0
	for _, s := range scripts {
		if overJetStream {
			s.Shorten(24 * time.Hour) // a server that is at work costs something for every hour
		}
		t.Run(s.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *edge) {
				d := &mqttDoor{t: t, e: e, held: map[string]delivery{}, pub: pipeIn(t, e, true, "pub")}
				d.Broker, d.Ctx = e.broker, system()
				for i := range s.Steps {
					step := &s.Steps[i]
					d.core = d.core || step.Verb == "extend" || step.Verb == "nack" && step.Options["delay"] != "" && step.Options["delay"] != "0s"
				}
				if err := scenario.Play(s, d, scenario.NoRestart); err != nil {
					t.Error(err)
				}
				if len(d.held) > 0 {
					over++
				}
			})
		})
	}
	t.Logf("%d of %d scenarios received over MQTT", over, len(scripts))
}
