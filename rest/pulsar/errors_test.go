package pulsar_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/pulsar"
)

func TestEveryKindHasARowInTheErrorTable(t *testing.T) {
	codes := pulsar.Codes()
	for _, k := range broker.Kinds() {
		if _, ok := pulsar.ByKind[k]; !ok {
			t.Errorf("kind %d has no row", k)
		}
		for _, s := range []broker.Subject{
			broker.NoSubject, broker.TopicSubject, broker.FilterSubject, broker.QueueSubject, broker.StreamSubject, broker.PartitionSubject,
			broker.MessageSubject, broker.ReceiptSubject, broker.OffsetSubject, broker.PayloadSubject, broker.FieldSubject,
		} {
			err := fmt.Errorf("wrapped: %w", &broker.Error{Kind: k, Subject: s, Message: "m"})
			if code, message := pulsar.Classify(err); !codes[code] || message == "" {
				t.Errorf("kind %d, subject %q: %d %s", k, s, code, message)
			}
			if code, message := pulsar.ClassifyOne(err); code != 1 && code != 2 || message == "" {
				t.Errorf("kind %d, subject %q: %d %s", k, s, code, message)
			}
		}
	}
}

func TestOneMessageFailsForGoodOrForNow(t *testing.T) {
	for kind, want := range map[broker.Kind]int{
		broker.Invalid: 1, broker.Forbidden: 1, broker.TooLarge: 1, broker.Conflict: 1,
		broker.Full: 2, broker.Unavailable: 2, broker.Unknown: 2, broker.Internal: 2,
	} {
		if code, _ := pulsar.ClassifyOne(&broker.Error{Kind: kind, Message: "m"}); code != want {
			t.Errorf("kind %d: code %d, want %d", kind, code, want)
		}
	}
}

func TestOurOwnFaultsAreNotTold(t *testing.T) {
	for _, err := range []error{errors.New("hunter2"), &broker.Error{Kind: broker.Internal, Message: "hunter2"}} {
		if code, message := pulsar.Classify(err); code != 50001 || strings.Contains(message, "hunter2") {
			t.Errorf("got %d %s", code, message)
		}
		if code, message := pulsar.ClassifyOne(err); code != 2 || strings.Contains(message, "hunter2") {
			t.Errorf("got %d %s", code, message)
		}
	}
}
