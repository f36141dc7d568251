package main_test

import (
	"context"
	"iter"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browser is a tab of a headless Chromium.
type browser struct {
	t       *testing.T
	ctx     context.Context
	console iter.Seq2[chromedp.ConsoleMessage, error] // all that was ever said there
}

// openBrowser starts the Chromium that is installed, or skips the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if at, err := exec.LookPath(name); err == nil {
			path = at
			break
		}
	}
	switch {
	case path != "":
	case os.Getenv("CI") != "":
		t.Fatal("no Chromium is installed: make clients installs the package chromium")
	default:
		t.Skip("no Chromium is installed (package chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Headless)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses root otherwise
	}
	ctx, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	b := &browser{t, ctx, chromedp.Console(ctx)}
	b.do() // the first call starts the browser, whose life is ctx
	return b
}

// do goes through the steps, or fails the test.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// await waits for an element that can be seen, and returns its text.
func (b *browser) await(css string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(css)))
	if err != nil {
		b.t.Fatalf("%s never came: %v", css, err)
	}
	return text
}

func (b *browser) click(css string) {
	b.t.Helper()
	b.await(css)
	b.do(chromedp.Click(chromedp.CSS(css)))
}

// tryOut opens an operation, executes it and returns the status of the answer.
func (b *browser) tryOut(operation string) string {
	b.t.Helper()
	b.click("#" + operation + " .opblock-summary-control")
	b.click("#" + operation + " .try-out__btn")
	b.click("#" + operation + " .execute")
	return b.await("#" + operation + " .live-responses-table .response .response-col_status")
}

// clean fails the test when the console has an error: of a script, of the
// network, or of the policy of a page.
func (b *browser) clean() {
	b.t.Helper()
	const end = "the end of the test"
	b.do(chromedp.Evaluate[chromedp.Void](`console.log("` + end + `")`))
	for m, err := range b.console {
		switch {
		case err != nil:
			b.t.Fatal(err)
		case m.Text == end:
			return
		case m.IsException() || m.Type == chromedp.ConsoleError:
			b.t.Errorf("the console says: %s", m)
		}
	}
}
