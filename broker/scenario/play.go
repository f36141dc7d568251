package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Door is a way into the broker. Do takes one step and says in words what was
// seen; an error is a failure of the door itself, not a refusal.
//
//	queue NAME [filter=F] [SETTING=V...]        -> ok | exists | invalid
//	set NAME SETTING=V...                       -> ok | invalid
//	delete NAME                                 -> ok | unknown
//	publish TOPIC TEXT [key=] [delay=] [expires=] [once=KEY] [retain=true]
//	                                            -> ok | duplicate | full | conflict | invalid
//	receive NAME [max=10] [lease=30s] [wait=0s] -> TEXT (attempt N), ... | nothing | unknown
//	ack NAME TEXT[@ATTEMPT]                     -> removed | gone | stale | unknown
//	nack NAME TEXT[@ATTEMPT] [delay=0s]         -> ok | stale | unknown
//	extend NAME TEXT[@ATTEMPT] FOR              -> ok | stale | unknown | invalid
//	peek NAME [state=ready|dead]                -> TEXT, ... | nothing
//	purge NAME [all=true]                       -> N
//	pause NAME, resume NAME                     -> ok
//	redrive NAME [to=TOPIC] [filter=] [limit=] [dry_run=true] -> N moved | N matched
//	move NAME [to=TOPIC] [filter=] [limit=] [dry_run=true]    -> N moved | N matched
//	counts NAME                                 -> ready=N leased=N delayed=N dead=N
type Door interface {
	Do(s *Step) (string, error)
}

// World is a running broker behind a door.
type World interface {
	Door
	// Restart ends the broker in an orderly way and starts it on the same data.
	Restart() error
	// Settle waits until the broker has done what it does by itself.
	Settle()
}

// NoRestart as the argument of Play restarts only where the script says so.
const NoRestart = -1

// Play runs a script, with one more restart before step restartAt. The returned
// error names the line, what was seen, and what should have been.
func Play(s *Script, w World, restartAt int) error {
	for i := range s.Steps {
		step := &s.Steps[i]
		if i == restartAt {
			if err := w.Restart(); err != nil {
				return fmt.Errorf("%s: restart before line %d: %w", s.Name, step.Line, err)
			}
		}
		seen, err := play(step, w)
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", s.Name, step.Line, step.Text, err)
		}
		if err := compare(step, seen); err != nil {
			return fmt.Errorf("%s:%d: %s: %w (rule: %s)", s.Name, step.Line, step.Text, err, s.Rule)
		}
		w.Settle()
	}
	return nil
}

func play(s *Step, w World) (string, error) {
	switch s.Verb {
	case "wait":
		if len(s.Args) != 1 {
			return "", errors.New("wait needs a duration")
		}
		d, err := time.ParseDuration(s.Args[0])
		if err == nil {
			<-time.After(d) // in a bubble of fake time
		}
		return "ok", err
	case "restart":
		return "ok", w.Restart()
	}
	return w.Do(s)
}

// refusals are the words that a step without an expectation must not see.
var refusals = []string{"exists", "invalid", "unknown", "full", "conflict", "stale"}

func compare(s *Step, seen string) error {
	if s.Want == "" {
		if slices.Contains(refusals, seen) {
			return fmt.Errorf("it was refused: %s", seen)
		}
		return nil
	}
	if s.Verb == "counts" {
		have := " " + seen + " "
		for w := range strings.FieldsSeq(s.Want) {
			if !strings.Contains(have, " "+w+" ") {
				return fmt.Errorf("saw %q", seen)
			}
		}
		return nil
	}
	want, got := strings.Split(s.Want, ", "), strings.Split(seen, ", ")
	for i, g := range got {
		// Where the scenario does not speak of the attempt, any will do.
		if i < len(want) && !strings.Contains(want[i], "(") {
			got[i], _, _ = strings.Cut(g, " (")
		}
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		return fmt.Errorf("saw %q", seen)
	}
	return nil
}
