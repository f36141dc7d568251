package main_test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestSwaggerUITriesACall reads every document in a browser, logs in with a key
// and makes a call of one.
func TestSwaggerUITriesACall(t *testing.T) {
	s := startServer(t, "--data", t.TempDir(), "--emqx-listen", "127.0.0.1:0", "--fastqueue-listen", "127.0.0.1:0", "--memfifo-listen", "127.0.0.1:0",
		"--bootstrap-file", bootstrapFile(t, testKeyYAML+"queues:\n- {name: seen-in-the-browser, topic_filter: a/#}\n"))
	b := openBrowser(t)
	b.do(chromedp.Navigate(s.url() + "/"))
	if text := b.await("table"); !strings.Contains(text, "FlowMQ") || !strings.Contains(text, "/api-docs/swagger.json") {
		t.Errorf("the index shows %s", text)
	}
	b.click(`a[href="/api-docs/index.html?doc=flowmq"]`)
	b.click(".btn.authorize")
	b.await(".auth-container input[type=text]")
	b.do(chromedp.SendKeys(chromedp.CSS(".auth-container input[type=text]"), testKey))
	b.click(".modal-ux .authorize")
	b.click(".modal-ux .btn-done")
	const list = "operations-Queues-listQueues"
	if status := b.tryOut(list); !strings.Contains(status, "200") {
		t.Errorf("the call is answered %s", status)
	}
	if body := b.await("#" + list + " .live-responses-table .response-col_description pre"); !strings.Contains(body, "seen-in-the-browser") {
		t.Errorf("the call shows %s", body)
	}
	b.do(chromedp.Navigate(s.url() + "/api-docs/index.html?doc=pulsar"))
	b.await(".opblock")
	for listener, title := range map[string]string{"emqx": "EMQX", "fastqueue": "FastQueue", "memfifo": "memfifo"} {
		b.do(chromedp.Navigate("http://" + s.ports[listener] + "/api-docs/index.html"))
		if got := b.await(".info .title"); !strings.Contains(got, title) {
			t.Errorf("the page of %s shows %s", listener, got)
		}
		if listener == "emqx" {
			if status := b.tryOut("operations-Nodes-get_status"); !strings.Contains(status, "200") {
				t.Errorf("the call of EMQX is answered %s", status)
			}
		}
	}
	b.clean()
}
