package jetstreamtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// serverEnv makes a process a NATS server: it holds a process in JSON.
const serverEnv = "MILLRACE_TEST_NATS_SERVER"

// process is what a server that is a process of its own has to know.
type process struct {
	Name        string
	Dir         string
	Port        int
	ClusterPort int
	Routes      []string
}

// Serve never returns in a process that Processes started: it is a server then,
// until its standard input ends. TestMain calls it first.
func Serve() {
	text := os.Getenv(serverEnv)
	if text == "" {
		return
	}
	var p process
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	o := &server.Options{
		ServerName: p.Name, Host: "127.0.0.1", Port: p.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: p.Dir, JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 10 << 30,
	}
	if len(p.Routes) > 1 {
		o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: p.ClusterPort, NoAdvertise: true}
		o.Routes = server.RoutesFromStr(strings.Join(p.Routes, ","))
	}
	s, err := server.NewServer(o)
	if err != nil {
		panic(err)
	}
	go s.Start()
	if !s.ReadyForConnections(ready) {
		panic("the server is not ready")
	}
	_, _ = fmt.Fprintln(os.Stdout, "ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test, however that ends
	s.Shutdown()
	s.WaitForShutdown()
	os.Exit(0)
}

// Processes are three servers of a cluster, each a process of its own that can be
// killed and stopped.
type Processes struct {
	tb      testing.TB
	servers [3]process
	running [3]*running
	way     Way
}

// running is a server that was started.
type running struct {
	cmd *exec.Cmd
	in  io.Closer
}

// StartProcesses starts three servers, and ends them with the test.
func StartProcesses(tb testing.TB) *Processes {
	tb.Helper()
	p := &Processes{tb: tb}
	dir := tb.TempDir()
	var routes []string
	ports := routesOf(tb, 2*len(p.servers))
	for i := range p.servers {
		routes = append(routes, ports[i].String())
	}
	for i := range p.servers {
		name := fmt.Sprintf("n%d", i)
		p.servers[i] = process{name, filepath.Join(dir, name), portOf(ports[len(p.servers)+i]), portOf(ports[i]), routes}
		p.Start(i)
	}
	p.way = p.NewWay(tb)
	tb.Cleanup(func() {
		for i, r := range p.running {
			if r != nil {
				p.Kill(i) // one that is paused, too
			}
		}
	})
	return p
}

func portOf(u *url.URL) (port int) {
	_, _ = fmt.Sscan(u.Port(), &port)
	return port
}

// NewWay returns a way of its own to the servers.
func (p *Processes) NewWay(tb testing.TB) Way {
	tb.Helper()
	var targets []string
	for i := range p.servers {
		targets = append(targets, fmt.Sprintf("127.0.0.1:%d", p.servers[i].Port))
	}
	return NewWay(tb, targets...)
}

// URL names the servers, by the way that Cut cuts.
func (p *Processes) URL() string { return p.way.URL() }

// Start starts a server that is not running, with what it kept.
func (p *Processes) Start(i int) {
	p.tb.Helper()
	self, err := os.Executable()
	if err != nil {
		p.tb.Fatal(err)
	}
	text, err := json.Marshal(p.servers[i])
	if err != nil {
		p.tb.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(p.tb.Context()), self) //nolint:gosec // it is this program
	cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		p.tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	p.running[i] = &running{cmd, in}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		p.tb.Fatalf("server %d did not start: %v", i, err)
	}
}

// Kill ends a server at once, with signal 9.
func (p *Processes) Kill(i int) {
	_ = p.running[i].cmd.Process.Kill() // it runs, or it ended by itself
	p.wait(i)
}

// Stop ends a server gracefully.
func (p *Processes) Stop(i int) {
	_ = p.running[i].in.Close()
	p.wait(i)
}

func (p *Processes) wait(i int) {
	_ = p.running[i].cmd.Wait() // how it ended is known
	p.running[i] = nil
}

// Pause stops a server where it is, until Resume.
func (p *Processes) Pause(i int) { p.signal(i, Pause) }

// Resume lets a server go on.
func (p *Processes) Resume(i int) { p.signal(i, Resume) }

func (p *Processes) signal(i int, send func(*os.Process) error) {
	if err := send(p.running[i].cmd.Process); err != nil {
		p.tb.Errorf("server %d: %v", i, err)
	}
}

// named returns the index of the server of that name.
func (p *Processes) named(name string) int {
	for i := range p.servers {
		if p.servers[i].Name == name {
			return i
		}
	}
	p.tb.Fatalf("there is no server %q", name)
	return -1
}

// Leader is the server that leads the first stream whose name begins so.
func (p *Processes) Leader(prefix string) int {
	p.tb.Helper()
	nc, err := nats.Connect(p.URL())
	if err != nil {
		p.tb.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		p.tb.Fatal(err)
	}
	for info := range js.ListStreams(p.tb.Context()).Info() {
		if strings.HasPrefix(info.Config.Name, prefix) && info.Cluster != nil && info.Cluster.Leader != "" {
			return p.named(info.Cluster.Leader)
		}
	}
	p.tb.Fatalf("no stream %s has a leader", prefix)
	return -1
}

// Cut keeps every client of URL away for that long.
func (p *Processes) Cut(d time.Duration) {
	p.way.Cut()
	<-time.After(d)
	p.way.Mend()
}
