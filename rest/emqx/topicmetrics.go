package emqx

import (
	"bytes"
	"fmt"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// topicMetricsView is a topic whose messages are counted apart.
type topicMetricsView struct {
	Topic      string           `json:"topic"`
	CreateTime *string          `json:"create_time"`
	ResetTime  *string          `json:"reset_time,omitempty"`
	Metrics    map[string]int64 `json:"metrics"`
}

func viewTopicMetrics(w *broker.WatchedTopic) topicMetricsView {
	v := topicMetricsView{w.Topic, timestamp(w.Created), timestamp(w.Reset), map[string]int64{}}
	for kind, c := range map[string]*broker.TopicCounts{".count": &w.Total, ".rate": &w.PerSecond} {
		v.Metrics["messages.in"+kind], v.Metrics["messages.out"+kind] = total(c.In), total(c.Out)
		v.Metrics["messages.dropped"+kind] = c.Dropped
		for qos := range c.In {
			v.Metrics[fmt.Sprintf("messages.qos%d.in%s", qos, kind)] = c.In[qos]
			v.Metrics[fmt.Sprintf("messages.qos%d.out%s", qos, kind)] = c.Out[qos]
		}
	}
	return v
}

func (v topicMetricsView) key() string { return v.Topic }

// sumTopics adds what nodes counted of one topic. It is the same topic on all, and
// counted since the last of them was reset.
func sumTopics(nodes []topicMetricsView) topicMetricsView {
	v := nodes[0]
	counts := make([]map[string]int64, len(nodes))
	for i, n := range nodes {
		counts[i] = n.Metrics
		if v.ResetTime == nil || n.ResetTime != nil && *n.ResetTime > *v.ResetTime {
			v.ResetTime = n.ResetTime
		}
	}
	v.Metrics = sum(counts)
	return v
}

func (a *api) listTopicMetrics(w http.ResponseWriter, r *httpx.Request) error {
	views := []topicMetricsView{}
	for _, t := range a.broker.WatchedTopics() {
		views = append(views, viewTopicMetrics(&t))
	}
	return answer(w, r, views)
}

// answerTopicMetrics answers one of them.
func (a *api) answerTopicMetrics(w http.ResponseWriter, r *httpx.Request, topic string) error {
	for _, t := range a.broker.WatchedTopics() {
		if t.Topic == topic {
			return answer(w, r, viewTopicMetrics(&t))
		}
	}
	return missing(topicNotFound, "the messages of topic %q are not counted", httpx.Clip(topic))
}

func (a *api) getTopicMetrics(w http.ResponseWriter, r *httpx.Request) error {
	return a.answerTopicMetrics(w, r, r.Param("topic"))
}

func (a *api) createTopicMetrics(w http.ResponseWriter, r *httpx.Request) error {
	topic := ""
	switch err := readBody(r, maxBody, fields{"topic": text(&topic)}.read); {
	case err != nil:
		return err
	case topic == "":
		return bad("topic is needed")
	}
	if err := a.broker.WatchTopic(r.Context(), topic); err != nil {
		return err
	}
	a.setDurability(w)
	return a.answerTopicMetrics(w, r, topic)
}

// resetTopicMetrics begins to count anew, for all topics where none is named.
func (a *api) resetTopicMetrics(w http.ResponseWriter, r *httpx.Request) error {
	var topic, action string
	switch err := readBody(r, maxBody, fields{"topic": text(&topic), "action": text(&action)}.read); {
	case err != nil:
		return err
	case action != "reset":
		return bad("action is %q, it must be reset", httpx.Clip(action))
	}
	if err := a.broker.ResetTopic(topic); err != nil {
		return topicError(err)
	}
	if topic == "" {
		return a.listTopicMetrics(w, r)
	}
	return a.answerTopicMetrics(w, r, topic)
}

// resetTopicMetricsOfAll has all nodes do that, and answers what all of them count.
func (a *api) resetTopicMetricsOfAll(w http.ResponseWriter, r *httpx.Request) error {
	if a.peers == nil {
		return a.resetTopicMetrics(w, r)
	}
	all, err := a.doAll(r)
	if err != nil {
		return err
	}
	switch got := a.worst(all); {
	case got.Status >= http.StatusBadRequest:
		return got.send(w)
	case bytes.HasPrefix(got.Body, []byte("[")):
		return answerSum(w, r, all, merged(sumTopics))
	}
	return answerSum(w, r, all, sumTopics)
}

func (a *api) deleteTopicMetrics(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.broker.UnwatchTopic(r.Context(), r.Param("topic")); err != nil {
		return topicError(err)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// topicError has the code of the page for a topic that is not there.
func topicError(err error) error {
	if broker.KindOf(err) == broker.NotFound {
		return missing(topicNotFound, "%s", err)
	}
	return err
}
