package scenario

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
)

// apply sets what a step says about a queue, by the names of /api/v1.
func apply(q *broker.QueueConfig, options map[string]string) error {
	for name, v := range options {
		n, _ := strconv.Atoi(v)
		seconds := time.Duration(n) * time.Second
		switch name {
		case "filter":
			q.Filter = v
		case "driver":
			q.Driver = broker.Driver(v)
		case "overflow":
			q.Overflow = broker.Overflow(v)
		case "max_messages":
			q.MaxMessages = int64(n)
		case "max_size_mb":
			q.MaxBytes = int64(n) << 20
		case "message_ttl_seconds":
			q.TTL = seconds
		case "max_retries":
			q.MaxRetries = n
			if v == "null" {
				q.MaxRetries = broker.Unlimited
			}
		case "dead_letter_topic":
			q.DeadLetterTopic = v
		case "visibility_timeout_seconds":
			q.Lease = seconds
		case "delay_seconds":
			q.Delay = seconds
		case "backoff":
			least, most, _ := strings.Cut(v, "..")
			var err error
			if q.BackoffMin, err = time.ParseDuration(least); err != nil {
				return err
			}
			if q.BackoffMax, err = time.ParseDuration(most); err != nil {
				return err
			}
		case "on_exhausted":
			q.DropExhausted = v == "drop"
		case "on_expired":
			q.LapseExpired = v == "dead-letter"
		case "dead_retention_seconds":
			q.DeadRetention = seconds
		case "max_in_flight":
			q.MaxInFlight = n
		case "fifo_groups":
			q.FIFOGroups = v == "true"
		default:
			return fmt.Errorf("unknown setting %q", name)
		}
	}
	return nil
}

// Receipts remembers the receipts that a door was given, by queue, text and attempt.
type Receipts map[string]Receipt

// Receipt is what settles a delivery.
type Receipt struct{ ID, Receipt string }

// Keep remembers a receipt, also as the newest of its text.
func (r *Receipts) Keep(queue, text string, attempt int, id, receipt string) {
	if *r == nil {
		*r = make(Receipts)
	}
	(*r)[queue+" "+text] = Receipt{id, receipt}
	(*r)[fmt.Sprintf("%s %s@%d", queue, text, attempt)] = Receipt{id, receipt}
}

// Find returns the receipt of TEXT (the newest) or TEXT@ATTEMPT.
func (r Receipts) Find(queue, text string) (Receipt, error) {
	if got, ok := r[queue+" "+text]; ok {
		return got, nil
	}
	return Receipt{}, fmt.Errorf("no receipt for %s of queue %s was seen", text, queue)
}

// List joins what was seen.
func List(seen []string) string {
	if len(seen) == 0 {
		return "nothing"
	}
	return strings.Join(seen, ", ")
}
