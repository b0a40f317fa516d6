package server

import (
	"fmt"
	"net/http"
	"runtime/debug"
)

// FatalPanics lets a panic in a handler end the process, as one in any other goroutine
// does. net/http would log it and go on, with whatever the handler left half done: a
// lock that is held, a count that is wrong (docs/adr/0016-a-fault-ends-the-process.md).
func FatalPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			fault := recover()
			switch fault {
			case nil:
				return
			case http.ErrAbortHandler: // no fault: a handler's way to cut a connection
				panic(fault)
			}
			stack := debug.Stack()
			go func() { panic(fmt.Sprintf("%v\n\n%s", fault, stack)) }()
			select {} // until the process has ended
		}()
		next.ServeHTTP(w, r)
	})
}
