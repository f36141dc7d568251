package auth

// Action is what a principal wants to do.
type Action uint8

const (
	// Publish sends to a topic, or directly to a queue or stream.
	Publish Action = iota
	// Subscribe receives what is published to the topics of a filter; it is
	// asked once with the filter and again with the topic of each delivery.
	Subscribe
	// Consume takes messages out of a queue, or reads a stream.
	Consume
	// View looks at definitions, figures and lists and changes nothing.
	View
	// Manage makes, changes, empties and deletes.
	Manage
)

var actionNames = [...]string{"publish", "subscribe", "consume", "view", "manage"}

// String is the action's name in rules.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// actions is a set of Action.
type actions uint8

const allActions actions = 1<<len(actionNames) - 1

func (a Action) bit() actions          { return 1 << a }
func (as actions) has(act Action) bool { return as&act.bit() != 0 }

// ResourceKind says what a Resource is.
type ResourceKind uint8

const (
	// Topic is a topic or, for Subscribe, View and Manage, a topic filter.
	Topic ResourceKind = iota
	// Queue is a queue by name.
	Queue
	// Stream is a stream by name.
	Stream
	// WholeServer is what belongs to no topic, queue or stream: users, keys,
	// rules, clients, configuration, the lists themselves.
	WholeServer
)

// Resource is what an action is about.
type Resource struct {
	Kind ResourceKind
	Name string
}

// Server is the broker as a whole.
var Server = Resource{Kind: WholeServer}

// TopicResource is the topic or topic filter name.
func TopicResource(name string) Resource { return Resource{Kind: Topic, Name: name} }

// QueueResource is the queue name.
func QueueResource(name string) Resource { return Resource{Kind: Queue, Name: name} }

// StreamResource is the stream name.
func StreamResource(name string) Resource { return Resource{Kind: Stream, Name: name} }

// String names the resource for people: "topic a/b", "queue work", "the server".
func (r Resource) String() string {
	switch r.Kind {
	case Topic:
		return "topic " + r.Name
	case Queue:
		return "queue " + r.Name
	case Stream:
		return "stream " + r.Name
	default:
		return "the server"
	}
}
