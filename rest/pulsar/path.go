package pulsar

import (
	"math"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

const topicPath = "/{tenant}/{namespace}/{topic}"

// place is what a path names.
type place struct {
	stream       string // the name of the stream that is the topic
	topic        string // what its messages are published to
	partition    int    // or broker.AnyPartition
	subscription string
	consumer     string
}

// parsePath reads the path behind /topics, as it was sent, if it has the shape
// of an endpoint; else it returns nil. The topic is TENANT/NAMESPACE/TOPIC, as
// the proposal writes it, or persistent/TENANT/NAMESPACE/TOPIC or with
// non-persistent, as Pulsar's server does.
func parsePath(rest, shape string) (*place, error) {
	words := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	if domain := words[0]; domain == "persistent" || domain == "non-persistent" {
		if at, err := matchPath(words[1:], shape); at != nil || err != nil {
			return at, err
		}
	}
	return matchPath(words, shape)
}

func matchPath(words []string, shape string) (*place, error) {
	wanted := strings.Split(shape, "/")[1:]
	if shape == "" {
		wanted = nil
	}
	const name = 3 // words of a topic's
	if len(words) != name+len(wanted) {
		return nil, nil
	}
	for i, word := range wanted {
		if word[0] != '{' && !spelled(words[name+i], word) {
			return nil, nil
		}
	}
	values := make([]string, len(words))
	for i, word := range words {
		var err error
		if values[i], err = httpx.Unescape(word); err != nil {
			return nil, err
		}
	}
	at := &place{partition: broker.AnyPartition}
	for i, word := range wanted {
		switch value := values[name+i]; word {
		case "{partition}":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return nil, &codeError{noPartition, "there is no partition " + strconv.Quote(value) + ": partitions are numbered from 0"}
			}
			at.partition = int(min(n, math.MaxInt32))
		case "{subscription}":
			at.subscription = value
		case "{consumer}":
			at.consumer = value
		}
	}
	return at, at.setTopic(values[0], values[1], values[2])
}

// spelled reports whether a word of a path is the one wanted: the page writes
// consumer in some places and consumers in others.
func spelled(word, wanted string) bool {
	return word == wanted || strings.TrimSuffix(word, "s") == strings.TrimSuffix(wanted, "s") && strings.HasPrefix(wanted, "consumer")
}

// setTopic says which stream a topic of Pulsar is, and under which topic its
// messages are published: those of public/default have their names from MQTT.
func (at *place) setTopic(tenant, namespace, topic string) error {
	for _, part := range [...]string{tenant, namespace} {
		if part == "" || strings.Contains(part, "/") {
			return &codeError{badTopic, strconv.Quote(part) + " is not the name of a tenant or a namespace: one character or more, and no slash"}
		}
	}
	if topic == "" {
		return &codeError{badTopic, "the name of the topic is empty"}
	}
	at.stream = tenant + "/" + namespace + "/" + topic
	at.topic = at.stream
	if tenant == "public" && namespace == "default" {
		at.topic = topic
	}
	return nil
}
