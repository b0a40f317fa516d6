//go:build !unix

package bus

import (
	"errors"
	"os"
)

// lockFile refuses: two servers on one directory destroy what it holds, and notifyd serves on Linux alone. The package
// builds elsewhere for the sake of [Options.Check].
func lockFile(*os.File) error {
	return errors.New("cannot be locked on this system")
}
