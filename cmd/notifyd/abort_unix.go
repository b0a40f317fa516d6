//go:build unix

package main

import (
	"os"
	"runtime/debug"
	"syscall"
)

// abortOnPanic makes a panic, in whatever goroutine, end the process by SIGABRT. Go would exit with 2, which is the code of
// a configuration that cannot work: systemd would not start the program again. As process 1 of a container the program
// cannot be ended by that signal, and exits with 2 after all; container runtimes start it again whatever its code is.
//
// A core would hold keys and tokens. There is none, unless the environment asks Go for it.
func abortOnPanic() {
	if os.Getenv("GOTRACEBACK") == "crash" {
		return
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	debug.SetTraceback("crash")
}
