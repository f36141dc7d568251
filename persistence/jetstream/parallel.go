package jetstream

import (
	"errors"
	"sync"
)

// atOnce is how many streams are made or opened at a time: one alone waits for
// an election, and more than that only wait for each other.
const atOnce = 8

// parallel calls f with each item, atOnce at a time, and returns all errors.
func parallel[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	turn := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, x := range items {
		turn <- struct{}{}
		all.Go(func() {
			errs[i] = f(x)
			<-turn
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
