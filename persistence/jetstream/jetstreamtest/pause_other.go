//go:build !unix

package jetstreamtest

import (
	"errors"
	"os"
)

// Pause would stop a process where it is.
func Pause(*os.Process) error { return errors.ErrUnsupported }

// Resume would let a process go on.
func Resume(*os.Process) error { return errors.ErrUnsupported }
