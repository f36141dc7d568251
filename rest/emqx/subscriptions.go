package emqx

import (
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/clients"
	"millrace/rest/internal/httpx"
	"millrace/router"
)

type subscriptionView struct {
	Node     string `json:"node"`
	ClientID string `json:"clientid"`
	Topic    string `json:"topic"`
	QoS      byte   `json:"qos"`
	NoLocal  int    `json:"nl"`
	RAP      int    `json:"rap"`
	RH       byte   `json:"rh"`
	Durable  bool   `json:"durable"`
}

func (a *api) viewSubscription(s *clients.Subscription) subscriptionView {
	return subscriptionView{
		Node: a.options.Node, ClientID: s.ClientID, Topic: s.Filter, QoS: s.QoS,
		NoLocal: number(s.NoLocal), RAP: number(s.RetainAsPublished), RH: s.RetainHandling, Durable: s.Durable,
	}
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (a *api) listSubscriptions(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	q, err := a.readSubscriptionQuery(r)
	if err != nil {
		return err
	}
	found := a.clients.Subscriptions(&q, clients.Page{Skip: p.skip(), Limit: p.limit})
	l := list[subscriptionView]{make([]subscriptionView, len(found.Items)), p.meta(found.Count, found.More)}
	for i := range found.Items {
		l.Data[i] = a.viewSubscription(&found.Items[i])
	}
	return answer(w, r, l)
}

func (a *api) readSubscriptionQuery(r *httpx.Request) (q clients.SubscriptionQuery, err error) {
	if err := a.checkNode(r); err != nil {
		return q, err
	}
	for name, v := range map[string]*string{"clientid": &q.ClientID, "topic": &q.Filter, "match_topic": &q.Matches, "share_group": &q.Group} {
		if *v, err = r.Query(name); err != nil {
			return q, badQuery(err)
		}
	}
	if strings.HasPrefix(q.Matches, "$share/") {
		return q, problemf(http.StatusBadRequest, invalidParameter, "match_topic is a topic, without $share/GROUP/")
	}
	if s := (clients.Subscription{Filter: q.Filter}); strings.HasPrefix(q.Filter, "$share/") {
		q.Group, q.Filter = s.Shared()
	}
	qos, err := r.QueryInt("qos", -1, 0, 2)
	if err != nil {
		return q, badQuery(err)
	}
	if level := byte(qos); qos >= 0 {
		q.QoS = &level
	}
	durable, asked, err := queryBool(r, "durable")
	if asked {
		q.Durable = &durable
	}
	return q, err
}

// readSubscription reads a body {"topic", "qos", "nl", "rap", "rh"}.
func (a *api) readSubscription(d *httpx.Decoder) (s clients.Subscription, err error) {
	var noLocal, rap byte
	err = fields{
		"topic": text(&s.Filter), "qos": whole(&s.QoS, 0, 2), "nl": whole(&noLocal, 0, 1),
		"rap": whole(&rap, 0, 1), "rh": whole(&s.RetainHandling, 0, 2),
	}.read(d)
	s.NoLocal, s.RetainAsPublished = noLocal == 1, rap == 1
	switch {
	case err != nil:
	case s.Filter == "":
		err = bad("topic is needed")
	case a.broker.CheckFilter(s.Filter) != nil:
		err = problemf(http.StatusBadRequest, badTopic, "%q is no topic filter", httpx.Clip(s.Filter))
	case s.NoLocal && router.SpaceOf(s.Filter) == router.SpaceShare:
		err = problemf(http.StatusBadRequest, invalidParameter, "a shared subscription has no nl: its messages go to one of the group")
	}
	return s, err
}

// subscribed is the answer to a subscription that was made.
type subscribed struct {
	Node     string `json:"node"`
	ClientID string `json:"clientid"`
	Topic    string `json:"topic"`
	QoS      byte   `json:"qos"`
	NoLocal  int    `json:"nl"`
	RAP      int    `json:"rap"`
	RH       byte   `json:"rh"`
}

// subscribeOn subscribes c, with what c may do: a subscription made for a
// client gives it nothing that its rules deny.
func (a *api) subscribeOn(c *clients.Client, s clients.Subscription) (subscribed, error) {
	s.ClientID = c.Facts.ID
	if err := c.Subscribe(s); err != nil {
		if broker.KindOf(err) == broker.NotFound {
			return subscribed{}, missing(topicNotFound, "%s", classify(err).text)
		}
		return subscribed{}, offline(err)
	}
	v := a.viewSubscription(&s)
	return subscribed{v.Node, v.ClientID, v.Topic, v.QoS, v.NoLocal, v.RAP, v.RH}, nil
}

func (a *api) subscribe(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	var s clients.Subscription
	if err := readBody(r, maxBody, func(d *httpx.Decoder) (err error) { s, err = a.readSubscription(d); return err }); err != nil {
		return err
	}
	made, err := a.subscribeOn(c, s)
	if err != nil {
		return err
	}
	return answer(w, r, made)
}

// notSubscribed is one that could not be made, with the reason.
type notSubscribed struct {
	Data   subscribed `json:"data"`
	Reason string     `json:"reason"`
}

// subscribeMany answers the list of what was made; with failures an object
// that holds both.
func (a *api) subscribeMany(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	var all []clients.Subscription
	err = readBody(r, maxBody, func(d *httpx.Decoder) error {
		return d.Array(func(int) error {
			s, err := a.readSubscription(d)
			all = append(all, s)
			return err
		})
	})
	if err != nil {
		return err
	}
	succeed, failed := []subscribed{}, []notSubscribed{}
	for _, s := range all {
		made, err := a.subscribeOn(c, s)
		if err != nil {
			failed = append(failed, notSubscribed{subscribed{Topic: s.Filter, QoS: s.QoS, Node: a.options.Node, ClientID: c.Facts.ID}, classify(err).text})
			continue
		}
		succeed = append(succeed, made)
	}
	if len(failed) == 0 {
		return answer(w, r, succeed)
	}
	return answer(w, r, struct {
		Succeed []subscribed    `json:"succeed"`
		Failed  []notSubscribed `json:"failed"`
	}{succeed, failed})
}

func readTopic(d *httpx.Decoder) (topic string, err error) {
	if err = (fields{"topic": text(&topic)}).read(d); err == nil && topic == "" {
		err = bad("topic is needed")
	}
	return topic, err
}

// unsubscribe ends a subscription; one that is not there is ended already.
func (a *api) unsubscribe(w http.ResponseWriter, r *httpx.Request) error {
	return a.unsubscribeAll(w, r, func(d *httpx.Decoder) ([]string, error) {
		topic, err := readTopic(d)
		return []string{topic}, err
	})
}

func (a *api) unsubscribeMany(w http.ResponseWriter, r *httpx.Request) error {
	return a.unsubscribeAll(w, r, func(d *httpx.Decoder) (topics []string, err error) {
		return topics, d.Array(func(int) error {
			topic, err := readTopic(d)
			topics = append(topics, topic)
			return err
		})
	})
}

func (a *api) unsubscribeAll(w http.ResponseWriter, r *httpx.Request, read func(*httpx.Decoder) ([]string, error)) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	var topics []string
	if err := readBody(r, maxBody, func(d *httpx.Decoder) (err error) { topics, err = read(d); return err }); err != nil {
		return err
	}
	for _, topic := range topics {
		c.Unsubscribe(topic)
	}
	return httpx.WriteNothing(w)
}

type topicView struct {
	Topic string `json:"topic"`
	Node  string `json:"node"`
}

// listTopics lists the filters that have subscribers; topics that were only
// published to are no routes.
func (a *api) listTopics(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	if err := a.checkNode(r); err != nil {
		return err
	}
	topic, err := r.Query("topic")
	if err != nil {
		return badQuery(err)
	}
	var found clients.Listed[string]
	switch {
	case topic == "":
		found = a.clients.Topics(clients.Page{Skip: p.skip(), Limit: p.limit})
	case a.clients.Subscribers(topic) > 0:
		found.Count = 1
		if p.number == 1 {
			found.Items = []string{topic}
		}
	}
	l := list[topicView]{[]topicView{}, p.meta(found.Count, found.More)}
	for _, f := range found.Items {
		l.Data = append(l.Data, topicView{f, a.options.Node})
	}
	return answer(w, r, l)
}

func (a *api) getTopic(w http.ResponseWriter, r *httpx.Request) error {
	topic := r.Param("topic")
	if a.clients.Subscribers(topic) == 0 {
		return missing(topicNotFound, "nobody subscribes to %q", httpx.Clip(topic))
	}
	return answer(w, r, []topicView{{topic, a.options.Node}})
}
