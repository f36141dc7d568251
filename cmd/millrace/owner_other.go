//go:build !unix

package main

import "io/fs"

func owner(fs.FileInfo) string { return "unknown" }

func fileLimit() uint64 { return 0 }
