//go:build !linux

package main_test

import "errors"

func limitFiles(int, uint64) error { return errors.ErrUnsupported }
