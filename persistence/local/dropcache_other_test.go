//go:build !linux

package local_test

import "testing"

// dropCache cannot take files out of the page cache here.
func dropCache(testing.TB, string) {}
