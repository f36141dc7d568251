# Every target works from a fresh clone with Go alone; test installs the
# clients that it lacks where it may.

GO       ?= go
ROUNDS   ?= 20

# What torture runs.
CRASH_STATES   ?= 100000
KILL_ROUNDS    ?= 200
CLUSTER_ROUNDS ?= 20
NODES_ROUNDS   ?= 20
MOVES          ?= 200
MODEL_STEPS    ?= 200000
ACCESS_CELLS   ?= 50000
CONNECTIONS    ?= 10000

# COUNTS keeps of a verbose test run what was counted, what was skipped and what
# failed, and fails when something did.
COUNTS = awk '/^(---|===) (RUN|NAME|PAUSE|CONT|PASS)/ { next } { print } /^(--- )?FAIL/ { bad = 1 } END { exit bad }'

FUZZTIME ?= 10s
VULNDB   ?=

# Tools are pinned here and never enter go.mod.
GOLANGCI    = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.8.0

# MQTT.js, which the tests use as a client; outside of git.
MQTTJS ?= $(CURDIR)/.cache/mqttjs

.PHONY: test check build bench lint fuzz torture vuln format clients mqttjs

# The test command of the README: what a change has to pass.
test: clients mqttjs format
	$(GO) vet ./...
	MILLRACE_KILL_ROUNDS=$(ROUNDS) $(GO) test -race -timeout 20m ./...

# What a reviewer runs before merging: test, the lint gate, every fuzz target.
check: test lint fuzz
	$(GO) mod tidy -diff

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o millrace ./cmd/millrace

format:
	@files=$$(gofmt -l broker mqtt rest router persistence cmd 2>/dev/null); \
	if [ -n "$$files" ]; then echo "not formatted, run gofmt -w:"; echo "$$files"; exit 1; fi

lint:
	$(GOLANGCI) run

# Each fuzz target for a few seconds.
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; \
	done

# The same tests as every run, by the hundred thousand; hours. Each says how many
# it really ran. docs/testing.md has the variables.
torture:
	MILLRACE_CLUSTER=all MILLRACE_CLUSTER_ROUNDS=$(CLUSTER_ROUNDS) MILLRACE_CRASH_STATES=$(CRASH_STATES) MILLRACE_FLIPS=all MILLRACE_FAULTS=all MILLRACE_MODEL_STEPS=$(MODEL_STEPS) \
	  $(GO) test -count 1 -timeout 6h -v ./persistence/... | $(COUNTS)
	MILLRACE_KILL_ROUNDS=$(KILL_ROUNDS) MILLRACE_ACCESS_CELLS=$(ACCESS_CELLS) MILLRACE_FLEET=2000 MILLRACE_CONNECTIONS=$(CONNECTIONS) MILLRACE_NODES_ROUNDS=$(NODES_ROUNDS) MILLRACE_MOVES=$(MOVES) \
	  $(GO) test -count 1 -timeout 6h -v -run 'Kill|EveryDoorDecides|AFleet|ManyConnections|ComeAndGo|DeadNodes|SessionsMove' ./cmd/millrace | $(COUNTS)
	MILLRACE_FANOUT_ROUNDS=1000 $(GO) test -count 1 -v -run FanOutUnderRules ./mqtt | $(COUNTS)

# Figures of this machine, one JSON line each.
bench: build
	./cmd/millrace/testdata/bench.sh ./millrace

vuln:
	$(GOVULNCHECK) $(if $(VULNDB),-db file://$(VULNDB)) ./...

# mosquitto_pub and mosquitto_sub are the clients that the README shows. A
# Prometheus scrapes a broker in a test, and a Chromium reads its documents; these
# tests are skipped where there is none.
clients:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    ! { command -v mosquitto_pub && command -v mosquitto_sub && command -v curl && command -v prometheus && command -v chromium; } >/dev/null; then \
	    apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto-clients curl prometheus chromium; fi; \
	  command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null && command -v curl >/dev/null || { \
	    echo "install mosquitto-clients and curl first: the tests run the commands of the README"; exit 1; }

# MQTT.js, where there is Node; the test skips without it.
mqttjs: $(MQTTJS)/node_modules/.package-lock.json

$(MQTTJS)/node_modules/.package-lock.json: cmd/millrace/testdata/mqttjs/package-lock.json
	@command -v npm >/dev/null || { echo "no npm: the test with MQTT.js will be skipped"; exit 0; }; \
	  mkdir -p $(MQTTJS) && cp cmd/millrace/testdata/mqttjs/package*.json $(MQTTJS)/ && \
	  npm ci --prefix $(MQTTJS) --ignore-scripts --no-audit --no-fund --silent && touch $@
