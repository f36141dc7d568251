// Package jetstreamtest starts NATS servers inside a test: a lone one without a
// socket, which lives in a bubble of fake time, or one or three on loopback.
package jetstreamtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ready is how long servers may take to start, real time.
const ready = 30 * time.Second

// Options of servers.
type Options struct {
	// Servers is 1 or 3.
	Servers int
	// Configure changes what is about to start, if it is given.
	Configure func(*server.Options)
}

// Cluster is one or more servers.
type Cluster struct {
	Servers []*server.Server
	options []*server.Options
}

// InProcess starts one server without a socket, whose goroutines belong to the
// bubble of the caller, if any.
func InProcess(tb testing.TB) *Cluster {
	tb.Helper()
	tell(tb)
	c := &Cluster{}
	c.add(tb, &server.Options{ServerName: "lone", DontListen: true}, tb.TempDir())
	c.stopAfter(tb)
	return c
}

// Start starts servers on loopback and waits until they take work.
func Start(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	tell(tb)
	c := &Cluster{}
	routes := routesOf(tb, o.Servers)
	dir := tb.TempDir()
	for i := range o.Servers {
		so := &server.Options{ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT}
		if o.Servers > 1 {
			port := routes[i].Port()
			so.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1"}
			_, _ = fmt.Sscan(port, &so.Cluster.Port)
			so.Routes = routes
		}
		if o.Configure != nil {
			o.Configure(so)
		}
		c.add(tb, so, filepath.Join(dir, so.ServerName))
	}
	c.stopAfter(tb)
	if o.Servers > 1 {
		c.waitLeader(tb)
	}
	return c
}

// routesOf reserves a port for each server of a cluster.
func routesOf(tb testing.TB, n int) []*url.URL {
	tb.Helper()
	var routes []*url.URL
	for range n {
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		_ = l.Close()
	}
	return routes
}

// add starts one server.
func (c *Cluster) add(tb testing.TB, o *server.Options, dir string) {
	tb.Helper()
	o.JetStream = o.JetStreamMaxStore >= 0
	o.StoreDir, o.NoSigs, o.NoLog = dir, true, true
	if o.JetStreamMaxMemory == 0 {
		o.JetStreamMaxMemory = 1 << 30
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 8 << 20 // more than a message may have
	}
	if o.JetStreamMaxStore == 0 {
		o.JetStreamMaxStore = 10 << 30
	}
	s, err := server.NewServer(o)
	if err != nil {
		tb.Fatal(err)
	}
	if path := os.Getenv("NATS_LOG"); path != "" {
		o.NoLog, o.LogFile, o.Debug = false, path, true
		s.ConfigureLogger()
	}
	go s.Start()
	if !s.ReadyForConnections(ready) {
		tb.Fatalf("server %s is not ready", o.ServerName)
	}
	c.Servers, c.options = append(c.Servers, s), append(c.options, o)
}

func (c *Cluster) stopAfter(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(c.Stop)
}

// Stop ends all servers.
func (c *Cluster) Stop() {
	for _, s := range c.Servers {
		s.Shutdown()
	}
	for _, s := range c.Servers {
		s.WaitForShutdown()
	}
}

// waitLeader waits until the cluster can create streams.
func (c *Cluster) waitLeader(tb testing.TB) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(ready); time.Now().Before(end); <-tick.C {
		for _, s := range c.Servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(c.Servers) {
				return
			}
		}
	}
	tb.Fatal("the cluster has no leader")
}

// URL is where the servers listen.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.ClientURL()
	}
	return strings.Join(urls, ",")
}

// Restart stops a server and starts it again at its address, with what it kept.
func (c *Cluster) Restart(tb testing.TB, i int) {
	tb.Helper()
	o := c.options[i].Clone()
	o.Port = c.Servers[i].Addr().(*net.TCPAddr).Port
	c.Servers[i].Shutdown()
	c.Servers[i].WaitForShutdown()
	s, err := server.NewServer(o)
	if err != nil {
		tb.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(ready) {
		tb.Fatalf("server %s is not ready again", o.ServerName)
	}
	c.Servers[i] = s
}

// Dial connects to the server of InProcess.
func (c *Cluster) Dial() nats.Option { return nats.InProcessServer(c.Servers[0]) }
