package pulsar

import (
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

// shape is the path of an endpoint behind the topic: words, of which those in
// braces are values.
type shape []string

func shapeOf(path string) shape {
	if path == "" {
		return nil
	}
	return strings.Split(path[1:], "/")
}

// place reads the words of a path behind /topics, as they were sent, if it has
// the shape; else it returns nil. The topic is TENANT/NAMESPACE/TOPIC, as the
// proposal writes it, or persistent/TENANT/NAMESPACE/TOPIC or with
// non-persistent, as Pulsar's server does.
func (s shape) place(words []string) (*place, error) {
	if words[0] == "persistent" || words[0] == "non-persistent" {
		if at, err := s.match(words[1:]); at != nil || err != nil {
			return at, err
		}
	}
	return s.match(words)
}

func (s shape) match(words []string) (*place, error) {
	const name = 3 // words of a topic's
	if len(words) != name+len(s) {
		return nil, nil
	}
	for i, word := range s {
		if word[0] != '{' && !spelled(words[name+i], word) {
			return nil, nil
		}
	}
	at := &place{partition: broker.AnyPartition}
	for i, word := range s {
		if word[0] != '{' {
			continue
		}
		value, err := httpx.Unescape(words[name+i])
		if err != nil {
			return nil, err
		}
		switch word {
		case "{partition}":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return nil, &codeError{noPartition, "there is no partition " + strconv.Quote(value) + ": partitions are numbered from 0"}
			}
			at.partition = int(n)
		case "{subscription}":
			at.subscription = value
		case "{consumer}":
			at.consumer = value
		}
	}
	var names [name]string
	for i := range names {
		var err error
		if names[i], err = httpx.Unescape(words[i]); err != nil {
			return nil, err
		}
	}
	return at, at.setTopic(names[0], names[1], names[2])
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
