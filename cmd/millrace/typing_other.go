//go:build !linux

package main

import "os"

// hideTyping cannot hide here: what is typed is seen.
func hideTyping(*os.File) (show func()) { return func() {} }
