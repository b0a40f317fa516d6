//go:build unix

package bus

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the lock that ends with the file or the process, however that ends.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errors.New("is in use")
	}
	return err
}
